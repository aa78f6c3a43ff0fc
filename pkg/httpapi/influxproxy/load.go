package influxproxy

import (
	"context"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"ringmaster/pkg/topology"
)

// Count is how many measurements of one database a backend holds, and how many
// of them it owns.
type Count struct{ Measurements, InPlace int }

// BackendLoad is what is known of the measurements that a backend holds.
type BackendLoad struct {
	// Databases are the counts by database, TakenAt is when they were taken.
	Databases map[string]Count
	TakenAt   time.Time
	// Error says why there are none, or none that are newer.
	Error string
}

// Loads knows how many measurements each backend holds, by its name. It answers
// within seconds, whatever the backends do.
type Loads interface {
	Loads(ctx context.Context) map[string]BackendLoad
}

// loadAgeHeader says how old the oldest counts of an answer are, in seconds; an
// answer without any does not have it.
const loadAgeHeader = "X-Load-Age"

// load are the counts of a database as both generations show them, in the order
// of the page of 2.4.
type load struct {
	Incorrect    int `json:"incorrect"`
	InPlace      int `json:"inplace"`
	Measurements int `json:"measurements"`
}

// loads asks for the counts of the backends and says in a header how old they
// are.
func (rm *room) loads(c *gin.Context, t *topology.Topology) map[string]BackendLoad {
	if rm.Loads == nil {
		return map[string]BackendLoad{}
	}
	all := rm.Loads.Loads(c.Request.Context())
	now, oldest, known := rm.Now(), time.Duration(0), false
	for _, circle := range t.Circles {
		for _, b := range circle.Backends {
			if l := all[b.Name]; !l.TakenAt.IsZero() {
				oldest, known = max(oldest, now.Sub(l.TakenAt)), true
			}
		}
	}
	if known {
		c.Header(loadAgeHeader, strconv.FormatFloat(oldest.Seconds(), 'f', 3, 64))
	}
	return all
}

// shown is how the counts of a backend look, and whether each measurement lies
// where it belongs, as far as is known.
func (l BackendLoad) shown() (loads map[string]load, inPlace bool) {
	loads, inPlace = make(map[string]load, len(l.Databases)), true
	for db, n := range l.Databases {
		incorrect := n.Measurements - n.InPlace
		loads[db] = load{Incorrect: incorrect, InPlace: n.InPlace, Measurements: n.Measurements}
		inPlace = inPlace && incorrect == 0
	}
	return loads, inPlace
}
