package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// samples are the sample files of influx-proxy, every documented key in them.
func samples(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", "..", "pkg", "topology", "testdata", "sample-*"))
	require.NoError(t, err)
	require.Len(t, files, 6)
	return files
}

// do sends a request as change makes it.
func (s *started) do(path string, change func(*http.Request)) (*http.Response, string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+path, nil)
	require.NoError(s.t, err)
	if change != nil {
		change(req)
	}
	res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	require.NoError(s.t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(s.t, err)
	return res, string(body)
}

// Every sample file starts the program as it is; only where it listens and keeps
// its data is said by flags.
func TestEverySampleFileStarts(t *testing.T) {
	t.Parallel()
	for _, file := range samples(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			s := start(t, "-config", file, "-data", t.TempDir(), "-listen", "127.0.0.1:0", "-slots", "0")
			admin := func(r *http.Request) { r.SetBasicAuth("admin", "admin") }
			res, body := s.do("/health", admin)
			require.Equal(t, http.StatusOK, res.StatusCode)
			require.Contains(t, res.Header.Get("X-Influxdb-Version"), "ringmaster-")
			var circles []struct {
				Circle   string `json:"circle"`
				Backends []struct {
					Name string `json:"name"`
				} `json:"backends"`
			}
			require.NoError(t, json.Unmarshal([]byte(body), &circles), body)
			require.Len(t, circles, 2)
			require.Equal(t, "influxdb-2-2", circles[1].Backends[1].Name)
			res, _ = s.do("/ping", nil)
			if strings.Contains(file, "encrypted") {
				require.Equal(t, http.StatusUnauthorized, res.StatusCode, "ping_auth_enabled")
			} else {
				require.Equal(t, http.StatusNoContent, res.StatusCode)
			}
		})
	}
}

// The credentials of the file, plain or encrypted, are asked for in every way that
// clients of InfluxDB bring them.
func TestCredentialsOfTheFile(t *testing.T) {
	t.Parallel()
	const secret = "YgvEyuPZlDYAH8sGDkC!Ag"
	for name, keys := range map[string]string{
		"plain":            `"username": "admin", "password": "admin"`,
		"encrypted in 2.4": `"username": "` + secret + `", "password": "` + secret + `", "auth_secure": true`,
		"encrypted in 2.5": `"username": "` + secret + `", "password": "` + secret + `", "auth_encrypt": true, "ping_auth_enabled": true`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config := write(t, "proxy.json", `{"circles":[{"backends":[{"name":"a","url":"http://127.0.0.1:1"}]}],`+keys+`}`)
			s := start(t, "-config", config, "-data", t.TempDir(), "-listen", "127.0.0.1:0", "-slots", "0")
			for _, c := range []struct {
				query, header string
				want          int
			}{
				{"?u=admin&p=admin", "", 200},
				{"", "Basic YWRtaW46YWRtaW4=", 200},
				{"", "Token admin:admin", 200},
				{"?u=admin&p=wrong", "Basic YWRtaW46YWRtaW4=", 200},
				{"", "", 401},
				{"?u=admin", "", 401},
				{"?u=admin&p=" + secret, "", 401}, // the ciphertext is no password
				{"?u=admin&p=admi", "", 401},
				{"", "Basic YWRtaW46d3Jvbmc=", 401},
				{"", "Token admin:", 401},
				{"", "Bearer admin:admin", 401},
			} {
				res, body := s.do("/health"+c.query, func(r *http.Request) {
					if c.header != "" {
						r.Header.Set("Authorization", c.header)
					}
				})
				require.Equal(t, c.want, res.StatusCode, "%q %q", c.query, c.header)
				require.NotEmpty(t, res.Header.Get("X-Influxdb-Version"))
				if c.want == http.StatusUnauthorized {
					require.Equal(t, "authentication failed\n", body)
				}
			}
			res, _ := s.do("/ping", nil)
			require.Equal(t, strings.Contains(keys, "ping_auth_enabled"), res.StatusCode == http.StatusUnauthorized)
			res, _ = s.do("/ping?u=admin&p=admin", nil)
			require.Equal(t, http.StatusNoContent, res.StatusCode)
		})
	}
}

