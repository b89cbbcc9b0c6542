// Package controller gives clusters that came back the replicas that are declared for them, one model at a time.
//
// Level-based: every round judges what the hub holds now, and what a round remembers only delays: a restart loses nothing
// but some seconds. shares.go acts on bindings, works.go on Works, orphans.go on the objects of members.
package controller

import (
	"context"
	"errors"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"

	"inference-fleet/dataplane/failback/internal/karmada"
)

// Options of the controller. Durations that are zero mean no wait.
type Options struct {
	// Kinds of the objects whose bindings are watched, as `Kind.group`.
	Kinds []string
	// StableFor is how long a cluster must be Ready with the same taints before it is given anything.
	StableFor time.Duration
	// Interval lies between two models.
	Interval time.Duration
	// SettleTimeout bounds the wait for a rescheduled model to be healthy before the next one's turn.
	SettleTimeout time.Duration
	// Within bounds the waits of all models that are due at the same time: with many of them, each gets less.
	Within time.Duration
	// ScheduleTimeout bounds the wait for the declared division after a request.
	ScheduleTimeout time.Duration
	// Backoff and MaxBackoff: the pause after a request without effect, doubled with each.
	Backoff, MaxBackoff time.Duration
	// DryRun logs what would be done and does nothing.
	DryRun bool
}

const (
	// resync is the longest pause between two rounds: what no event announces is found then.
	resync = 10 * time.Second
	// gap is the shortest one.
	gap = 200 * time.Millisecond
	// callTimeout bounds one call of the API server.
	callTimeout = 10 * time.Second
	maxRetry    = 30 * time.Second
)

// Recorder writes events. record.EventRecorder satisfies it.
type Recorder interface {
	Event(object *corev1.ObjectReference, kind, reason, message string)
}

// Controller is not safe for concurrent use: Run is its only goroutine.
type Controller struct {
	options  Options
	hub      dynamic.Interface
	clusters cache.Store
	bindings cache.Store
	works    cache.Store
	recorder Recorder
	metrics  *Metrics
	clock    clock.Clock
	log      *slog.Logger

	well     map[string]wellness
	attempts map[types.UID]attempt
	current  *flight
	notYet   time.Time
	// waitsEnd is when no model of those that are due now is waited for any more.
	waitsEnd time.Time
	resynced map[types.UID]attempt
}

// New makes a controller on stores that somebody else keeps filled.
func New(options Options, hub dynamic.Interface, clusters, bindings, works cache.Store, recorder Recorder, metrics *Metrics, clock clock.Clock, log *slog.Logger) *Controller {
	return &Controller{
		options: options, hub: hub, clusters: clusters, bindings: bindings, works: works,
		recorder: recorder, metrics: metrics, clock: clock, log: log,
		well: map[string]wellness{}, attempts: map[types.UID]attempt{}, resynced: map[types.UID]attempt{},
	}
}

// Run works until the context ends. changed: something in a store changed.
func (c *Controller) Run(ctx context.Context, changed <-chan struct{}) {
	failures := 0
	for ctx.Err() == nil {
		next, err := c.Round(ctx)
		if err != nil {
			failures++
			c.metrics.Errors.WithLabelValues("sync").Inc()
			c.log.Error("round failed", "error", err)
			next = min(time.Second<<min(failures-1, 5), maxRetry)
		} else {
			failures = 0
		}
		if !c.sleep(ctx, gap) {
			return
		}
		timer := c.clock.NewTimer(next)
		select {
		case <-ctx.Done():
		case <-changed:
		case <-timer.C():
		}
		timer.Stop()
	}
}

// Round judges everything once. It returns the time after which another one may find something to do without an event.
func (c *Controller) Round(ctx context.Context) (time.Duration, error) {
	members, err := c.observe()
	if err != nil {
		return 0, err
	}
	shares, sharesErr := c.syncShares(ctx, members)
	works, worksErr := c.syncWorks(ctx, members)
	if err := errors.Join(sharesErr, worksErr); err != nil {
		return 0, err
	}
	c.metrics.LastSync.Set(float64(c.clock.Now().UnixMilli()) / 1000)
	return max(gap, min(shares, works, resync)), nil
}

func (c *Controller) sleep(ctx context.Context, pause time.Duration) bool {
	timer := c.clock.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C():
		return true
	}
}

// attempt counts tries of one thing.
type attempt struct {
	// of is what was tried; another goal begins anew.
	of     string
	count  int
	before time.Time
}

func (a attempt) next(of string, now time.Time, base, most time.Duration) attempt {
	if a.of != of {
		a = attempt{of: of}
	}
	a.before = now.Add(min(base<<min(a.count, 16), most))
	a.count++
	return a
}

func decoded[T any](store cache.Store) ([]*T, error) {
	items := store.List()
	found := make([]*T, 0, len(items))
	for _, each := range items {
		object, err := karmada.Decode[T](each.(*unstructured.Unstructured))
		if err != nil {
			return nil, err
		}
		found = append(found, object)
	}
	return found, nil
}
