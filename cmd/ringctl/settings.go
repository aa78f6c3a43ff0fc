package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// tokenFileName is the admin token's file in the data directory of an api.
const tokenFileName = "admin-token"

// serverURL reads the address of the server.
func serverURL(text string) (*url.URL, error) {
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, usageError("--server %q: use an address such as http://127.0.0.1:7076", text)
	}
	if u.User != nil {
		return nil, usageError("--server: leave name and password out of it, and give --token")
	}
	return u, nil
}

// bearer finds the token: the one given, the file given, or the data directory's.
func bearer(g *globals, server *url.URL) (string, error) {
	switch {
	case g.Token != "":
		return strings.TrimSpace(g.Token), nil
	case g.TokenFile != "":
		return readToken(g.TokenFile)
	case g.Data != "" && onThisHost(server.Hostname()):
		return readToken(filepath.Join(g.Data, tokenFileName))
	default:
		return "", nil
	}
}

func readToken(path string) (string, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("reading the token: %w", err)
	}
	token := strings.TrimSpace(string(raw))
	if token == "" || strings.ContainsAny(token, " \t\r\n") {
		return "", fmt.Errorf("reading the token: %s does not hold one token and nothing else", path)
	}
	return token, nil
}

// onThisHost reports whether a name is one of this machine: what lies in its data
// directory is not told to others.
func onThisHost(name string) bool {
	if own, err := os.Hostname(); strings.EqualFold(name, "localhost") || err == nil && strings.EqualFold(name, own) {
		return true
	}
	address, err := netip.ParseAddr(name)
	if err != nil {
		return false
	}
	if address.IsLoopback() {
		return true
	}
	own, err := net.InterfaceAddrs()
	return err == nil && slices.ContainsFunc(own, func(a net.Addr) bool {
		prefix, err := netip.ParsePrefix(a.String())
		return err == nil && prefix.Addr() == address.Unmap()
	})
}

// transport connects to the server.
func transport(g *globals) (*http.Transport, error) {
	t, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return nil, errors.New("the HTTP transport is not the standard one")
	}
	t = t.Clone()
	if g.CAFile == "" {
		return t, nil
	}
	raw, err := os.ReadFile(g.CAFile)
	if err != nil {
		return nil, fmt.Errorf("reading certificates: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(raw) {
		return nil, fmt.Errorf("reading certificates: there is none in %s", g.CAFile)
	}
	t.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	return t, nil
}
