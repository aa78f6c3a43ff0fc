package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"ringmaster/pkg/controller"
)

// historyMetrics shows what the history of operations takes, and what was repaired, in
// the process that looks after it.
type historyMetrics struct {
	retention               *controller.Retention
	sweeper                 *controller.Sweeper
	bytes, removed, repairs *prometheus.Desc
}

func newHistoryMetrics(r *controller.Retention, s *controller.Sweeper) historyMetrics {
	return historyMetrics{
		retention: r, sweeper: s,
		repairs: description("sweeper_repairs_total", "What this process has found not to fit together, and repaired.", "what"),
		bytes:   description("history_bytes", "Bytes of operations with their tasks, plans and reports, when this process last measured them.", "part"),
		removed: description("history_removed_total", "Ended operations that this process has removed from the history."),
	}
}

func (m historyMetrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- m.bytes
	ch <- m.removed
	ch <- m.repairs
}

func (m historyMetrics) Collect(ch chan<- prometheus.Metric) {
	ch <- prometheus.MustNewConstMetric(m.removed, prometheus.CounterValue, float64(m.retention.Removed()))
	repaired := m.sweeper.Repaired()
	for _, what := range controller.Repairs() {
		ch <- prometheus.MustNewConstMetric(m.repairs, prometheus.CounterValue, float64(repaired[what]), what)
	}
	usage, ok := m.retention.Usage()
	if !ok {
		return
	}
	for part, n := range map[string]uint64{"operations": usage.Operations, "tasks": usage.Tasks, "keys": usage.Keys, "documents": usage.Documents} {
		ch <- prometheus.MustNewConstMetric(m.bytes, prometheus.GaugeValue, float64(n), part)
	}
}
