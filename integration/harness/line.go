package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// Line stands between two processes as a network does. It carries bytes until it is
// cut: then what is sent stays on the way, and arrives when the line is mended, as
// TCP has it after a partition. [Line.Break] ends the connections instead.
type Line struct {
	target   string
	listener net.Listener
	closing  context.Context //nolint:containedctx // the life of the line
	end      context.CancelFunc
	carriers sync.WaitGroup

	mu      sync.Mutex
	mended  chan struct{} // closed while the line carries
	broken  bool
	connect map[net.Conn]struct{}
}

// NewLine opens a line to the address on a free port.
func NewLine(target string) (*Line, error) {
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("opening a line to %s: %w", target, err)
	}
	l := &Line{target: target, listener: listener, mended: make(chan struct{}), connect: map[net.Conn]struct{}{}}
	close(l.mended)
	l.closing, l.end = context.WithCancel(context.Background())
	l.carriers.Go(l.accept)
	return l, nil
}

// Address is the line's own, to be used in place of the target's.
func (l *Line) Address() string { return l.listener.Addr().String() }

// Cut keeps everything that is sent from now on until Mend.
func (l *Line) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.mended:
		l.mended = make(chan struct{})
	default:
	}
}

// Break ends all connections, and refuses new ones until Mend.
func (l *Line) Break() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.broken = true
	for c := range l.connect {
		_ = c.Close() // it may have ended by itself
	}
}

// Mend ends what Cut and Break have begun.
func (l *Line) Mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.broken = false
	select {
	case <-l.mended:
	default:
		close(l.mended)
	}
}

// Close ends the line and every connection through it.
func (l *Line) Close() error {
	l.end()
	err := l.listener.Close()
	l.Break()
	l.carriers.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (l *Line) accept() {
	for {
		near, err := l.listener.Accept()
		if err != nil {
			return // closed
		}
		l.carriers.Go(func() { l.serve(near) })
	}
}

// serve carries one connection until either side ends it.
func (l *Line) serve(near net.Conn) {
	defer near.Close()
	if !l.carries() || !l.keep(near) {
		return
	}
	defer l.drop(near)
	far, err := (&net.Dialer{}).DialContext(l.closing, "tcp", l.target)
	if err != nil {
		return
	}
	defer far.Close()
	if !l.keep(far) {
		return
	}
	defer l.drop(far)
	var back sync.WaitGroup
	back.Go(func() { l.carry(near, far) })
	l.carry(far, near)
	back.Wait()
}

// carry takes bytes from one side to the other, and ends both with either.
func (l *Line) carry(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if !l.carries() {
				return
			}
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				l.carries() // the end of a connection travels as its bytes do
			}
			return
		}
	}
}

// carries waits while the line is cut; false when it is closed.
func (l *Line) carries() bool {
	l.mu.Lock()
	mended := l.mended
	l.mu.Unlock()
	select {
	case <-mended:
		return l.closing.Err() == nil
	case <-l.closing.Done():
		return false
	}
}

func (l *Line) keep(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken {
		return false
	}
	l.connect[c] = struct{}{}
	return true
}

func (l *Line) drop(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.connect, c)
}
