package topology_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/topology"
)

var update = flag.Bool("update", false, "write the expected messages of testdata anew")

func testdata(t testing.TB, pattern string) map[string][]byte {
	t.Helper()

	paths, err := filepath.Glob("testdata/" + pattern)
	require.NoError(t, err)
	require.NotEmpty(t, paths)

	files := map[string][]byte{}

	for _, path := range paths {
		data, err := os.ReadFile(path)
		require.NoError(t, err)

		files[filepath.Base(path)] = data
	}

	return files
}

func parseFile(t testing.TB, name string) *topology.Config {
	t.Helper()

	data, err := os.ReadFile("testdata/" + name)
	require.NoError(t, err)
	c, err := topology.Parse(name, data)
	require.NoError(t, err)

	return c
}

// TestBadConfigurations compares all that is said about each bad file with the
// .expected file beside it, and checks that nothing of it is a password: every
// password in the corpus contains "hunter2".
func TestBadConfigurations(t *testing.T) {
	t.Parallel()

	for name, data := range testdata(t, "*.bad.*") {
		if strings.HasSuffix(name, ".expected") {
			continue
		}

		t.Run(name, func(t *testing.T) {
			t.Parallel()

			config, err := topology.Parse(name, data)
			require.Nil(t, config)

			var mistakes *topology.ConfigError

			require.ErrorAs(t, err, &mistakes)
			require.Equal(t, name, mistakes.Name)
			require.Len(t, strings.Split(err.Error(), "\n"), len(mistakes.Mistakes), "one line for each mistake")
			require.NotContains(t, err.Error(), "hunter2")

			expected := "testdata/" + name + ".expected"
			if *update {
				require.NoError(t, os.WriteFile(expected, []byte(err.Error()+"\n"), 0o600))
			}

			want, readErr := os.ReadFile(expected)
			require.NoError(t, readErr)
			require.Equal(t, string(want), err.Error()+"\n")
		})
	}
}

func TestGoodConfigurations(t *testing.T) {
	t.Parallel()

	for name, data := range testdata(t, "*.good.*") {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			config, err := topology.Parse(name, data)
			require.NoError(t, err)
			require.Equal(t, name, config.Source)

			if !strings.HasPrefix(name, "warnings") {
				require.Empty(t, config.Warnings)
			}

			for _, circle := range config.Circles {
				placement, err := config.Topology().Placement(circle.ID)
				require.NoError(t, err)
				require.NotNil(t, placement.Owner("db", "measurement"))
			}
		})
	}
}

// TestFormatsAgree reads one configuration in the three formats.
func TestFormatsAgree(t *testing.T) {
	t.Parallel()

	// JSON is YAML, as far as configurations go.
	data, err := os.ReadFile("testdata/influx-proxy-2.5.good.json")
	require.NoError(t, err)
	asYAML, err := topology.Parse("c.yml", data)
	require.NoError(t, err)
	asJSON, err := topology.Parse("c.json", data)
	require.NoError(t, err)

	asYAML.Source = asJSON.Source
	require.Equal(t, asJSON, asYAML)

	// The same cluster, written twice.
	toml := parseFile(t, "influx-proxy-2.5.good.toml")
	yaml, err := topology.Parse("c.yaml", []byte(`
circles:
  - name: circle-1
    backends: [{name: influxdb-1-1, url: "http://127.0.0.1:8086"}, {name: influxdb-1-2, url: "http://127.0.0.1:8087"}]
  - name: circle-2
    backends: [{name: influxdb-2-1, url: "http://127.0.0.1:8088"}]
`))
	require.NoError(t, err)

	yaml.Source = toml.Source
	require.Equal(t, toml, yaml, "what the sample spells out are the defaults")
}

