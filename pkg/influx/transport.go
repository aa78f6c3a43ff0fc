package influx

import (
	"context"
	"net"
	"net/http"
	"time"
)

// bufferSize is the size of the buffers of a connection, and so the most that
// is put on the wire between two questions to the guard.
const bufferSize = 64 << 10

// newTransport makes the connections of reads or writes. o has its defaults set.
func newTransport(o Options, guard func() error) *http.Transport {
	return &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			nc, err := o.Dial(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return &conn{Conn: nc, silence: o.Timeout, guard: guard}, nil
		},
		TLSClientConfig:     o.TLS,
		TLSHandshakeTimeout: o.Timeout,
		MaxConnsPerHost:     o.MaxConns,
		MaxIdleConnsPerHost: o.MaxConns,
		// Idle connections go before silence would break them.
		IdleConnTimeout:    o.Timeout / 2,
		DisableCompression: true,
		ReadBufferSize:     bufferSize,
		WriteBufferSize:    bufferSize,
	}
}

// conn breaks a connection that is silent for too long, and asks the guard
// before it sends.
type conn struct {
	net.Conn

	silence time.Duration
	guard   func() error
}

func (c *conn) Read(p []byte) (int, error) {
	if err := c.Conn.SetReadDeadline(time.Now().Add(c.silence)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

func (c *conn) Write(p []byte) (int, error) {
	if c.guard != nil {
		if err := c.guard(); err != nil {
			return 0, &guardError{err} // and net/http closes the connection
		}
	}
	// Both directions: a read may have been waiting since the connection went
	// idle, and what is silence for it begins now.
	if err := c.Conn.SetDeadline(time.Now().Add(c.silence)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}
