package harness

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"
)

// Far makes a server further away: every byte through it takes longer, half of the
// latency on each way, and as many are on the way at once as a network would carry.
type Far struct {
	target   string
	delay    time.Duration
	listener net.Listener
	closing  context.Context //nolint:containedctx // the life of the line
	end      context.CancelFunc
	carriers sync.WaitGroup
}

// NewFar opens a way to the address on a free port that adds a latency to each round
// trip.
func NewFar(target string, latency time.Duration) (*Far, error) {
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("opening a long way to %s: %w", target, err)
	}
	f := &Far{target: target, delay: latency / 2, listener: listener}
	f.closing, f.end = context.WithCancel(context.Background())
	f.carriers.Go(f.accept)
	return f, nil
}

// Address is to be used in place of the target's.
func (f *Far) Address() string { return f.listener.Addr().String() }

// Close ends the way and every connection through it.
func (f *Far) Close() error {
	f.end()
	err := f.listener.Close()
	f.carriers.Wait()
	return err
}

func (f *Far) accept() {
	for {
		near, err := f.listener.Accept()
		if err != nil {
			return // closed
		}
		f.carriers.Go(func() { f.serve(near) })
	}
}

// serve carries one connection until either side ends it.
func (f *Far) serve(near net.Conn) {
	defer near.Close()
	far, err := (&net.Dialer{}).DialContext(f.closing, "tcp", f.target)
	if err != nil {
		return
	}
	defer far.Close()
	ends := context.AfterFunc(f.closing, func() {
		_ = near.Close() // what is on the way is lost, as it is when a network goes
		_ = far.Close()
	})
	defer ends()
	var back sync.WaitGroup
	back.Go(func() { f.carry(near, far) })
	f.carry(far, near)
	back.Wait()
}

// onTheWay is a piece of what one side has sent, and when it arrives.
type onTheWay struct {
	bytes []byte
	at    time.Time
}

const (
	wayPiece  = 32 << 10
	wayPieces = 1024 // of a connection and way at most
)

// carry takes bytes from one side to the other, each after the delay, and ends both
// with either.
func (f *Far) carry(to, from net.Conn) {
	way := make(chan onTheWay, wayPieces)
	var arriving sync.WaitGroup
	arriving.Go(func() {
		defer to.Close()
		defer from.Close()
		for piece := range way {
			f.wait(piece.at)
			if _, err := to.Write(piece.bytes); err != nil {
				break
			}
		}
		for range way { // until the sender has noticed
		}
	})
	for {
		buf := make([]byte, wayPiece)
		n, err := from.Read(buf)
		if n > 0 {
			way <- onTheWay{buf[:n], time.Now().Add(f.delay)}
		}
		if err != nil {
			break
		}
	}
	close(way)
	arriving.Wait()
}

func (f *Far) wait(until time.Time) {
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-f.closing.Done():
	}
}
