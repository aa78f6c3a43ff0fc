package bus

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/url"
	"path/filepath"
	"strconv"
)

// ErrPortTaken says that the listener's address belongs to another process.
var ErrPortTaken = errors.New("NATS listen address is taken")

// Ports for the first start are chosen below the range from which kernels take
// the ports of outgoing connections: a port from that range may be gone when the
// server comes back.
const firstPort, lastPort = 20000, 31999

// listenAddress decides where to listen and with which token: what nats.json
// says is kept, so that processes that know the server find it again.
func listenAddress(ctx context.Context, o ServerOptions) (file NATSFile, host string, port int, err error) {
	file, err = ReadNATSFile(o.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return NATSFile{}, "", 0, err
	}
	kept := 0
	if err == nil {
		u, perr := url.Parse(file.URL)
		if perr == nil {
			kept, perr = strconv.Atoi(u.Port())
		}
		if perr != nil {
			return NATSFile{}, "", 0, fmt.Errorf("reading the port in %s: %w", filepath.Join(o.Dir, natsFileName), perr)
		}
	} else {
		file.Token = rand.Text()
	}

	host = "127.0.0.1"
	if o.Listen != "" {
		var text string
		host, text, err = net.SplitHostPort(o.Listen)
		if err != nil {
			return NATSFile{}, "", 0, fmt.Errorf("listen address %q: %w", o.Listen, err)
		}
		port, err = strconv.Atoi(text)
		if err != nil || port < 0 || port > 65535 {
			return NATSFile{}, "", 0, fmt.Errorf("listen address %q: the port must be a number up to 65535", o.Listen)
		}
	}
	if o.TLS == nil && !isLoopback(host) {
		return NATSFile{}, "", 0, fmt.Errorf("listen address %q is off loopback, which needs TLS", o.Listen)
	}
	switch {
	case port != 0:
		err = probeListen(ctx, host, port)
	case kept != 0:
		port = kept
		if err = probeListen(ctx, host, port); err != nil {
			err = fmt.Errorf("%w (the port is kept from the last start; free it, or remove %s and restart the workers to have another one chosen)",
				err, filepath.Join(o.Dir, natsFileName))
		}
	default:
		port, err = choosePort(ctx, host)
	}
	return file, host, port, err
}

// choosePort finds a free port at random.
func choosePort(ctx context.Context, host string) (port int, err error) {
	for range 20 {
		n, rerr := rand.Int(rand.Reader, big.NewInt(lastPort-firstPort+1))
		if rerr != nil {
			return 0, fmt.Errorf("choosing a port: %w", rerr)
		}
		port = firstPort + int(n.Int64())
		if err = probeListen(ctx, host, port); err == nil {
			return port, nil
		}
	}
	return 0, err
}

// probeListen reports ErrPortTaken before the server would fail on it.
func probeListen(ctx context.Context, host string, port int) error {
	address := net.JoinHostPort(host, strconv.Itoa(port))
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrPortTaken, err)
	}
	return l.Close()
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// localURL is where processes on this host reach the listener.
func localURL(c *tls.Config, host string, port int) string {
	scheme := "nats"
	if c != nil {
		scheme = "tls"
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return (&url.URL{Scheme: scheme, Host: net.JoinHostPort(host, strconv.Itoa(port))}).String()
}