func TestFormatFollowsExtensionElseContent(t *testing.T) {
	t.Parallel()

	json := []byte(` {"circles":[{"backends":[{"name":"a","url":"http://a"}]}]}`)
	yaml := []byte("circles: [{backends: [{name: a, url: 'http://a'}]}]\n")
	toml := []byte("[[circles]]\n[[circles.backends]]\nname='a'\nurl='http://a'\n")

	for name, data := range map[string][]byte{
		"c.json": json, "C.JSON": json, "c.yaml": yaml, "c.yml": yaml, "c.toml": toml, "c": json, "c.conf": yaml,
		"bom.json": append([]byte("\xef\xbb\xbf"), json...), "": json,
	} {
		_, err := topology.Parse(name, data)
		require.NoError(t, err, name)
	}

	_, err := topology.Parse("c.json", yaml)
	require.ErrorContains(t, err, "is not JSON: line 1")
	_, err = topology.Parse("c.toml", yaml)
	require.ErrorContains(t, err, "is not TOML: line 1")
	_, err = topology.Parse("c.yaml", bytes.Repeat([]byte("# filler\n"), 1<<20))
	require.ErrorContains(t, err, "is larger than")
}

func TestDefaults(t *testing.T) {
	t.Parallel()

	require.Equal(t, &topology.Config{
		Source:          "least.good.json",
		Circles:         []topology.Circle{{Backends: []topology.Backend{{Name: "only", URL: "http://localhost:8086/"}}}},
		HashKey:         "idx",
		ShardKey:        "%db,%mm",
		VNodes:          256,
		Databases:       []string{},
		ListenAddr:      ":7076",
		DataDir:         "data",
		FlushSize:       10_000,
		FlushTime:       time.Second,
		CheckInterval:   time.Second,
		RewriteInterval: 10 * time.Second,
		RewriteThreads:  5,
		ConnPoolSize:    20,
		WriteTimeout:    10 * time.Second,
		IdleTimeout:     10 * time.Second,
		Archive:         []string{},
	}, parseFile(t, "least.good.json"))
}

func TestEverySetting(t *testing.T) {
	t.Parallel()

	require.Equal(t, &topology.Config{
		Source: "influx-proxy-2.5.good.json",
		Circles: []topology.Circle{{ID: 0, Name: "circle-1", Backends: []topology.Backend{
			{Name: "influxdb-1-1", URL: "http://127.0.0.1:8086"},
			{Name: "influxdb-1-2", URL: "http://127.0.0.1:8087", WriteOnly: true},
		}}},
		HashKey:         "exi",
		ShardKey:        "%db,%mm",
		VNodes:          256,
		Databases:       []string{},
		ListenAddr:      "127.0.0.1:7076",
		DataDir:         "/var/lib/influx-proxy/data",
		Credentials:     topology.Credentials{Username: "admin", Password: "s3cret"},
		PingAuthEnabled: true,
		HTTPSEnabled:    true,
		HTTPSCert:       "/etc/ssl/influx-proxy.crt",
		HTTPSKey:        "/etc/ssl/influx-proxy.key",
		TLS: topology.TLS{
			Ciphers:    []uint16{tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256},
			MinVersion: tls.VersionTLS12,
			MaxVersion: tls.VersionTLS13,
		},
		FlushSize:       20_000,
		FlushTime:       2 * time.Second,
		CheckInterval:   3 * time.Second,
		RewriteInterval: 20 * time.Second,
		RewriteThreads:  8,
		ConnPoolSize:    40,
		WriteTimeout:    15 * time.Second,
		IdleTimeout:     16 * time.Second,
		WriteTracing:    true,
		QueryTracing:    true,
		PprofEnabled:    true,
		Archive:         []string{},
	}, parseFile(t, "influx-proxy-2.5.good.json"))

	own := parseFile(t, "ringmaster.good.yaml")
	require.Equal(t, "nats://nats-1:4222,nats://nats-2:4222", own.NATS)
	require.Equal(t, "127.0.0.1:4222", own.NATSListen)
	require.Equal(t, "/etc/ringmaster/key", own.KeyFile)
	require.Equal(t, "/influx", own.Prefix)
	require.Equal(t, []string{"s3://archive/europe", "/mnt/archive"}, own.Archive)
	require.Equal(t, 10*time.Minute, own.StalledAfter)
	require.Equal(t, "https://hooks.example.com/in?token=x", own.Webhook)
	require.NotNil(t, own.Slots)
	require.Zero(t, *own.Slots, "0 slots is a choice, not the default")
}

