package program

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"ringmaster/pkg/bus"
)

// noticeAfter is how long NATS may take before the log says what is waited for.
const noticeAfter = time.Second

// Connect connects to NATS and waits for it until ctx ends, which the log says if
// it takes longer than a moment. Told to stop meanwhile, it returns an error that
// matches context.Canceled.
func Connect(ctx context.Context, o bus.Options, logger *slog.Logger) (*bus.Bus, error) {
	o.Logger = logger
	waiting, connected := context.WithCancel(ctx)
	var notice sync.WaitGroup
	notice.Go(func() {
		timer := time.NewTimer(noticeAfter)
		defer timer.Stop()
		select {
		case <-timer.C:
			logger.WarnContext(ctx, "waiting for NATS", "url", NATSShown(o.URL))
		case <-waiting.Done():
		}
	})
	b, err := bus.Connect(ctx, o)
	connected()
	notice.Wait()
	if err != nil {
		return nil, fmt.Errorf("connecting to NATS: %w", Interrupted(ctx, err))
	}
	return b, nil
}

// Interrupted makes an error that says only that the process was told to stop
// while it waited for NATS match context.Canceled.
func Interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, bus.ErrUnavailable) && !errors.Is(err, ctx.Err()) {
		return fmt.Errorf("%w: %w", ctx.Err(), err)
	}
	return err
}

// NATSShown is a list of NATS URLs as it may be shown: without credentials, and
// without an entry that cannot be read.
func NATSShown(list string) string {
	var shown []string
	for entry := range strings.SplitSeq(list, ",") {
		u, err := url.Parse(natsEntry(entry))
		if err != nil {
			continue
		}
		shown = append(shown, (&url.URL{Scheme: u.Scheme, Host: u.Host}).String())
	}
	return strings.Join(shown, ",")
}

// natsEntry is one entry of a list of NATS URLs, with its scheme.
func natsEntry(entry string) string {
	entry = strings.TrimSpace(entry)
	if !strings.Contains(entry, "://") {
		entry = "nats://" + entry
	}
	return entry
}

// NATSListenMistake says what is wrong with the address of the embedded
// JetStream's listener; "" if nothing is. Off loopback it would need TLS, which
// the embedded one is not given here.
func NATSListenMistake(address string) string {
	if m := ListenMistake(address); m != "" {
		return m
	}
	host, port, _ := net.SplitHostPort(address) // ListenMistake has split it
	if _, err := strconv.Atoi(port); err != nil {
		return fmt.Sprintf("%q has no port between 0 and 65535; write it as a number", address)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Sprintf("%q is off loopback, which needs TLS, and the embedded JetStream has none; "+
			"use 127.0.0.1:port, or a NATS of your own with -nats", address)
	}
	return ""
}
