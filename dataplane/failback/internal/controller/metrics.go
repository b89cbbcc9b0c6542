package controller

import "github.com/prometheus/client_golang/prometheus"

// Metrics of the controller, all named fleet_failback_*.
type Metrics struct {
	Rescheduled    *prometheus.CounterVec
	Restore        *prometheus.HistogramVec
	Pending        *prometheus.GaugeVec
	StuckWorks     prometheus.Gauge
	Resynced       *prometheus.CounterVec
	Orphans        *prometheus.GaugeVec
	OrphansDeleted *prometheus.CounterVec
	Errors         *prometheus.CounterVec
	Leader         prometheus.Gauge
	LastSync       prometheus.Gauge
}

const prefix = "fleet_failback_"

// NewMetrics makes them and registers them.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: prefix + name, Help: help}, labels)
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: prefix + name, Help: help})
	}
	gauges := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: prefix + name, Help: help}, labels)
	}
	made := &Metrics{
		Rescheduled: counter("rescheduled_total", "Models given back their share, by result: restored, failed, interrupted.", "model", "cluster", "result"),
		Restore: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: prefix + "restore_seconds", Help: "From the moment a cluster is Ready and untainted until a model has its declared division again.",
			Buckets: []float64{5, 10, 20, 30, 45, 60, 90, 120, 300, 600, 1800},
		}, []string{"cluster"}),
		Pending:        gauges("bindings", "Bindings that are not in place, by state: due, settling, held, busy, unsupported.", "state"),
		StuckWorks:     gauge("stuck_works", "Works marked failed though their object exists."),
		Resynced:       counter("works_resynced_total", "Works that were re-synced for that.", "cluster"),
		Orphans:        gauges("orphans", "Objects on members without a Work that were not deleted, by reason: unconfirmed, predates-join, too-many.", "cluster", "reason"),
		OrphansDeleted: counter("orphans_deleted_total", "Objects on members without a Work that were deleted.", "cluster", "kind"),
		Errors:         counter("errors_total", "Rounds that failed.", "loop"),
		Leader:         gauge("leader", "1 in the replica that acts."),
		LastSync:       gauge("last_successful_sync_timestamp_seconds", "When a round last ended without an error."),
	}
	registry.MustRegister(made.Rescheduled, made.Restore, made.Pending, made.StuckWorks, made.Resynced, made.Orphans, made.OrphansDeleted, made.Errors, made.Leader, made.LastSync)
	return made
}
