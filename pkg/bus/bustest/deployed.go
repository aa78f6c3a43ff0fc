package bustest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// DeployedNode is one server with the configuration in deploy/nats.
type DeployedNode struct {
	// Config is its configuration file, Env what that reads from the environment,
	// as name and value.
	Config string
	Env    map[string]string
	// Client, Route and Monitor are the addresses on which it listens.
	Client, Route, Monitor string
}

// Deployed is a cluster of servers with the configuration in deploy/nats, whose
// addresses and directories are ones that exist here. Nothing runs yet.
type Deployed struct {
	Nodes []DeployedNode
	// Authority is the file of the certificate authority, TLS what a client of this
	// process needs to know of it.
	Authority string
	TLS       *tls.Config
}

// DeployedOptions change what NewDeployed writes.
type DeployedOptions struct {
	// Through, if set, returns the address by which one server reaches another,
	// whose own is given. Servers and clients are then not told of any others.
	Through func(from, to int, address string) (string, error)
}

// deployedNodes is how many servers the configuration is for.
const deployedNodes = 3

// NewDeployed writes the configuration of three servers below dir, from the one in
// the module at root.
func NewDeployed(root, dir string, o DeployedOptions) (*Deployed, error) {
	raw, err := os.ReadFile(filepath.Join(root, "deploy", "nats", "nats.conf"))
	if err != nil {
		return nil, fmt.Errorf("reading the configuration of NATS: %w", err)
	}
	addresses, err := addresses(3 * deployedNodes)
	if err != nil {
		return nil, err
	}
	d := &Deployed{Authority: filepath.Join(dir, "ca.pem")}
	if d.TLS, err = writeCertificates(dir); err != nil {
		return nil, err
	}
	for i := range deployedNodes {
		a := addresses[3*i : 3*i+3]
		d.Nodes = append(d.Nodes, DeployedNode{
			Config: filepath.Join(dir, fmt.Sprintf("n%d.conf", i+1)),
			Client: a[0], Route: a[1], Monitor: a[2],
			Env: map[string]string{
				"NATS_SERVER_NAME":           fmt.Sprintf("n%d", i+1),
				"RINGMASTER_API_PASSWORD":    Password("api"),
				"RINGMASTER_WORKER_PASSWORD": Password("worker"),
				"NATS_SYSTEM_PASSWORD":       Password("system"),
			},
		})
	}
	for i, n := range d.Nodes {
		text, err := d.render(string(raw), dir, i, o)
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(n.Config, []byte(text), 0o600); err != nil {
			return nil, fmt.Errorf("writing the configuration of NATS: %w", err)
		}
	}
	return d, nil
}

// Password is the password of a user of a deployed cluster under test.
func Password(user string) string { return user + "-password" }

// URLs are where a user reaches the servers at these addresses.
func (d *Deployed) URLs(user string, addresses ...string) string {
	var all []string
	for _, a := range addresses {
		all = append(all, fmt.Sprintf("tls://%s:%s@%s", user, Password(user), a))
	}
	return strings.Join(all, ",")
}

// Clients are the addresses of all servers.
func (d *Deployed) Clients() (all []string) {
	for _, n := range d.Nodes {
		all = append(all, n.Client)
	}
	return all
}

// render is the configuration of one server.
func (d *Deployed) render(text, dir string, node int, o DeployedOptions) (string, error) {
	n := d.Nodes[node]
	changes := []string{
		"0.0.0.0:4222", n.Client, "0.0.0.0:6222", n.Route, "127.0.0.1:8222", n.Monitor,
		"/etc/nats/tls", dir, "/var/lib/nats", filepath.Join(dir, n.Env["NATS_SERVER_NAME"]),
	}
	for to, other := range d.Nodes {
		address := other.Route
		if o.Through != nil && to != node {
			var err error
			if address, err = o.Through(node, to, other.Route); err != nil {
				return "", err
			}
		}
		changes = append(changes, fmt.Sprintf("nats-%d:6222", to+1), address)
	}
	if o.Through != nil {
		const name = "name: ringmaster\n"
		changes = append(changes, name, name+"  no_advertise: true\n  advertise: \"127.0.0.1:1\"\n")
	}
	for i := 0; i < len(changes); i += 2 {
		if !strings.Contains(text, changes[i]) {
			return "", fmt.Errorf("the configuration of NATS does not contain %q", changes[i])
		}
	}
	return strings.NewReplacer(changes...).Replace(text), nil
}

// addresses returns addresses on this host that are free at this moment, below the
// range from which kernels take the ports of outgoing connections: a server that is
// killed finds its own free when it comes back.
func addresses(n int) (_ []string, err error) {
	const first, last, tries = 12000, 19999, 1000
	var all []string
	for range tries {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(first+mathrand.N(last-first+1)))
		l, lerr := net.Listen("tcp", address)
		if lerr != nil {
			continue
		}
		defer func() { err = errors.Join(err, l.Close()) }()
		if all = append(all, address); len(all) == n {
			return all, nil
		}
	}
	return nil, errors.New("there are no free ports")
}

// writeCertificates makes an authority and a certificate for this host, and
// returns what a client needs to know of them.
func writeCertificates(dir string) (*tls.Config, error) {
	until := time.Now().Add(24 * time.Hour)
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotAfter: until,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	server := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "server"}, NotAfter: until,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making certificates: %w", err)
	}
	serverKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making certificates: %w", err)
	}
	authority, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return nil, fmt.Errorf("making certificates: %w", err)
	}
	signed, err := x509.CreateCertificate(rand.Reader, server, ca, serverKey.Public(), caKey)
	if err != nil {
		return nil, fmt.Errorf("making certificates: %w", err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(serverKey)
	if err != nil {
		return nil, fmt.Errorf("making certificates: %w", err)
	}
	for _, f := range []struct {
		name, kind string
		content    []byte
	}{
		{"ca.pem", "CERTIFICATE", authority},
		{"server.pem", "CERTIFICATE", signed},
		{"server-key.pem", "PRIVATE KEY", private},
	} {
		text := pem.EncodeToMemory(&pem.Block{Type: f.kind, Bytes: f.content})
		if err := os.WriteFile(filepath.Join(dir, f.name), text, 0o600); err != nil {
			return nil, fmt.Errorf("writing certificates: %w", err)
		}
	}
	pool := x509.NewCertPool()
	parsed, err := x509.ParseCertificate(authority)
	if err != nil {
		return nil, fmt.Errorf("making certificates: %w", err)
	}
	pool.AddCert(parsed)
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}, nil
}
