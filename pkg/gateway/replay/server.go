package replay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/result"
	"ringmaster/pkg/topology"
)

// server is a real backend.
type server struct {
	client *influx.Client
	now    func() time.Time
	// prepared is whether the database of the probes is known to be there.
	prepared bool
}

// DialInflux returns the Dialer of real backends.
func DialInflux(o influx.Options) Dialer {
	return func(b *topology.Backend, guard func() error) (Server, error) {
		o := o
		o.Guard = guard
		c, err := influx.New(influx.Endpoint{URL: b.URL, Username: b.Credentials.Username, Password: b.Credentials.Password}, o)
		if err != nil {
			return nil, err
		}
		return &server{client: c, now: time.Now}, nil
	}
}

// Close ends idle connections.
func (s *server) Close() { s.client.Close() }

// Write stores lines.
func (s *server) Write(ctx context.Context, db, rp string, lines []byte) error {
	return s.client.Write(ctx, db, rp, lines)
}

// probePolicy is the only retention policy of the probes' database, as health makes
// it: InfluxDB keeps nothing for less than an hour.
func probePolicy() influx.RetentionPolicy {
	return influx.RetentionPolicy{Name: "probe", Duration: time.Hour, ShardDuration: time.Hour, Replication: 1, Default: true}
}

// Probe writes a point into the database of the probes. An account that may not do
// that must do with a ping.
func (s *server) Probe(ctx context.Context) error {
	err := s.probe(ctx)
	if missing(err) { // somebody has dropped it
		s.prepared = false
		err = s.probe(ctx)
	}
	if denied(err) {
		_, err = s.client.Ping(ctx)
	}
	return err
}

func (s *server) probe(ctx context.Context) error {
	if !s.prepared {
		if err := s.client.CreateDatabaseWith(ctx, influx.ProbeDatabase, probePolicy()); err != nil {
			return err
		}
		s.prepared = true
	}
	at := s.now().UnixNano()
	return s.client.Write(ctx, influx.ProbeDatabase, probePolicy().Name, fmt.Appendf(nil, "probe value=%di %d", at, at))
}

// activeWrites is InfluxDB's own count of the write requests that it carries out. It
// counts until the request has been answered, whether or not somebody reads the
// answer.
const activeWrites = "writeReqActive"

var errNotTold = errors.New("the server does not tell how many writes it is carrying out")

// Busy asks for the server's own count.
func (s *server) Busy(ctx context.Context) (int, error) {
	answer, err := s.client.Ask(ctx, influx.Question{Text: "SHOW STATS FOR 'httpd'", ReadOnly: true})
	if err != nil {
		return 0, err
	}
	defer answer.Close()
	count, found := 0, false
	for {
		part, err := answer.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, err
		}
		if part.Err != "" {
			return 0, fmt.Errorf("%w: %s", errNotTold, part.Err)
		}
		for i := range part.Series {
			n, ok := activeOf(&part.Series[i])
			count, found = count+n, found || ok
		}
	}
	if !found {
		return 0, errNotTold
	}
	return count, nil
}

func activeOf(s *result.Series) (n int, ok bool) {
	for column, name := range s.Columns {
		if name != activeWrites {
			continue
		}
		for _, row := range s.Values {
			if column < len(row) {
				n, ok = n+int(row[column].Num), true
			}
		}
	}
	return n, ok
}

// The words of InfluxDB for what can be made good.
const (
	unknownDatabase = "database not found"
	unknownPolicy   = "retention policy not found"
)

// missing reports whether a server lacks a database or a retention policy.
func missing(err error) bool {
	var refusal *influx.Error
	return errors.As(err, &refusal) && refusal.Status != 0 &&
		(strings.HasPrefix(refusal.Message, unknownDatabase) || strings.HasPrefix(refusal.Message, unknownPolicy))
}

// denied reports whether a server asks for other credentials.
func denied(err error) bool {
	var refusal *influx.Error
	return errors.As(err, &refusal) && (refusal.Status == http.StatusUnauthorized || refusal.Status == http.StatusForbidden)
}

// forGood reports whether it is the points that a server refuses, and will refuse
// whenever they are sent. Anything else may pass: what a proxy says, other
// credentials, what the server lacks.
func forGood(err error) (refusal *influx.Error, ok bool) {
	if !errors.As(err, &refusal) || missing(err) || refusal.Class == influx.Transient {
		return nil, false
	}
	switch refusal.Status {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
		return refusal, true
	default:
		return nil, false
	}
}
