package bus

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
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