// Profiles are served when they are enabled, and then to nobody else than the
// dialect is.
func TestProfiles(t *testing.T) {
	t.Parallel()
	bearer := func(token string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }
	}
	stranger := func(r *http.Request) { r.Header.Set("X-Forwarded-For", "192.0.2.1") }
	user := func(r *http.Request) { r.SetBasicAuth("admin", "admin") }
	config := func(keys string) string {
		return write(t, "proxy.json", `{"circles":[{"backends":[{"name":"a","url":"http://127.0.0.1:1"}]}]`+keys+`}`)
	}
	run := func(keys string) (*started, string) {
		dir := t.TempDir()
		s := start(t, "-config", config(keys), "-data", dir, "-listen", "127.0.0.1:0", "-slots", "0", "-prefix", "/below")
		token, err := adminToken(dir)
		require.NoError(t, err)
		return s, token
	}
	status := func(s *started, path string, change func(*http.Request)) int {
		t.Helper()
		res, _ := s.do(path, change)
		require.NotEmpty(t, res.Header.Get("X-Influxdb-Version"))
		return res.StatusCode
	}

	off, token := run(`,"username":"admin","password":"admin"`)
	for _, path := range []string{"/debug/pprof", "/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/profile"} {
		require.Equal(t, 404, status(off, path, bearer(token)), path)
		require.Equal(t, 404, status(off, path, user), path)
	}

	open, token := run(`,"pprof_enabled":true`)
	require.Equal(t, 200, status(open, "/debug/pprof/heap", nil), "the same machine")
	require.Equal(t, 200, status(open, "/debug/pprof/heap", bearer(token)))
	require.Equal(t, 401, status(open, "/debug/pprof/heap", bearer("wrong")))
	require.Equal(t, 401, status(open, "/debug/pprof/heap", stranger))
	require.Equal(t, 401, status(open, "/debug/pprof/", stranger))

	closed, token := run(`,"pprof_enabled":true,"username":"admin","password":"admin"`)
	require.Equal(t, 401, status(closed, "/debug/pprof/heap", nil), "even on the same machine")
	require.Equal(t, 401, status(closed, "/debug/pprof/profile?seconds=1", nil))
	require.Equal(t, 200, status(closed, "/debug/pprof/heap", bearer(token)))
	require.Equal(t, 200, status(closed, "/debug/pprof/heap?u=admin&p=admin", nil))
	require.Equal(t, 404, status(closed, "/debug/pprof/nonsense", user))
	for _, name := range []string{"goroutine?debug=2", "allocs", "block", "mutex", "threadcreate", "cmdline", "symbol", "trace?seconds=0.01", "profile?seconds=1"} {
		require.Equal(t, 200, status(closed, "/debug/pprof/"+name, user), name)
	}
	res, body := closed.do("/debug/pprof/", user)
	require.Equal(t, 200, res.StatusCode)
	require.Contains(t, body, "goroutine?debug=1")
	res, _ = closed.do("/debug/pprof?x=1", user)
	require.Equal(t, 301, res.StatusCode)
	require.Equal(t, "/below/debug/pprof/?x=1", res.Header.Get("Location"), "where the links of the list work")
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	config := write(t, "proxy.json", `{"circles":[{"backends":[{"name":"a","url":"http://127.0.0.1:1"}]}]}`)
	s := start(t, "-config", config, "-data", t.TempDir(), "-listen", "127.0.0.1:0", "-slots", "0")
	var body string
	require.Eventually(t, func() bool {
		_, body = s.get("/metrics", "")
		return strings.Contains(body, `ringmaster_backend_up{backend="a",circle="0"} 0`)
	}, patience, 10*time.Millisecond, body)
	for _, want := range []string{
		"ringmaster_build_info{", "ringmaster_topology_epoch 1", `ringmaster_backend_probe_age_seconds{backend="a",circle="0"}`,
		"go_goroutines", "process_resident_memory_bytes",
	} {
		require.Contains(t, body, want)
	}
	require.NotContains(t, body, "ringmaster_backend_stores{", "nothing was ever written to it")
}

// certificate makes one for 127.0.0.1 and returns its files and what trusts it.
func certificate(t *testing.T) (cert, key string, pool *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	require.NoError(t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	parsed, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	pool = x509.NewCertPool()
	pool.AddCert(parsed)
	return write(t, "cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))),
		write(t, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))), pool
}

