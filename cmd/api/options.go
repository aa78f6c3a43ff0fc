package main

import (
	"cmp"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"ringmaster/cmd/internal/program"
	"ringmaster/pkg/topology"
)

const help = `api serves Ringmaster: the influx-proxy dialect, the native operations API,
events and health, on one port.

  api -config proxy.json                 an existing influx-proxy configuration
  api -config proxy.json -data /var/lib/ringmaster -listen :7076
  api -config proxy.json -nats nats://n1:4222,nats://n2:4222,nats://n3:4222
  api -config proxy.json -check          say what the configuration means, and exit
`

// options is what flags, environment and configuration file say together.
type options struct {
	configFile     string
	data           string
	listen         string
	nats           string
	natsListen     string
	keyFile        string
	slots          int
	prefix         string
	acceptConfig   bool
	lease          time.Duration
	patience       time.Duration
	backendTimeout time.Duration
	errorLimit     time.Duration
	stalled        time.Duration
	webhook        string
	hintBytes      int64
	hintAge        time.Duration
	writeMemory    int64
	queryTime      time.Duration
	queryRows      int64
	queryBytes     int64
	historyAge     time.Duration
	historyBytes   int64
	logLevel       slog.Level

	config *topology.Config
	// file is config or, while looking for mistakes, as much of it as can be read.
	file *topology.Config
}

// parseOptions reads flags, then the file they name. file < environment < flag.
func parseOptions(args, environ []string, out io.Writer) (*options, error) {
	o := &options{}
	var archive, slots string
	var check, version bool
	fs := flag.NewFlagSet("api", flag.ContinueOnError)
	fs.StringVar(&o.configFile, "config", "", "configuration `FILE`: influx-proxy's (json, yaml, toml) or Ringmaster's own YAML")
	fs.StringVar(&o.data, "data", "", "data `DIR` (default: the file's data_dir)")
	fs.StringVar(&o.listen, "listen", "", "`ADDR` to listen on (default: the file's listen_addr, else :7076)")
	fs.StringVar(&o.nats, "nats", "", "NATS `URL`s, separated by commas (default: an embedded JetStream in DIR/jetstream)")
	fs.StringVar(&o.natsListen, "nats-listen", "", "`ADDR` of the embedded JetStream's listener (default: loopback, port kept over restarts; elsewhere only with TLS)")
	fs.StringVar(&o.keyFile, "key-file", "", "`FILE` of the key that encrypts credentials in records (default DIR/key)")
	fs.StringVar(&slots, "slots", "", "task slots of this process, `N` (default: number of CPUs; 0 = none)")
	fs.StringVar(&o.prefix, "prefix", "", "serve everything below `PATH`")
	fs.StringVar(&archive, "archive", "", "segment stores, `URL[,URL…]`; not carried out by this release")
	fs.BoolVar(&o.acceptConfig, "accept-config", false, "apply a configuration that equals an earlier epoch")
	fs.DurationVar(&o.lease, "lease", 0, "how long the work of a dead process lies idle before another takes it over, as a `DURATION` (default 10s, kept from the first start)")
	fs.DurationVar(&o.patience, "patience", 0, "how long a backend that refuses is tried again before its tasks fail, as a `DURATION` (default 2m; five times as long for one that does not answer)")
	fs.DurationVar(&o.backendTimeout, "backend-timeout", 0, "how long a backend may be silent in the middle of a request, as a `DURATION` (default 30s)")
	o.watch(fs)
	o.dataPlane(fs)
	fs.DurationVar(&o.historyAge, "history-age", 0, "for how long operations are kept after their end, as a `DURATION` (default: the file's history.days, else 2160h, which is 90 days)")
	fs.Int64Var(&o.historyBytes, "history-bytes", 0, "how many `BYTES` operations with their tasks, plans and reports may take before those that ended first are removed (default: the file's history.bytes, else 3 GiB)")
	fs.TextVar(&o.logLevel, "log-level", slog.LevelInfo, "`LEVEL` of the log: debug, info, warn or error")
	fs.BoolVar(&check, "check", false, "validate the configuration, print what it means, and exit")
	fs.BoolVar(&version, "version", false, "print the version and exit")
	mistakes, err := program.Parse(fs, help, args, environ, out)
	if err != nil {
		return nil, err
	}
	if version {
		fmt.Fprintln(out, "ringmaster api", program.Version())
		return nil, program.ErrDone
	}
	bounds := append(program.BackendBounds(), program.Bound{Flag: "lease", Least: time.Second, Most: time.Hour},
		program.Bound{Flag: "stalled", Least: topology.LeastStalled, Most: topology.MostStalled},
		program.Bound{Flag: "hint-age", Least: time.Minute}, program.Bound{Flag: "query-time", Least: time.Millisecond},
		program.Bound{Flag: "history-age", Least: time.Minute})
	usage := &program.UsageError{Mistakes: append(mistakes, program.DurationMistakes(fs, bounds...)...)}
	wrong := func(format string, a ...any) { usage.Mistakes = append(usage.Mistakes, fmt.Sprintf(format, a...)) }
	o.validateDataPlane(wrong)
	o.readConfig(wrong)
	o.fill(slots, wrong)
	o.validate(wrong)
	if archive != "" || len(o.file.Archive) > 0 {
		wrong("-archive: segment stores are not carried out by this release; leave it out")
	}
	if len(usage.Mistakes) > 0 {
		return nil, usage
	}
	if check {
		o.describe(out)
		return nil, program.ErrDone
	}
	return o, nil
}

