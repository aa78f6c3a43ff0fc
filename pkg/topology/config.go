package topology

import (
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"ringmaster/pkg/operation"
	"ringmaster/pkg/ring"
)

// Config is a configuration file as it takes effect, defaults filled in. The keys
// are those of influx-proxy 2.4 and 2.5 together with Ringmaster's own, in any of
// the formats.
type Config struct {
	// Source is the name that Parse was given.
	Source string

	// Circles, HashKey, ShardKey, VNodes and Databases make up the topology.
	Circles   []Circle
	HashKey   string
	ShardKey  string
	VNodes    int
	Databases []string

	// ListenAddr is the address of the HTTP listener, DataDir the directory of
	// everything that is kept.
	ListenAddr string
	DataDir    string

	// Credentials, if any, are what clients of the proxy have to give;
	// PingAuthEnabled asks for them on /ping, too.
	Credentials     Credentials
	PingAuthEnabled bool

	// HTTPSCert and HTTPSKey are the files of the listener's certificate, used
	// when HTTPSEnabled; TLS narrows the protocol.
	HTTPSEnabled bool
	HTTPSCert    string
	HTTPSKey     string
	TLS          TLS

	// The data plane.
	FlushSize       int // points
	FlushTime       time.Duration
	CheckInterval   time.Duration
	RewriteInterval time.Duration
	RewriteThreads  int
	ConnPoolSize    int
	WriteTimeout    time.Duration
	IdleTimeout     time.Duration
	WriteTracing    bool
	QueryTracing    bool
	PprofEnabled    bool

	// Ringmaster's own settings, one for each flag of the same name; empty where
	// the file does not say. NATS can hold a token: it must not be logged.
	NATS       string
	NATSListen string
	KeyFile    string
	Slots      *int
	Prefix     string
	Archive    []string
	// History bounds what is kept of operations that have ended.
	History History
	// StalledAfter is for how long nothing may move before an operation counts as
	// stalled, Webhook the URL that is told of it; zero where the file does not say.
	// The URL can hold a token: it must not be logged.
	StalledAfter time.Duration
	Webhook      string

	// Limits bound what operations take from the backends; they are no part of the
	// topology, so that changing them makes no new epoch.
	Limits operation.BackendLimits

	// Warnings names what works but is better changed.
	Warnings []Mistake
}

// History is for how long, and in how many bytes, operations are kept that have ended;
// zero values are the defaults.
type History struct {
	Age   time.Duration
	Bytes int64
}

// TLS narrows what the HTTPS listener speaks; zero values are Go's defaults. The
// numbers are those of crypto/tls.
type TLS struct {
	Ciphers                []uint16
	MinVersion, MaxVersion uint16
}

// Bounds of the configuration's numbers, wide enough for anything that makes sense
// and narrow enough that nothing overflows or fills the memory.
const (
	mostPoints  = 10_000_000
	mostThreads = 10_000
	mostVNodes  = 65_536
	mostOnRing  = 4 << 20 // points of all backends of a circle
	mostDays    = 36_500
	mostHistory = 1 << 50 // bytes

	// LeastHistoryBytes is the least that can be kept of ended operations.
	LeastHistoryBytes = 1 << 20
)

// Bounds of Config.StalledAfter, and of the flag of its name.
const (
	LeastStalled = time.Second
	MostStalled  = 30 * 24 * time.Hour
)

// Parse reads a configuration. The format follows the extension of name: .json,
// .yaml, .yml or .toml; without one of these it is JSON if it begins with a brace,
// else YAML. Reading is strict: unknown keys, wrong types and everything else that
// is wrong come back together as one *ConfigError.
func Parse(name string, data []byte) (*Config, error) {
	c, mistakes := read(name, data)
	if len(mistakes) > 0 {
		return nil, &ConfigError{Name: name, Mistakes: mistakes}
	}

	c.warn()

	return c, nil
}