func TestTLS(t *testing.T) {
	t.Parallel()
	cert, key, pool := certificate(t)
	const ecdsaAES, ecdsaChaCha = tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
	for _, c := range []struct {
		name, tls string
		// spoken are the versions that are answered, of 1.0 to 1.3.
		spoken []uint16
		// refused is a suite that is not answered in TLS 1.2.
		refused uint16
	}{
		{"defaults", `{}`, []uint16{tls.VersionTLS12, tls.VersionTLS13}, 0},
		{"the latest only", `{"min_version": "TLS1.3"}`, []uint16{tls.VersionTLS13}, 0},
		{"not the latest", `{"max_version": "tls1.2"}`, []uint16{tls.VersionTLS12}, 0},
		{"old ones", `{"min_version": "1.0", "max_version": "1.1", "ciphers": ["TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA"]}`, []uint16{tls.VersionTLS10, tls.VersionTLS11}, 0},
		{"an old one without its least", `{"max_version": "1.1"}`, []uint16{tls.VersionTLS11}, 0},
		{"one suite", `{"ciphers": ["tls_ecdhe_ecdsa_with_aes_128_gcm_sha256"], "max_version": "1.2"}`, []uint16{tls.VersionTLS12}, ecdsaChaCha},
		{"one suite by its old name", `{"ciphers": ["TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305"], "max_version": "1.2"}`, []uint16{tls.VersionTLS12}, ecdsaAES},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			config := write(t, "proxy.json", `{"circles":[{"backends":[{"name":"a","url":"http://127.0.0.1:1"}]}],
				"https_enabled": true, "https_cert": "`+cert+`", "https_key": "`+key+`", "tls": `+c.tls+`}`)
			s := start(t, "-config", config, "-data", t.TempDir(), "-listen", "127.0.0.1:0", "-slots", "0")
			require.True(t, strings.HasPrefix(s.url, "https://"), s.url)
			shake := func(o *tls.Config) (tls.ConnectionState, error) {
				o.RootCAs = pool
				d := tls.Dialer{Config: o}
				conn, err := d.DialContext(t.Context(), "tcp", strings.TrimPrefix(s.url, "https://"))
				if err != nil {
					return tls.ConnectionState{}, err
				}
				defer conn.Close()
				return conn.(*tls.Conn).ConnectionState(), nil
			}
			for v := uint16(tls.VersionTLS10); v <= tls.VersionTLS13; v++ {
				state, err := shake(&tls.Config{MinVersion: v, MaxVersion: v})
				spoken := false
				for _, s := range c.spoken {
					spoken = spoken || s == v
				}
				if spoken {
					require.NoError(t, err, tls.VersionName(v))
					require.Equal(t, v, state.Version)
				} else {
					require.ErrorContains(t, err, "protocol version", tls.VersionName(v))
				}
			}
			if c.refused != 0 {
				_, err := shake(&tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{c.refused}})
				require.ErrorContains(t, err, "handshake failure")
			}
			transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS10}}
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+"/ping", nil)
			require.NoError(t, err)
			res, err := transport.RoundTrip(req)
			require.NoError(t, err)
			require.NoError(t, res.Body.Close())
			require.Equal(t, http.StatusNoContent, res.StatusCode)
		})
	}
}

func TestCheckNamesWhatIsWrongWithTLS(t *testing.T) {
	t.Parallel()
	cert, key, _ := certificate(t)
	for says, keys := range map[string]string{
		"tls.ciphers[1]":           `"https_cert": "` + cert + `", "https_key": "` + key + `", "tls": {"ciphers": ["TLS_AES_128_GCM_SHA256", "ROT13"]}`,
		"tls.min_version":          `"https_cert": "` + cert + `", "https_key": "` + key + `", "tls": {"min_version": "1.4"}`,
		"https_cert and https_key": `"https_cert": "` + key + `", "https_key": "` + cert + `"`,
		"https_key: is empty":      `"https_cert": "` + cert + `"`,
	} {
		config := write(t, "proxy.json", `{"circles":[{"backends":[{"name":"a","url":"http://127.0.0.1:1"}]}], "https_enabled": true, `+keys+`}`)
		_, err := parseOptions([]string{"-config", config, "-check"}, nil, io.Discard)
		require.ErrorContains(t, err, says)
	}
	require.NoError(t, os.Remove(key))
}
