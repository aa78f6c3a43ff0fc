// Package influx is a client for InfluxDB 1.x, made for moving data: it lists
// databases, retention policies, shard groups, measurements and their keys,
// streams points as msgpack in constant memory, counts them, and writes line
// protocol. Its errors say whether trying again can help.
package influx

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Endpoint says where a server is and who asks. Formatting or logging an
// Endpoint never shows the credentials.
type Endpoint struct {
	// URL is the base URL, http or https; a path is kept as a prefix.
	// Credentials in it are taken when Username is empty.
	URL      string
	Username string
	Password string
}

// String returns the URL without credentials.
func (e Endpoint) String() string {
	u, err := url.Parse(e.URL)
	if err != nil {
		return "invalid URL"
	}
	u.User = nil
	return u.String()
}

// GoString keeps %#v from showing the credentials.
func (e Endpoint) GoString() string { return fmt.Sprintf("influx.Endpoint{URL: %q}", e.String()) }

// LogValue implements [slog.LogValuer].
func (e Endpoint) LogValue() slog.Value { return slog.StringValue(e.String()) }

// Defaults of [Options].
const (
	DefaultTimeout  = 30 * time.Second
	DefaultMaxConns = 16
)

// Options tune a Client. The zero Options are usable.
type Options struct {
	// Timeout is how long a connection may be silent, in either direction,
	// before the request fails. It does not bound a request's whole time: the
	// context does that. 0 means [DefaultTimeout].
	Timeout time.Duration
	// MaxConns bounds the connections of reads and, apart from them, those of
	// writes; a request beyond it waits. 0 means [DefaultMaxConns].
	MaxConns int
	// Gzip compresses the bodies of writes. It costs both ends CPU and pays
	// only where the network is the limit.
	Gzip bool
	// UserAgent is sent with every request when not empty.
	UserAgent string
	// Guard, when not nil, is asked immediately before each chunk (at most 64
	// KiB) of a Write is put on the wire. If it answers with an error nothing
	// more is sent, the connection is broken so that the server discards what
	// it has, and Write returns an error that wraps [ErrGuard] and the answer.
	Guard func() error
	// TLS configures https; nil means the defaults.
	TLS *tls.Config
	// Dial opens connections; nil means a [net.Dialer].
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

func (o *Options) setDefaults() {
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	if o.MaxConns <= 0 {
		o.MaxConns = DefaultMaxConns
	}
	if o.Dial == nil {
		o.Dial = (&net.Dialer{Timeout: o.Timeout}).DialContext
	}
}

// Client talks to one server. It is safe for concurrent use.
type Client struct {
	base      *url.URL // without credentials
	username  string
	password  string
	userAgent string
	gzip      bool
	guard     func() error
	silence   time.Duration
	reads     *http.Transport
	writes    *http.Transport // apart, for the guard is on its connections
	zips      sync.Pool       // of *zip
}

// New returns a client of the server at e. It does not connect.
func New(e Endpoint, o Options) (*Client, error) {
	base, err := url.Parse(e.URL)
	if err != nil {
		// The error of url.Parse repeats the URL, which may hold a password.
		return nil, errors.New("parsing the URL of a backend: not a valid URL")
	}
	if (base.Scheme != "http" && base.Scheme != "https") || base.Host == "" {
		return nil, fmt.Errorf("backend URL %q: want http://host:port or https://host:port", e)
	}
	o.setDefaults()
	c := &Client{
		username:  e.Username,
		password:  e.Password,
		userAgent: o.UserAgent,
		gzip:      o.Gzip,
		guard:     o.Guard,
		silence:   o.Timeout,
	}
	if base.User != nil && c.username == "" {
		c.username = base.User.Username()
		c.password, _ = base.User.Password()
	}
	base.User, base.RawQuery, base.Fragment = nil, "", ""
	base.Path = strings.TrimSuffix(base.Path, "/")
	c.base = base
	c.reads = newTransport(o, nil)
	c.writes = newTransport(o, o.Guard)
	return c, nil
}

// Close ends idle connections. Requests under way are not touched.
func (c *Client) Close() {
	c.reads.CloseIdleConnections()
	c.writes.CloseIdleConnections()
}

// URL returns the base URL of the server, without credentials.
func (c *Client) URL() string { return c.base.String() }
