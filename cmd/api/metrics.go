package main

import (
	"context"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"ringmaster/pkg/health"
	"ringmaster/pkg/notify"
	"ringmaster/pkg/operation"
	"ringmaster/pkg/topology"
)

// description makes the name of a metric. No label has more values than there are
// backends, or kinds and states of operations.
func description(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("ringmaster_"+name, help, labels, nil)
}

// operationMetrics counts operations by kind and state.
type operationMetrics struct {
	list        func(f operation.Filter, cursor string, limit int) ([]operation.Operation, string, error)
	open, ended *prometheus.Desc
}

func newOperationMetrics(list func(operation.Filter, string, int) ([]operation.Operation, string, error)) operationMetrics {
	return operationMetrics{
		list:  list,
		open:  description("operations_open", "Operations that have not ended.", "kind", "state"),
		ended: description("operations_ended", "Operations that have ended, among the newest that this process remembers.", "kind", "state"),
	}
}

func (m operationMetrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- m.open
	ch <- m.ended
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
		d := m.open
		if operation.State(labels[1]).Terminal() {
			d = m.ended
		}
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n), labels[0], labels[1])
	}
}

// backendMetrics shows what the probes have found and the census has counted. It
// asks no backend.
type backendMetrics struct {
	topology func() *topology.Topology
	status   func(context.Context) map[string]health.Status
	known    func(context.Context) map[string]health.Load
	now      func() time.Time

	epoch, up, stores, age, measurements *prometheus.Desc
}

func newBackendMetrics(t health.Topology, p *health.Prober, c *health.Census, now func() time.Time) backendMetrics {
	return backendMetrics{
		topology: t.Current, status: p.Backends, known: c.Known, now: now,
		epoch: description("topology_epoch", "The epoch of the topology that this process works with."),
		up:    description("backend_up", "Whether the backend answered the last ping.", "circle", "backend"),
		stores: description("backend_stores",
			"Whether the backend stored and gave back the last point that was written to it; absent when none was.", "circle", "backend"),
		age: description("backend_probe_age_seconds", "How long ago the last ping of the backend was.", "circle", "backend"),
		measurements: description("backend_measurements",
			"Measurements that the backend held when /health was last asked, by whether it owns them.", "circle", "backend", "place"),
	}
}

func (m backendMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.epoch, m.up, m.stores, m.age, m.measurements} {
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
	gauge(m.epoch, float64(t.Epoch))
	status, known, now := m.status(context.Background()), m.known(context.Background()), m.now()
	for _, c := range t.Circles {
		for _, b := range c.Backends {
			s, circle := status[b.URL], strconv.Itoa(c.ID)
			if s.CheckedAt.IsZero() {
				continue
			}
			gauge(m.up, truth(s.Active), circle, b.Name)
			gauge(m.age, now.Sub(s.CheckedAt).Seconds(), circle, b.Name)
			if s.Writes != health.WritesUnknown {
				gauge(m.stores, truth(s.Writes == health.WritesStored), circle, b.Name)
			}
			l := known[b.Name]
			if l.Databases == nil {
				continue
			}
			owned, others := 0, 0
			for _, n := range l.Databases {
				owned += n.InPlace
				others += n.Measurements - n.InPlace
			}
			gauge(m.measurements, float64(owned), circle, b.Name, "right")
			gauge(m.measurements, float64(others), circle, b.Name, "wrong")
		}
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// webhookMetrics counts what this process has told the webhook.
type webhookMetrics struct {
	counts   func() notify.Counts
	notices  *prometheus.Desc
	failures *prometheus.Desc
}

func newWebhookMetrics(counts func() notify.Counts) webhookMetrics {
	return webhookMetrics{
		counts:   counts,
		notices:  description("webhook_notices_total", "Notices that the webhook has taken, or that were given up.", "result"),
		failures: description("webhook_failures_total", "Tries to tell the webhook that came to nothing."),
	}
}

func (m webhookMetrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- m.notices
	ch <- m.failures
}

func (m webhookMetrics) Collect(ch chan<- prometheus.Metric) {
	c := m.counts()
	ch <- prometheus.MustNewConstMetric(m.notices, prometheus.CounterValue, float64(c.Delivered), "delivered")
	ch <- prometheus.MustNewConstMetric(m.notices, prometheus.CounterValue, float64(c.GivenUp), "given_up")
	ch <- prometheus.MustNewConstMetric(m.failures, prometheus.CounterValue, float64(c.Failed))
}