// watch declares the flags of what is done about operations that don't get on.
func (o *options) watch(fs *flag.FlagSet) {
	fs.DurationVar(&o.errorLimit, "error-limit", 0, program.ErrorLimitHelp)
	fs.DurationVar(&o.stalled, "stalled", 0, "for how long nothing may move before an operation is shown as stalled, as a `DURATION` (default: the file's stalled_after, else 5m)")
	fs.StringVar(&o.webhook, "webhook", "", "`URL` that is told of operations that stall or fail (default: the file's webhook)")
}

// dataPlane declares the flags of the data plane.
func (o *options) dataPlane(fs *flag.FlagSet) {
	fs.Int64Var(&o.hintBytes, "hint-bytes", 0, "how many `BYTES`, compressed, are kept for a backend that is down before writes for it are refused (default 1 GiB)")
	fs.DurationVar(&o.hintAge, "hint-age", 0, "how long they may wait before writes for it are refused, as a `DURATION` (default 72h)")
	fs.Int64Var(&o.writeMemory, "write-memory", 0, "how many `BYTES` of writes are held at a time before further ones are refused (default 256 MiB)")
	fs.DurationVar(&o.queryTime, "query-time", 0, "how long a query may take, as a `DURATION` (default 30m)")
	fs.Int64Var(&o.queryRows, "query-points", 0, "how many points the answer to a query may have, `N` (default 1e9, and not counted where one backend answers; when set, every answer is counted)")
	fs.Int64Var(&o.queryBytes, "query-bytes", 0, "how many `BYTES` the backends' answers to a query may have (default 256 GiB)")
}

// validateDataPlane finds what is wrong with their numbers.
func (o *options) validateDataPlane(wrong func(string, ...any)) {
	if o.hintBytes < 0 || o.hintBytes > 0 && o.hintBytes < leastHintBytes {
		wrong("-hint-bytes %d: use at least %d", o.hintBytes, leastHintBytes)
	}
	if o.writeMemory < 0 || o.writeMemory > 0 && o.writeMemory < leastWriteMemory {
		wrong("-write-memory %d: use at least %d", o.writeMemory, leastWriteMemory)
	}
	if o.queryRows < 0 {
		wrong("-query-points %d: use a number above 0", o.queryRows)
	}
	if o.queryBytes < 0 {
		wrong("-query-bytes %d: use a number above 0", o.queryBytes)
	}
}

// readConfig reads and validates the configuration file.
func (o *options) readConfig(wrong func(string, ...any)) {
	o.file = &topology.Config{}
	if o.configFile == "" {
		wrong("-config is missing: name an influx-proxy configuration, for example -config proxy.json")
		return
	}
	raw, err := os.ReadFile(o.configFile)
	if err != nil {
		wrong("-config: %v", err)
		return
	}
	name := filepath.Base(o.configFile)
	o.config, err = topology.Parse(name, raw)
	o.file = cmp.Or(o.config, topology.Readable(name, raw), o.file)
	var mistakes *topology.ConfigError
	switch {
	case errors.As(err, &mistakes):
		for _, m := range mistakes.Mistakes {
			wrong("%s: %s", o.configFile, m)
		}
	case err != nil:
		wrong("%s: %v", o.configFile, err)
	}
}

// fill takes from the file, if it could be read, what neither flag nor environment
// says.
func (o *options) fill(slots string, wrong func(string, ...any)) {
	file := o.file
	or := func(value *string, inFile, otherwise string) {
		*value = cmp.Or(*value, inFile, otherwise)
	}
	or(&o.data, file.DataDir, "data")
	or(&o.listen, file.ListenAddr, ":7076")
	or(&o.nats, file.NATS, "")
	or(&o.natsListen, file.NATSListen, "")
	or(&o.keyFile, file.KeyFile, filepath.Join(o.data, keyFileName))
	or(&o.prefix, file.Prefix, "")
	or(&o.webhook, file.Webhook, "")
	o.stalled = cmp.Or(o.stalled, file.StalledAfter)
	o.historyAge = cmp.Or(o.historyAge, file.History.Age)
	if o.historyBytes < 0 || o.historyBytes > 0 && o.historyBytes < topology.LeastHistoryBytes {
		wrong("-history-bytes %d: use at least %d", o.historyBytes, topology.LeastHistoryBytes)
	}
	o.historyBytes = cmp.Or(o.historyBytes, file.History.Bytes)
	o.slots = runtime.NumCPU()
	if file.Slots != nil {
		o.slots = *file.Slots
	}
	if slots != "" {
		n, err := strconv.Atoi(slots)
		if err != nil || n < 0 || n > maxSlots {
			wrong("-slots %q: use a number from 0 to %d", slots, maxSlots)
		}
		o.slots = n
	}
}

