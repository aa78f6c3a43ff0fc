package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"ringmaster/pkg/topology"
)

// Bounds of the HTTP server. Event streams have no write timeout, so there is
// none; their number is bounded by their handler.
const (
	readHeaderTimeout = 10 * time.Second
	readTimeout       = time.Minute
	idleTimeout       = 2 * time.Minute
	shutdownTimeout   = 10 * time.Second
)

// readyEvery is how often a starting process asks itself whether it is ready.
const readyEvery = 10 * time.Millisecond

// announce calls ready when requests are served and the operations have been
// read, so that whoever waits for it is not told to come back.
func (s *system) announce(ctx context.Context, listening <-chan string, ready func(address string)) {
	var address string
	select {
	case address = <-listening:
	case <-ctx.Done():
		return
	}
	ticker := time.NewTicker(readyEvery)
	defer ticker.Stop()
	for s.projection.Ready() != nil {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
	ready(address)
}

// listen serves HTTP until ctx ends, and then finishes the requests under way. It
// sends its address, for which listening must have room, when it does.
func (s *system) listen(ctx context.Context, listening chan<- string) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.options.listen)
	if err != nil {
		return fmt.Errorf("listening on %s: %w", s.options.listen, err)
	}
	server := &http.Server{
		Handler: s.handler, ReadHeaderTimeout: readHeaderTimeout, ReadTimeout: readTimeout, IdleTimeout: idleTimeout,
		ErrorLog: slog.NewLogLogger(s.logger.Handler(), slog.LevelDebug),
	}
	c := s.options.config
	if c.HTTPSEnabled {
		certificate, err := tls.LoadX509KeyPair(c.HTTPSCert, c.HTTPSKey)
		if err != nil {
			return errors.Join(fmt.Errorf("reading the certificate: %w", err), listener.Close())
		}
		listener = tls.NewListener(listener, encryption(c.TLS, certificate))
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	listening <- listener.Addr().String()
	select {
	case err := <-served:
		return fmt.Errorf("serving HTTP: %w", err)
	case <-ctx.Done():
	}
	close(s.draining)
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	err = server.Shutdown(stop)
	if err != nil {
		err = errors.Join(fmt.Errorf("finishing requests: %w", err), server.Close())
	}
	if end := <-served; !errors.Is(end, http.ErrServerClosed) {
		err = errors.Join(err, fmt.Errorf("serving HTTP: %w", end))
	}
	return err
}

// encryption is what the configuration says of TLS. TLS 1.2 is the least, unless
// the file asks for less in so many words.
func encryption(c topology.TLS, certificate tls.Certificate) *tls.Config {
	least := cmp.Or(c.MinVersion, tls.VersionTLS12)
	if c.MaxVersion != 0 {
		least = min(least, c.MaxVersion)
	}
	return &tls.Config{
		Certificates: []tls.Certificate{certificate}, NextProtos: []string{"http/1.1"},
		MinVersion: least, MaxVersion: c.MaxVersion, CipherSuites: c.Ciphers,
	}
}