// Readable returns what can be read of a configuration that Parse refuses, nil if
// nothing can: enough to look for mistakes outside the file, such as in what it
// names, and to report them together with its own. It must not take effect.
func Readable(name string, data []byte) *Config {
	c, _ := read(name, data)

	return c
}

// read returns the configuration as far as it can be read, and what is wrong with it.
func read(name string, data []byte) (*Config, []Mistake) {
	d := &decoder{}

	fields := d.parse(name, data)
	if len(d.mistakes) > 0 {
		return nil, d.mistakes
	}

	root := &object{decoder: d, fields: fields}
	c := root.config()
	c.Source = name

	root.finish()

	return c, d.mistakes
}

// Topology returns the topology of the configuration, without an epoch; see Decide.
func (c *Config) Topology() *Topology {
	t := &Topology{
		Circles:   cloneCircles(c.Circles),
		HashKey:   c.HashKey,
		ShardKey:  c.ShardKey,
		VNodes:    c.VNodes,
		Databases: slices.Clone(c.Databases),
		Source:    c.Source,
	}
	t.Digest = t.ComputeDigest()

	return t
}

// config reads the top level of a configuration.
func (o *object) config() *Config {
	own := map[string]limits{}
	c := &Config{
		Circles:         o.circles(own),
		ListenAddr:      o.text("listen_addr", ":7076"),
		Databases:       o.texts("db_list", "write the name of a database; an empty list allows all"),
		DataDir:         o.text("data_dir", "data"),
		HashKey:         o.text("hash_key", ring.DefaultHashKey),
		ShardKey:        o.text("shard_key", ring.DefaultShardKey),
		VNodes:          o.count("vnode_size", ring.DefaultVNodes, mostVNodes),
		FlushSize:       o.count("flush_size", 10_000, mostPoints),
		FlushTime:       o.seconds("flush_time", 1),
		CheckInterval:   o.seconds("check_interval", 1),
		RewriteInterval: o.seconds("rewrite_interval", 10),
		RewriteThreads:  o.count("rewrite_threads", 5, mostThreads),
		ConnPoolSize:    o.count("conn_pool_size", 20, mostThreads),
		WriteTimeout:    o.seconds("write_timeout", 10),
		IdleTimeout:     o.seconds("idle_timeout", 10),
		Credentials:     o.credentials(),
		PingAuthEnabled: o.enabled("ping_auth_enabled"),
		WriteTracing:    o.enabled("write_tracing"),
		QueryTracing:    o.enabled("query_tracing"),
		PprofEnabled:    o.enabled("pprof_enabled"),
		HTTPSEnabled:    o.enabled("https_enabled"),
		HTTPSCert:       o.text("https_cert", ""),
		HTTPSKey:        o.text("https_key", ""),
		NATS:            o.text("nats", ""),
		NATSListen:      o.text("nats_listen", ""),
		KeyFile:         o.text("key_file", ""),
		Prefix:          o.text("prefix", ""),
		Archive:         o.texts("archive", "write the URL of a segment store"),
	}

	// Logs go to standard error: these are read only so that a file that has them
	// still starts.
	o.text("mlog_dir", "")
	o.text("tlog_dir", "")
	o.enabled("log_enabled")

	c.Limits = backendLimits(o.limits(), own)

	if n, ok := o.whole("slots", mostThreads); ok {
		c.Slots = &n
	}

	if h := o.object("history"); h != nil {
		c.History = h.history()
		h.finish()
	}

	c.StalledAfter = o.span("stalled_after", LeastStalled, MostStalled)

	if w := o.object("webhook"); w != nil {
		c.Webhook = w.webhook()
		w.finish()
	}

	if t := o.object("tls"); t != nil {
		c.TLS = t.tls()
		t.finish()
	}

	o.check(c)

	return c
}

