package influx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// bufferSize is the size of the buffers of a connection, and so the most that
// is put on the wire between two questions to the guard.
const bufferSize = 64 << 10

// newTransport makes the connections of reads or writes. o has its defaults set.
func newTransport(o Options, guard func() error) *http.Transport {
	buffers := &sync.Pool{}
	return &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			nc, err := o.Dial(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			if err := forget(nc); err != nil {
				return nil, errors.Join(err, nc.Close())
			}
			return &conn{Conn: nc, silence: o.Timeout, guard: guard, buffers: buffers}, nil
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

// forget lets the kernel drop what it has not yet sent when a connection is
// closed, also by the end of the process. Otherwise it goes on trying for minutes
// after a request was given up, and a partition that heals meanwhile lets an old
// write arrive over a newer one.
func forget(nc net.Conn) error {
	tcp, ok := nc.(interface{ SetLinger(seconds int) error })
	if !ok {
		return nil
	}
	if err := tcp.SetLinger(0); err != nil {
		return fmt.Errorf("setting up a connection: %w", err)
	}
	return nil
}

// conn breaks a connection that is silent for too long, and asks the guard
// before it sends.
type conn struct {
	net.Conn

	silence time.Duration
	guard   func() error
	buffers *sync.Pool // of *[bufferSize]byte
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

// ReadFrom sends what r gives. Without it bodies would go through a buffer of half
// the size that is made for each of them.
func (c *conn) ReadFrom(r io.Reader) (n int64, err error) {
	buffer, ok := c.buffers.Get().(*[bufferSize]byte)
	if !ok {
		buffer = new([bufferSize]byte)
	}
	defer c.buffers.Put(buffer)
	for {
		got, readErr := r.Read(buffer[:])
		if got > 0 {
			sent, err := c.Write(buffer[:got])
			n += int64(sent)
			if err != nil {
				return n, err
			}
		}
		switch {
		case errors.Is(readErr, io.EOF):
			return n, nil
		case readErr != nil:
			return n, readErr
		}
	}
}
