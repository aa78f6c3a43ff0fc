package main

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"ringmaster/pkg/gateway/replay"
)

// hintMetrics shows how much waits for backends that can't be written to.
type hintMetrics struct {
	backlogs                        func() []replay.Backlog
	now                             func() time.Time
	bytes, limit, age, oldest, full *prometheus.Desc
}

func newHintMetrics(backlogs func() []replay.Backlog, now func() time.Time) hintMetrics {
	return hintMetrics{
		backlogs: backlogs, now: now,
		bytes:  description("hints_bytes", "Bytes, compressed, that are kept for a backend that can't be written to.", "backend", "mode"),
		limit:  description("hints_limit_bytes", "How many may be kept for it before writes for it are refused.", "backend"),
		age:    description("hints_age_seconds", "How long the oldest of them has waited.", "backend"),
		oldest: description("hints_limit_seconds", "How long it may wait before writes for the backend are refused.", "backend"),
		full:   description("hints_alarm", "1 when a bound is about to be reached, else 0.", "backend"),
	}
}

func (m hintMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.bytes, m.limit, m.age, m.oldest, m.full} {
		ch <- d
	}
}

func (m hintMetrics) Collect(ch chan<- prometheus.Metric) {
	for _, b := range m.backlogs() {
		show := func(d *prometheus.Desc, value float64, labels ...string) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
		}
		show(m.bytes, float64(b.Bytes), b.Backend, string(b.Mode))
		show(m.limit, float64(b.MaxBytes), b.Backend)
		age := time.Duration(0)
		if !b.Oldest.IsZero() {
			age = m.now().Sub(b.Oldest)
		}
		show(m.age, age.Seconds(), b.Backend)
		show(m.oldest, b.MaxAge.Seconds(), b.Backend)
		alarm := 0.0
		if b.Alarm != "" {
			alarm = 1
		}
		show(m.full, alarm, b.Backend)
	}
}