// check reports what is wrong although its type is right.
func (o *object) check(c *Config) {
	o.checkAddress("listen_addr", c.ListenAddr)

	if c.NATSListen != "" {
		o.checkAddress("nats_listen", c.NATSListen)
	}

	if _, err := ring.ParseHashKey(c.HashKey); err != nil {
		o.mistake("hash_key", "is "+strconv.Quote(c.HashKey), "use idx, exi, name, url or a template with %idx")
	}

	if _, err := ring.ParseShardKey(c.ShardKey); err != nil {
		o.mistake("shard_key", "is "+strconv.Quote(c.ShardKey)+" and would place all measurements on one backend",
			"use a template with %db, %mm or both")
	}

	for i := range c.Circles {
		if len(c.Circles[i].Backends)*c.VNodes > mostOnRing {
			o.mistake("vnode_size", fmt.Sprintf("gives circles[%d] more than %d points on its ring", c.Circles[i].ID, mostOnRing), "make it smaller")
		}
	}

	if c.HTTPSEnabled && c.HTTPSCert == "" {
		o.mistake("https_cert", "is empty although https_enabled is true", "name the file of the certificate")
	}

	if c.HTTPSEnabled && c.HTTPSKey == "" {
		o.mistake("https_key", "is empty although https_enabled is true", "name the file of the certificate's key")
	}

	if c.Prefix != "" && (!strings.HasPrefix(c.Prefix, "/") || strings.ContainsAny(c.Prefix, "?#")) {
		o.mistake("prefix", "is not a path", "begin it with a slash, like /influx")
	}
}

func (o *object) checkAddress(key, address string) {
	const remedy = "write host:port, or :port for every address of the host"

	_, port, err := net.SplitHostPort(address)
	if err != nil {
		o.mistake(key, "is not an address to listen on", remedy)

		return
	}

	if n, err := strconv.Atoi(port); err == nil && (n < 0 || n > 65535) {
		o.mistake(key, "has a port that is not between 0 and 65535", remedy)
	} else if port == "" {
		o.mistake(key, "has no port", remedy)
	}
}

// credentials reads the pair of a mapping, encrypted or not. The two generations
// call the switch differently.
func (o *object) credentials() Credentials {
	c := Credentials{Username: o.text("username", ""), Password: o.text("password", "")}

	secure, has24 := o.flag("auth_secure")
	encrypt, has25 := o.flag("auth_encrypt")

	if has24 && has25 && secure != encrypt {
		o.mistake(o.at("auth_encrypt"), "says something else than auth_secure", "both are names of one setting: keep one")
	}

	if secure || encrypt {
		c.Username = o.decrypted("username", c.Username)
		c.Password = o.decrypted("password", c.Password)
	}

	return c
}

func (o *object) decrypted(key, value string) string {
	plain, err := DecryptCredential(CipherKey, value)
	if err != nil {
		o.mistake(o.at(key), "is not encrypted although the file says so",
			"encrypt it with influx-proxy's /encrypt, or set auth_encrypt or auth_secure to false")
	}

	return plain
}

// circles reads the circles, and the limits of single backends into limited, by URL.
func (o *object) circles(limited map[string]limits) []Circle {
	var circles []Circle

	seen := map[string]string{}

	for i, circle := range o.objects("circles", "name at least one circle of backends") {
		circles = append(circles, Circle{ID: i, Name: circle.text("name", ""), Backends: circle.backends(seen, limited)})
		circle.finish()
	}

	return circles
}

// backends reads the backends of a circle. seen holds the names that other backends
// have, with the paths of those: a name is given once in the whole file, as
// influx-proxy demands it.
func (o *object) backends(seen map[string]string, limited map[string]limits) []Backend {
	var backends []Backend

	for _, b := range o.objects("backends", "name at least one backend") {
		backend := Backend{Name: b.required("name", nameRemedy), URL: b.required("url", urlRemedy)}

		b.checkName(backend.Name, seen)
		b.checkURL(backend.URL)

		backend.Credentials = b.credentials()
		backend.WriteOnly = b.enabled("write_only")
		if l := b.limits(); l != (limits{}) {
			limited[backend.URL] = l
		}
		b.finish()

		backends = append(backends, backend)
	}

	return backends
}

const (
	nameRemedy = "give each backend a name of its own"
	urlRemedy  = "write the server's address, like http://127.0.0.1:8086"
)

