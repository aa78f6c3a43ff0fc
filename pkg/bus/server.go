package bus

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
)

const (
	defaultMaxStore = 16 << 30
	// maxMemoryStore bounds what the server keeps for ephemeral consumers; no
	// stream of ours is in memory.
	maxMemoryStore = 64 << 20
	// startTimeout bounds the recovery of a store after a crash.
	startTimeout = 2 * time.Minute
	// Ports for the first start are chosen below the range from which kernels
	// take the ports of outgoing connections: a port from that range may be gone
	// when the server comes back.
	firstPort, lastPort = 20000, 31999
)

// ErrPortTaken says that the listener's address belongs to another process.
var ErrPortTaken = errors.New("NATS listen address is taken")

// ServerOptions configure an embedded server.
type ServerOptions struct {
	// Dir is the data directory. The store is Dir/jetstream, the address and
	// the token are in Dir/nats.json.
	Dir string
	// Listen is the address for other processes. Empty means a loopback address
	// whose port is chosen at the first start and kept from then on. An address
	// off loopback needs TLS.
	Listen string
	// TLS is the listener's configuration; nil means none.
	TLS *tls.Config
	// MaxStoreBytes bounds the store on disk; 0 means 16 GiB.
	MaxStoreBytes int64
	// Logger receives the server's log; nil means none.
	Logger *slog.Logger
}

// Server is an embedded NATS server with JetStream, the only one on its store
// directory. Every message is on disk before it is acknowledged.
type Server struct {
	nats  *natsserver.Server
	lock  *lockFile
	token string
	url   string

	stop    sync.Once
	stopped chan struct{}
	stopErr error
}

// StartServer starts a server and returns when it takes connections. It fails
// with ErrStoreInUse when another server has the directory, and with
// ErrPortTaken when the address is not free.
func StartServer(ctx context.Context, o ServerOptions) (_ *Server, err error) {
	if o.Dir == "" {
		return nil, errors.New("starting NATS: no data directory")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.MaxStoreBytes == 0 {
		o.MaxStoreBytes = defaultMaxStore
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("starting NATS: %w", err)
	}
	lock, err := takeLock(filepath.Join(o.Dir, "jetstream.lock"))
	if err != nil {
		return nil, fmt.Errorf("starting NATS: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, lock.release())
		}
	}()

	file, host, port, err := listenAddress(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("starting NATS: %w", err)
	}
	log := &serverLog{log: o.Logger.With("part", "nats-server")}
	ns, err := natsserver.NewServer(&natsserver.Options{
		ServerName:             "ringmaster",
		Host:                   host,
		Port:                   port,
		Authorization:          file.Token,
		TLSConfig:              o.TLS,
		JetStream:              true,
		StoreDir:               o.Dir, // the server adds "jetstream"
		JetStreamMaxStore:      o.MaxStoreBytes,
		JetStreamMaxMemory:     maxMemoryStore,
		SyncAlways:             true,
		NoSigs:                 true,
		DisableJetStreamBanner: true,
	})
	if err != nil {
		return nil, fmt.Errorf("starting NATS: %w", err)
	}
	ns.SetLoggerV2(log, false, false, false)
	s := &Server{nats: ns, lock: lock, token: file.Token, stopped: make(chan struct{})}
	ns.Start()
	if err := s.waitReady(ctx, log); err != nil {
		ns.Shutdown()
		ns.WaitForShutdown()
		return nil, fmt.Errorf("starting NATS: %w", err)
	}
	file.URL = localURL(o.TLS, host, port)
	s.url = file.URL
	if err := file.write(o.Dir); err != nil {
		ns.Shutdown()
		ns.WaitForShutdown()
		return nil, fmt.Errorf("starting NATS: %w", err)
	}
	return s, nil
}

// URL is where the server listens, without credentials.
func (s *Server) URL() string { return s.url }

// Token is what clients must present. It is a secret.
func (s *Server) Token() string { return s.token }

// Close shuts the server down, waits until everything is on disk, and gives up
// the directory. When ctx ends first, it returns its error and the shutdown goes
// on; the directory stays locked until it is done. Close may be called again,
// also at once.
func (s *Server) Close(ctx context.Context) error {
	s.stop.Do(func() {
		go func() {
			defer close(s.stopped)
			s.nats.Shutdown()
			s.nats.WaitForShutdown()
			s.stopErr = s.lock.release()
		}()
	})
	select {
	case <-s.stopped:
		return s.stopErr
	case <-ctx.Done():
		return fmt.Errorf("stopping NATS: %w", context.Cause(ctx))
	}
}

// waitReady returns when connections are taken and JetStream is up.
func (s *Server) waitReady(ctx context.Context, log *serverLog) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		const slice = 50 * time.Millisecond // so that a fatal error ends the wait
		if s.nats.ReadyForConnections(slice) {
			if !s.nats.JetStreamEnabled() {
				return errors.New("JetStream did not start")
			}
			return nil
		}
		if err := log.fatal(); err != nil {
			return err
		}
		if err := context.Cause(ctx); err != nil {
			return fmt.Errorf("waiting for the server: %w", err)
		}
	}
}

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

// serverLog gives the server's log to slog. The server's notices are details
// of its own to us.
type serverLog struct {
	log *slog.Logger

	mu  sync.Mutex
	err error
}

var _ natsserver.Logger = (*serverLog)(nil)

// fatal returns the first fatal error that the server has logged.
func (l *serverLog) fatal() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

func (l *serverLog) Noticef(format string, v ...any) { l.log.Debug(fmt.Sprintf(format, v...)) }
func (l *serverLog) Warnf(format string, v ...any)   { l.log.Warn(fmt.Sprintf(format, v...)) }
func (l *serverLog) Errorf(format string, v ...any)  { l.log.Error(fmt.Sprintf(format, v...)) }
func (l *serverLog) Debugf(format string, v ...any)  { l.log.Debug(fmt.Sprintf(format, v...)) }
func (l *serverLog) Tracef(format string, v ...any)  { l.log.Debug(fmt.Sprintf(format, v...)) }

// Fatalf notes the error; the server would otherwise go on without a listener.
func (l *serverLog) Fatalf(format string, v ...any) {
	err := fmt.Errorf(format, v...)
	l.log.Error(err.Error())
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = err
	}
}
