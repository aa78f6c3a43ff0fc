package bus

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
)

const (
	// defaultMaxStore is more than most disks have: what protects the disk is the
	// free space that is left, while this one has to hold what streams promise
	// together, such as 1 GiB for the hints of each backend.
	defaultMaxStore = 256 << 30
	// maxMemoryStore bounds what the server keeps for ephemeral consumers; no
	// stream of ours is in memory.
	maxMemoryStore = 64 << 20
	// startTimeout bounds the recovery of a store after a crash.
	startTimeout = 2 * time.Minute
)

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
	// MaxStoreBytes bounds the store on disk, and the bounds of all streams together;
	// 0 means 256 GiB.
	MaxStoreBytes int64
	// MinFreeBytes is how much of the disk is left free; see Server.Space. 0 means
	// 256 MiB, but not more than a twentieth of the disk.
	MinFreeBytes int64
	// Logger receives the server's log; nil means none.
	Logger *slog.Logger
}

// Server is an embedded NATS server with JetStream, the only one on its store
// directory. Every message is on disk before it is acknowledged. When writing has
// failed, as it does on a full disk, JetStream stays frozen though there is space
// again: the server then restarts it by itself, and connections come back.
type Server struct {
	options *natsserver.Options
	logger  *slog.Logger
	log     *serverLog
	lock    *lockFile
	token   string
	url     string
	dir     string
	minFree int64

	// changing serialises Restart and Close; mu guards nats, which Restart replaces.
	changing sync.Mutex
	mu       sync.Mutex
	nats     *natsserver.Server

	unwatch context.CancelFunc
	watched chan struct{} // closed when nobody watches any more
	stop    sync.Once
	stopped chan struct{}
	stopErr error
}

// StartServer starts a server and returns when it takes connections; reading
// back what a crash has left is not interrupted by ctx. It fails with
// ErrStoreInUse when another server has the directory, and with ErrPortTaken
// when the address is not free.
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
	s := &Server{
		options: &natsserver.Options{
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
		},
		logger: o.Logger, log: &serverLog{log: o.Logger.With("part", "nats-server")}, lock: lock,
		token: file.Token, dir: o.Dir, minFree: o.MinFreeBytes,
		watched: make(chan struct{}), stopped: make(chan struct{}),
	}
	if err := s.start(ctx); err != nil {
		return nil, fmt.Errorf("starting NATS: %w", err)
	}
	file.URL = localURL(o.TLS, host, port)
	s.url = file.URL
	if err := file.write(o.Dir); err != nil {
		shutDown(s.current())
		return nil, fmt.Errorf("starting NATS: %w", err)
	}
	watching, unwatch := context.WithCancel(context.WithoutCancel(ctx))
	s.unwatch = unwatch
	go func() {
		defer close(s.watched)
		s.watch(watching)
	}()
	return s, nil
}

// start makes a server of the options the current one, and returns when it takes
// connections.
func (s *Server) start(ctx context.Context) error {
	ns, err := natsserver.NewServer(s.options.Clone())
	if err != nil {
		return err
	}
	ns.SetLoggerV2(s.log, false, false, false)
	ns.Start()
	if err := waitReady(ctx, ns, s.log); err != nil {
		shutDown(ns)
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nats = ns
	return nil
}

func (s *Server) current() *natsserver.Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.nats
}

// InProcessConn connects within the process to the server that runs at present;
// connections use it to come back after a restart.
func (s *Server) InProcessConn() (net.Conn, error) { return s.current().InProcessConn() }

func shutDown(ns *natsserver.Server) {
	ns.Shutdown()
	ns.WaitForShutdown()
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
			s.unwatch()
			<-s.watched
			s.changing.Lock()
			defer s.changing.Unlock()
			shutDown(s.current())
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
func waitReady(ctx context.Context, ns *natsserver.Server, log *serverLog) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		const slice = 50 * time.Millisecond // so that a fatal error ends the wait
		if ns.ReadyForConnections(slice) {
			if !ns.JetStreamEnabled() {
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