func (o *object) checkName(name string, seen map[string]string) {
	if name == "" {
		return // said already
	}

	if other, taken := seen[name]; taken {
		o.mistake(o.at("name"), fmt.Sprintf("is %q, the name of %s", name, other), nameRemedy)
	} else {
		seen[name] = o.path
	}
}

func (o *object) checkURL(address string) {
	if address == "" {
		return // said already
	}

	if err := CheckURL(address); err != nil {
		o.mistake(o.at("url"), err.Error(), urlRemedy)
	}
}

// history reads the mapping that bounds what is kept of ended operations.
// webhook reads the mapping that says where to send to.
func (o *object) webhook() string {
	const remedy = "write where to send to, like https://hooks.example.com/ringmaster"

	address := o.required("url", remedy)
	if address == "" {
		return "" // said already
	}

	if err := CheckWebhook(address); err != nil {
		o.mistake(o.at("url"), err.Error(), remedy)
	}

	return address
}

func (o *object) history() History {
	h := History{Age: time.Duration(o.count("days", 0, mostDays)) * 24 * time.Hour}

	n, ok := o.whole("bytes", mostHistory)
	if ok && n > 0 && n < LeastHistoryBytes {
		o.mistake(o.at("bytes"), "is too small", fmt.Sprintf("use at least %d, or leave it out for the default", LeastHistoryBytes))
	}

	h.Bytes = int64(n)

	return h
}

// tls reads the mapping that narrows the HTTPS listener.
func (o *object) tls() TLS {
	var t TLS

	const remedy = "use a name like TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"

	for i, name := range o.texts("ciphers", remedy) {
		if strings.EqualFold(name, fallbackSCSV) {
			continue
		}

		id, ok := cipherSuite(name)
		if !ok && name != "" {
			o.mistake(fmt.Sprintf("%s[%d]", o.at("ciphers"), i), "is no cipher suite that Go knows", remedy)
		}

		t.Ciphers = append(t.Ciphers, id)
	}

	t.MinVersion, t.MaxVersion = o.tlsVersion("min_version", oldest), o.tlsVersion("max_version", 0)
	if t.MinVersion != 0 && t.MaxVersion != 0 && t.MinVersion > t.MaxVersion {
		o.mistake(o.at("min_version"), "is later than max_version", "")
	}

	return t
}

const (
	// fallbackSCSV is no suite but a signal of clients, which influx-proxy takes
	// for one; servers heed it whether it is listed or not.
	fallbackSCSV = "TLS_FALLBACK_SCSV"
	// oldest is the least that Go still speaks.
	oldest = tls.VersionTLS10
)

// tlsVersion reads a version. influx-proxy knows SSL 3.0, too, which nothing speaks
// any more: it counts as ssl3, or is a mistake if that is 0.
func (o *object) tlsVersion(key string, ssl3 uint16) uint16 {
	name := o.text(key, "")

	switch strings.TrimPrefix(strings.ToUpper(name), "TLS") {
	case "":
		return 0
	case "SSL3.0":
		if ssl3 != 0 {
			return ssl3
		}
	case "1.0":
		return tls.VersionTLS10
	case "1.1":
		return tls.VersionTLS11
	case "1.2":
		return tls.VersionTLS12
	case "1.3":
		return tls.VersionTLS13
	}

	o.mistake(o.at(key), "is no version of TLS", "use 1.0, 1.1, 1.2 or 1.3")

	return 0
}

// cipherSuite finds a suite by name, in any case. influx-proxy calls two of them by
// names that crypto/tls has since made longer.
func cipherSuite(name string) (uint16, bool) {
	name = strings.ToUpper(name)
	if strings.HasSuffix(name, "_WITH_CHACHA20_POLY1305") {
		name += "_SHA256"
	}

	for _, s := range slices.Concat(tls.CipherSuites(), tls.InsecureCipherSuites()) {
		if s.Name == name {
			return s.ID, true
		}
	}

	return 0, false
}