func TestEncryptedCredentials(t *testing.T) {
	t.Parallel()

	admin := topology.Credentials{Username: "admin", Password: "admin"}

	c := parseFile(t, "encrypted-2.4.good.json")
	require.Equal(t, admin, c.Credentials)
	require.Equal(t, topology.Credentials{Username: "admin", Password: "s3cret"}, c.Circles[0].Backends[0].Credentials,
		"the proxy's switch says nothing about the backends")
	require.Equal(t, admin, c.Circles[0].Backends[1].Credentials)

	require.Equal(t, admin, parseFile(t, "influx-proxy-2.5.good.yaml").Circles[0].Backends[1].Credentials)
}

func TestWarnings(t *testing.T) {
	t.Parallel()

	c := parseFile(t, "warnings.good.yaml")
	got := make([]string, len(c.Warnings))

	for i, w := range c.Warnings {
		got[i] = w.String()
	}

	require.Equal(t, []string{
		"circles[0].backends: 25 points of 11 backends coincide on the ring under hash_key idx, so the order of the backends places data; " +
			"keep the order as it is; a new cluster should use exi (on one that holds data, another hash_key moves most of it)",
		"circles[0].backends[10].url: is the server of circles[0].backends[0], too; " +
			"use each server once: two backends on one server are no replicas of each other and count its data twice",
		`circles[1].name: is "big", the name of circles[0], too; give each circle a name of its own`,
		"circles[1].backends[1].url: is the server of circles[1].backends[0], too; " +
			"use each server once: two backends on one server are no replicas of each other and count its data twice",
		"circles[1]: has only backends that are write_only; no query can be answered from this circle",
		`db_list[2]: is "a" once more; remove it`,
	}, got)
}

// FuzzParse feeds each parser the corpus and what becomes of it: the answer is a
// configuration that works or a list of mistakes, one a line.
func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"*.good.*", "*.bad.*"} {
		for name, data := range testdata(f, pattern) {
			f.Add(uint8(len(name)), data)
			f.Add(uint8(len(name)+1), data)
			f.Add(uint8(len(name)+2), data)
		}
	}

	f.Fuzz(func(t *testing.T, format uint8, data []byte) {
		config, err := topology.Parse([]string{"c.json", "c.yaml", "c.toml", "c"}[format%4], data)
		if err != nil {
			var mistakes *topology.ConfigError

			if !errors.As(err, &mistakes) || len(mistakes.Mistakes) == 0 {
				t.Fatalf("no list of mistakes: %v", err)
			}

			if lines := strings.Count(err.Error(), "\n") + 1; lines != len(mistakes.Mistakes) {
				t.Fatalf("%d mistakes in %d lines:\n%v", len(mistakes.Mistakes), lines, err)
			}

			return
		}

		shape := config.Topology()
		if len(shape.Circles) == 0 || shape.VNodes < 1 || shape.Digest == "" {
			t.Fatalf("accepted %+v", config)
		}

		for _, circle := range shape.Circles {
			placement, err := shape.Placement(circle.ID)
			if err != nil || placement.Owner("db", "m") == nil {
				t.Fatalf("circle %d places nothing: %v", circle.ID, err)
			}
		}
	})
}

// TestTLSVersions takes the spellings that influx-proxy takes.
func TestTLSVersions(t *testing.T) {
	t.Parallel()

	for spelling, want := range map[string]uint16{
		"": 0, "1.0": tls.VersionTLS10, "tls1.1": tls.VersionTLS11, "TLS1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13,
		"SSL3.0": tls.VersionTLS10, // no Go speaks it
	} {
		c, err := topology.Parse("c.yaml", []byte(`{circles: [{backends: [{name: a, url: "http://a"}]}], tls: {min_version: "`+spelling+`"}}`))
		require.NoError(t, err, spelling)
		require.Equal(t, want, c.TLS.MinVersion, spelling)
	}

	_, err := topology.Parse("c.yaml", []byte(`{circles: [{backends: [{name: a, url: "http://a"}]}], tls: {max_version: "2"}}`))
	require.EqualError(t, err, "c.yaml: tls.max_version: is no version of TLS; use 1.0, 1.1, 1.2 or 1.3")

	_, err = topology.Parse("c.yaml", []byte(`{circles: [{backends: [{name: a, url: "http://a"}]}], tls: {max_version: "ssl3.0"}}`))
	require.ErrorContains(t, err, "tls.max_version")
}

