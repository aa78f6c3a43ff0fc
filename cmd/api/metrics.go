package main

import (
	"context"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"ringmaster/pkg/health"
	"ringmaster/pkg/operation"
	"ringmaster/pkg/topology"
)

// No label has more values than there are backends, or kinds and states of
// operations.
var (
	openDescription = prometheus.NewDesc("ringmaster_operations_open",
		"Operations that have not ended.", []string{"kind", "state"}, nil)
	endedDescription = prometheus.NewDesc("ringmaster_operations_ended",
		"Operations that have ended, among the newest that this process remembers.", []string{"kind", "state"}, nil)
	upDescription = prometheus.NewDesc("ringmaster_backend_up",
		"Whether the backend answered the last ping.", []string{"circle", "backend"}, nil)
	storesDescription = prometheus.NewDesc("ringmaster_backend_stores",
		"Whether the backend stored and gave back the last point that was written to it; absent when none was.", []string{"circle", "backend"}, nil)
	ageDescription = prometheus.NewDesc("ringmaster_backend_probe_age_seconds",
		"How long ago the last ping of the backend was.", []string{"circle", "backend"}, nil)
	measurementsDescription = prometheus.NewDesc("ringmaster_backend_measurements",
		"Measurements that the backend held when /health was last asked, by whether it owns them.", []string{"circle", "backend", "place"}, nil)
	epochDescription = prometheus.NewDesc("ringmaster_topology_epoch",
		"The epoch of the topology that this process works with.", nil, nil)
)

// operationMetrics counts operations by kind and state.
type operationMetrics struct {
	list func(f operation.Filter, cursor string, limit int) ([]operation.Operation, string, error)
}

func (operationMetrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- openDescription
	ch <- endedDescription
}

// pageOfOperations is how many operations are looked at a time.
const pageOfOperations = 1000

func (m operationMetrics) Collect(ch chan<- prometheus.Metric) {
	counts := map[[2]string]int{}
	for cursor, more := "", true; more; {
		page, next, err := m.list(operation.Filter{}, cursor, pageOfOperations)
		if err != nil {
			return // the next scrape shows them
		}
		for i := range page {
			counts[[2]string{string(page[i].Kind), string(page[i].State)}]++
		}
		cursor, more = next, next != ""
	}
	for labels, n := range counts {
		description := openDescription
		if operation.State(labels[1]).Terminal() {
			description = endedDescription
		}
		ch <- prometheus.MustNewConstMetric(description, prometheus.GaugeValue, float64(n), labels[0], labels[1])
	}
}

// backendMetrics shows what the probes have found and the census has counted. It
// asks no backend.
type backendMetrics struct {
	topology func() *topology.Topology
	status   func(context.Context) map[string]health.Status
	known    func(context.Context) map[string]health.Load
	now      func() time.Time
}

func (backendMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{upDescription, storesDescription, ageDescription, measurementsDescription, epochDescription} {
		ch <- d
	}
}

func (m backendMetrics) Collect(ch chan<- prometheus.Metric) {
	t := m.topology()
	if t == nil {
		return
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(epochDescription, float64(t.Epoch))
	status, known, now := m.status(context.Background()), m.known(context.Background()), m.now()
	for _, c := range t.Circles {
		for _, b := range c.Backends {
			s, labels := status[b.URL], []string{strconv.Itoa(c.ID), b.Name}
			if s.CheckedAt.IsZero() {
				continue
			}
			gauge(upDescription, truth(s.Active), labels...)
			gauge(ageDescription, now.Sub(s.CheckedAt).Seconds(), labels...)
			if s.Writes != health.WritesUnknown {
				gauge(storesDescription, truth(s.Writes == health.WritesStored), labels...)
			}
			l := known[b.Name]
			if l.Databases == nil {
				continue
			}
			in, out := 0, 0
			for _, n := range l.Databases {
				in += n.InPlace
				out += n.Measurements - n.InPlace
			}
			gauge(measurementsDescription, float64(in), append(labels, "right")...)
			gauge(measurementsDescription, float64(out), append(labels, "wrong")...)
		}
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
