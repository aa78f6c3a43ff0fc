package health

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"ringmaster/pkg/influx"
)

// probe asks one backend.
type probe struct {
	client *influx.Client
	now    func() time.Time
	// prepared is whether the database of the probes is known to be there.
	prepared bool
}

// probePolicy is the only retention policy of the probes' database: InfluxDB
// keeps nothing for less than an hour.
func probePolicy() influx.RetentionPolicy {
	return influx.RetentionPolicy{Name: "probe", Duration: time.Hour, ShardDuration: time.Hour, Replication: 1, Default: true}
}

const (
	pingTimeout      = 3 * time.Second
	probeMeasurement = "probe"
)

// ping asks whether the backend is there. One that asks for other credentials is.
func (p *probe) ping(ctx context.Context) Status {
	s := Status{CheckedAt: p.now()}
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	var err error
	if s.Version, err = p.client.Ping(ctx); err != nil && !denied(err) {
		s.Error = reason(err)
		return s
	}
	s.Active = true
	return s
}

// finding is what a write probe found.
type finding struct {
	writes       Writes
	reason, note string
}

// write writes a point and reads it back. A backend that does not let this
// account do that may be well: then there is no finding but a note.
func (p *probe) write(ctx context.Context) finding {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	stored, err := p.roundTrip(ctx)
	if missing(err) || influx.IsTransient(err) {
		// Somebody may have dropped the database, or closed the connection. What
		// fails twice is told.
		p.prepared = false
		stored, err = p.roundTrip(ctx)
	}
	switch {
	case err != nil:
		return judge(err, !p.prepared)
	case !stored:
		return finding{writes: WritesFailed, reason: "a point that it acknowledged cannot be read back"}
	}
	return finding{writes: WritesStored}
}

// roundTrip reports whether a point that was written can be read back.
func (p *probe) roundTrip(ctx context.Context) (bool, error) {
	at := p.now().UnixNano()
	if err := p.store(ctx, fmt.Appendf(nil, "%s value=%di %d", probeMeasurement, at, at)); err != nil {
		return false, err
	}
	return p.readBack(ctx, at)
}

// store writes a line to the database of the probes, which it makes if need be.
func (p *probe) store(ctx context.Context, line []byte) error {
	if !p.prepared {
		if err := p.client.CreateDatabaseWith(ctx, influx.ProbeDatabase, probePolicy()); err != nil {
			return err
		}
		p.prepared = true
	}
	return p.client.Write(ctx, influx.ProbeDatabase, probePolicy().Name, line)
}

// missing reports whether the database of the probes, or its policy, is gone.
func missing(err error) bool {
	var refusal *influx.Error
	return errors.As(err, &refusal) &&
		(strings.HasPrefix(refusal.Message, "database not found") || strings.HasPrefix(refusal.Message, "retention policy not found"))
}

// readBack reports whether the point of that time, which is its value, is there.
func (p *probe) readBack(ctx context.Context, at int64) (bool, error) {
	s, err := p.client.Read(ctx, []influx.Selection{{
		Database: influx.ProbeDatabase, RetentionPolicy: probePolicy().Name, Measurement: probeMeasurement,
		Window: influx.Window{From: at, To: at + 1},
	}})
	if err != nil {
		return false, err
	}
	defer s.Close()
	stored := false
	for s.Next() {
		stored = stored || s.Time() == at && int64(s.Values()[0].Num) == at
	}
	return stored, s.Err()
}

// Words by which InfluxDB, its operating system or its operators say what is
// wrong, lower case.
var (
	fullWords     = []string{"no space left on device", "disk quota exceeded", "not enough space on the disk"}
	readOnlyWords = []string{"read-only", "read only", "readonly"}
	// accountWords come before a name of an account, which may have any words
	// in it.
	accountWords = []string{"authoriz", "authentic"}
)

// judge says what an error of a write probe means. preparing is whether it was
// making the database that failed.
func judge(err error, preparing bool) finding {
	said := reason(err)
	words := strings.ToLower(said)
	var refusal *influx.Error
	errors.As(err, &refusal)
	const pingedOnly = "pinged only: "
	switch {
	case denied(err) && (contains(words, accountWords) || !contains(words, readOnlyWords)):
		return finding{note: pingedOnly + "it does not let this account use the database " + influx.ProbeDatabase + ": " + said}
	case contains(words, fullWords):
		return finding{writes: WritesFailed, reason: "its disk is full: " + said}
	case contains(words, readOnlyWords):
		return finding{writes: WritesFailed, reason: "it is read-only: " + said}
	case preparing && refusal != nil && refusal.Class == influx.Permanent:
		return finding{note: pingedOnly + "the database " + influx.ProbeDatabase + " cannot be made: " + said}
	case strings.Contains(words, "beyond retention policy"):
		return finding{note: pingedOnly + "its clock and the one here are more than an hour apart: " + said}
	}
	return finding{writes: WritesFailed, reason: said}
}

// reason puts an error in few words.
func reason(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return "it does not answer in time: " + err.Error()
	}
	return err.Error()
}

func contains(text string, some []string) bool {
	for _, words := range some {
		if strings.Contains(text, words) {
			return true
		}
	}
	return false
}

// denied reports whether a backend has answered, and asks for other credentials.
func denied(err error) bool {
	var refusal *influx.Error
	return errors.As(err, &refusal) && (refusal.Status == http.StatusUnauthorized || refusal.Status == http.StatusForbidden)
}