// TestTLSCiphers takes every name that influx-proxy takes.
func TestTLSCiphers(t *testing.T) {
	t.Parallel()

	names := []string{
		"TLS_RSA_WITH_RC4_128_SHA", "TLS_RSA_WITH_3DES_EDE_CBC_SHA", "TLS_RSA_WITH_AES_128_CBC_SHA", "TLS_RSA_WITH_AES_256_CBC_SHA",
		"TLS_RSA_WITH_AES_128_CBC_SHA256", "TLS_RSA_WITH_AES_128_GCM_SHA256", "TLS_RSA_WITH_AES_256_GCM_SHA384",
		"TLS_ECDHE_ECDSA_WITH_RC4_128_SHA", "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA", "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
		"TLS_ECDHE_RSA_WITH_RC4_128_SHA", "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA", "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
		"TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA", "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256", "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
		"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
		"TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
		"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256", "TLS_FALLBACK_SCSV",
	}
	file := `{"circles": [{"backends": [{"name": "a", "url": "http://a"}]}], "https_enabled": true, "https_cert": "c", "https_key": "k",
		"tls": {"ciphers": ["` + strings.Join(names, `", "`) + `"], "min_version": "TLS1.1"}}`

	for _, spelled := range []string{file, strings.Replace(file, names[0], strings.ToLower(names[0]), 1)} {
		c, err := topology.Parse("c.json", []byte(spelled))
		require.NoError(t, err)
		require.Len(t, c.TLS.Ciphers, len(names)-1, "the last is none")
		require.NotContains(t, c.TLS.Ciphers, uint16(0))
		require.Contains(t, c.Warnings[0].String(), "before 1.2")
		require.Contains(t, c.Warnings[1].String(), "no longer safe")
	}

	_, err := topology.Parse("c.json", []byte(strings.Replace(file, "TLS_RSA_WITH_RC4_128_SHA", "TLS_RSA_WITH_ROT13", 1)))
	require.EqualError(t, err, "c.json: tls.ciphers[0]: is no cipher suite that Go knows; use a name like TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256")
}

// TestSamples reads the sample files of both generations, every documented key at
// its documented default: each means what the next one means.
func TestSamples(t *testing.T) {
	t.Parallel()

	want := parseFile(t, "sample-2.4.7.good.json")
	require.Equal(t, ":7076", want.ListenAddr)
	require.Equal(t, 10_000, want.FlushSize)
	require.Equal(t, 10*time.Second, want.RewriteInterval)
	require.Len(t, want.Circles, 2)
	require.True(t, want.Credentials.IsZero())

	for _, name := range []string{"sample-2.5.12.good.json", "sample-2.5.12.good.yaml", "sample-2.5.12.good.toml"} {
		c := parseFile(t, name)
		c.Source, c.TLS = want.Source, want.TLS
		require.Equal(t, want, c, name)
	}

	admin := topology.Credentials{Username: "admin", Password: "admin"}

	for _, name := range []string{"sample-2.4.7-encrypted.good.json", "sample-2.5.12-encrypted.good.json"} {
		c := parseFile(t, name)
		require.Equal(t, admin, c.Credentials, name)
		require.True(t, c.PingAuthEnabled, name)

		for _, circle := range c.Circles {
			for _, b := range circle.Backends {
				require.Equal(t, admin, b.Credentials, b.Name)
			}
		}
	}
}

func TestHistory(t *testing.T) {
	t.Parallel()
	const circles = `"circles":[{"name":"c","backends":[{"name":"a","url":"http://a:1"}]}]`
	c, err := topology.Parse("c.json", []byte(`{`+circles+`,"history":{"days":7,"bytes":1048576}}`))
	require.NoError(t, err)
	require.Equal(t, topology.History{Age: 7 * 24 * time.Hour, Bytes: 1 << 20}, c.History)
	c, err = topology.Parse("c.json", []byte(`{`+circles+`}`))
	require.NoError(t, err)
	require.Zero(t, c.History)
	for wrong, field := range map[string]string{
		`{"days":-1}`: "history.days", `{"days":1.5}`: "history.days", `{"days":100000}`: "history.days",
		`{"bytes":1000}`: "history.bytes", `{"bytes":"1G"}`: "history.bytes", `{"age":"90d"}`: "history.age", `"90d"`: "history",
	} {
		_, err := topology.Parse("c.json", []byte(`{`+circles+`,"history":`+wrong+`}`))
		require.ErrorContains(t, err, field, wrong)
	}
}
