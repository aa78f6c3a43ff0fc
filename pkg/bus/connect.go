package bus

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"ringmaster/events"
)

// defaultTimeout bounds a call whose context has no earlier deadline. It outlasts
// the election of a new leader in a cluster.
const defaultTimeout = 15 * time.Second

// Options configure a connection.
type Options struct {
	// URL names one or several servers, separated by commas. Not used when
	// Server is set.
	URL string
	// Token authenticates to an embedded server of another process.
	Token string
	// TLS is used for tls:// URLs; nil means the system's certificates.
	TLS *tls.Config
	// Server, when set, is connected to inside this process.
	Server *Server
	// Name tells this process from others: in the server's logs, as the source
	// of its scope locks, and in its health probe. Empty means "ringmaster".
	Name string
	// Timeout bounds each call whose context has no earlier deadline;
	// 0 means 15 s.
	Timeout time.Duration
	// Logger receives connection changes; nil means none.
	Logger *slog.Logger
}

// Bus is a connection to JetStream. It is safe for use by several goroutines,
// and reconnects for as long as it is open.
type Bus struct {
	conn    *nats.Conn
	js      jetstream.JetStream
	name    string
	timeout time.Duration
	log     *slog.Logger
	closed  chan struct{} // closed when the connection is, for good

	mu sync.Mutex
	// session ends when the connection breaks, so that nobody waits for answers
	// that were lost with it; up is closed while there is one.
	session context.Context //nolint:containedctx // the life of a connection, which calls join to their own
	end     context.CancelFunc
	up      chan struct{}
}

// Connect returns a connected bus. While no server answers it keeps trying
// until ctx ends; a server that refuses the credentials ends it at once.
func Connect(ctx context.Context, o Options) (*Bus, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	if o.Name == "" {
		o.Name = "ringmaster"
	}
	b := &Bus{
		name:    o.Name,
		timeout: o.Timeout,
		log:     o.Logger.With("part", "nats"),
		closed:  make(chan struct{}),
		up:      make(chan struct{}),
		end:     func() {},
	}
	options := []nats.Option{
		nats.Name(o.Name),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(100 * time.Millisecond),
		nats.ReconnectJitter(200*time.Millisecond, 400*time.Millisecond),
		// What cannot be sent now is not sent later: callers wait for the
		// connection instead, for as long as they want to.
		nats.ReconnectBufSize(-1),
		nats.IgnoreAuthErrorAbort(),
		nats.PingInterval(pingInterval(o)),
		nats.MaxPingsOutstanding(2),
		nats.Timeout(attemptTimeout),
		nats.ConnectHandler(func(*nats.Conn) { b.begin() }),
		nats.ReconnectHandler(func(*nats.Conn) {
			b.begin()
			b.log.Info("reconnected")
		}),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			b.interrupt()
			if err != nil {
				b.log.Warn("disconnected", "error", err)
			}
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			b.log.Warn("asynchronous error", "error", err)
		}),
		nats.ClosedHandler(func(*nats.Conn) {
			close(b.closed)
			b.interrupt()
		}),
	}
	if o.Server != nil {
		options = append(options, nats.InProcessServer(o.Server), nats.Token(o.Server.token))
	} else if o.Token != "" {
		options = append(options, nats.Token(o.Token))
	}
	if o.TLS != nil && o.Server == nil {
		options = append(options, nats.Secure(o.TLS))
	}
	for {
		conn, err := nats.Connect(o.URL, options...)
		if err == nil {
			b.conn = conn
			break
		}
		if errors.Is(err, nats.ErrAuthorization) || errors.Is(err, nats.ErrAuthExpired) {
			return nil, fmt.Errorf("connecting to NATS: %w", err)
		}
		if waitErr := pause(ctx, retryPause*4); waitErr != nil {
			return nil, fmt.Errorf("connecting to NATS: %w: %w", ErrUnavailable, err)
		}
	}
	js, err := jetstream.New(b.conn, jetstream.WithDefaultTimeout(o.Timeout))
	if err != nil {
		b.Close()
		return nil, fmt.Errorf("opening JetStream: %w", err)
	}
	b.js = js
	// The handler that opens the session runs a little after the connection.
	_, done, err := b.connected(ctx)
	if err != nil {
		b.Close()
		return nil, fmt.Errorf("connecting to NATS: %w", err)
	}
	done()
	return b, nil
}

// pingInterval is how often the server is asked whether it is there. One that says
// nothing, because its machine has stopped, is left for another well before a lease
// runs out. There is no other than the embedded one, which may be slow for a while.
func pingInterval(o Options) time.Duration {
	if o.Server != nil {
		return 5 * time.Second
	}
	return 2 * time.Second
}

// Close ends the connection and everything that reads from it. What was not
// acknowledged yet stays unknown to its caller.
func (b *Bus) Close() {
	b.conn.Close()
	<-b.closed
}

// Connected reports whether the connection stands at this moment.
func (b *Bus) Connected() bool { return b.conn.IsConnected() }

// clustered reports whether the connection's server is one of several.
func (b *Bus) clustered() bool { return b.conn.ConnectedClusterName() != "" }

// probeTimeout is when a probe that is not answered has failed.
const probeTimeout = 5 * time.Second

// probeSize makes a probe need room on the disk each time: a short one fits into what
// is left of a page long after the disk is full.
const probeSize = 4 << 10

func probeBody(at time.Time) []byte {
	body := make([]byte, probeSize)
	for i := copy(body, at.UTC().Format(time.RFC3339Nano)); i < len(body); i++ {
		body[i] = ' '
	}
	return body
}

// Probe proves that JetStream works by publishing a message and having it
// acknowledged, which the server does when it is on disk. It neither waits for
// the connection nor repeats: a failure is the answer.
func (b *Bus) Probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, min(b.timeout, probeTimeout))
	defer cancel()
	b.mu.Lock()
	up := b.up
	b.mu.Unlock()
	select {
	case <-up:
	case <-b.closed: // attempt says so
	default:
		return fmt.Errorf("probing JetStream: %w: not connected", ErrUnavailable)
	}
	err := b.attempt(ctx, func(ctx context.Context) error {
		_, err := b.js.Publish(ctx, events.ProbeSubject(b.name), probeBody(time.Now()),
			jetstream.WithExpectStream(events.StreamProbe), jetstream.WithRetryAttempts(0))
		return err
	})
	if err != nil {
		return fmt.Errorf("probing JetStream: %w", err)
	}
	return nil
}