// validate finds what is wrong with the values themselves.
func (o *options) validate(wrong func(string, ...any)) {
	// An address in a file that has mistakes has been judged with it.
	judged := func(address, inFile string) bool { return o.config == nil && address == inFile }
	if m := program.ListenMistake(o.listen); m != "" && !judged(o.listen, o.file.ListenAddr) {
		wrong("-listen: %s", m)
	}
	if o.natsListen != "" {
		m := program.ListenMistake(o.natsListen)
		switch {
		case m != "" && judged(o.natsListen, o.file.NATSListen):
			m = ""
		case m == "" && o.nats == "":
			m = program.NATSListenMistake(o.natsListen)
		}
		if m != "" {
			wrong("-nats-listen: %s", m)
		}
	}
	if m := keyFileMistake(o.keyFile, o.data); m != "" {
		wrong("-key-file: %s", m)
	}
	if o.nats != "" {
		if m := program.NATSMistake(o.nats); m != "" {
			wrong("-nats: %s", m)
		}
	}
	if o.webhook != "" && o.webhook != o.file.Webhook {
		if err := topology.CheckWebhook(o.webhook); err != nil {
			wrong("-webhook: it %v; write where to send to, like https://hooks.example.com/ringmaster", err)
		}
	}
	if o.prefix != "" && (!strings.HasPrefix(o.prefix, "/") || strings.ContainsAny(o.prefix, "?#%*: ")) {
		wrong("-prefix %q: begin it with a slash, like /influx", o.prefix)
	}
	if o.file.HTTPSEnabled {
		o.validateCertificate(wrong)
	}
}

// validateCertificate finds what is wrong with the files of the certificate; that
// one is not named is a mistake of the configuration file.
func (o *options) validateCertificate(wrong func(string, ...any)) {
	read := func(key, path string) []byte {
		if path == "" {
			return nil
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			wrong("%s: %s: %v", o.configFile, key, err)
		}
		return raw
	}
	certificate, key := read("https_cert", o.file.HTTPSCert), read("https_key", o.file.HTTPSKey)
	if certificate == nil || key == nil {
		return
	}
	if _, err := tls.X509KeyPair(certificate, key); err != nil {
		wrong("%s: https_cert and https_key: %v", o.configFile, err)
	}
}

const (
	maxSlots = 1024

	// leastHintBytes is room for some writes of the largest size.
	leastHintBytes = 64 << 20

	// leastWriteMemory is room for one write of the largest size with its parts.
	leastWriteMemory = 128 << 20

	// keyFileName is the key file's name in the data directory.
	keyFileName = "key"
)

// describe prints what the configuration means.
func (o *options) describe(out io.Writer) {
	fmt.Fprintf(out, "%s is valid\n", o.configFile)
	fmt.Fprintf(out, "listen %s, data %s, hash_key %s, shard_key %s\n", o.listen, o.data, o.config.HashKey, o.config.ShardKey)
	if l := o.config.Limits.Default; !l.None() {
		fmt.Fprintf(out, "limits of each backend: %s\n", l)
	}
	for _, c := range o.config.Circles {
		fmt.Fprintf(out, "circle %d %q\n", c.ID, c.Name)
		for _, b := range c.Backends {
			own := ""
			if l, ok := o.config.Limits.Backends[b.URL]; ok {
				own = ", limits: " + l.String()
			}
			fmt.Fprintf(out, "  backend %q %s%s\n", b.Name, b.URL, own)
		}
	}
	for _, w := range o.config.Warnings {
		fmt.Fprintf(out, "warning: %s\n", w)
	}
	for _, left := range leftovers(o.data, o.config.DataDir) {
		fmt.Fprintf(out, "warning: %s\n", left)
	}
}

// sayReady prints the one line that says where the server is.
func (o *options) sayReady(out io.Writer, address string) {
	scheme := "http"
	if o.config.HTTPSEnabled {
		scheme = "https"
	}
	fmt.Fprintf(out, "ringmaster api ready on %s://%s%s, data in %s\n", scheme, address, o.prefix, o.data)
}
