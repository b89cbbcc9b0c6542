package controller

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"inference-fleet/dataplane/failback/internal/karmada"
	"inference-fleet/dataplane/failback/internal/share"
)

// Reasons of events.
const (
	ReasonRequested = "FailbackRequested"
	ReasonRestored  = "FailbackRestored"
	ReasonFailed    = "FailbackFailed"
	ReasonCancelled = "EvictionCancelled"
)

// Results of the metric rescheduled_total.
const (
	resultRestored    = "restored"
	resultFailed      = "failed"
	resultInterrupted = "interrupted"
)

const (
	// rebalancerTTL is for a request that we did not live to delete. Karmada counts it from the end of the request.
	rebalancerTTL = 60
	// poll is the pause while something in flight is waited for that an event will announce: only a bound.
	poll = time.Second
	// maxName of an object on the hub.
	maxName = 253
)

// wellness is since when a cluster looks as it does.
type wellness struct {
	looks string
	since time.Time
}

// flight is the one model that is being given back its share.
type flight struct {
	uid       types.UID
	namespace string
	name      string
	model     string
	began     time.Time
	goal      string
	short     []string
	wellSince map[string]time.Time
	request   string
	restored  time.Time
	settle    time.Duration
}

type judged struct {
	*karmada.Binding
	share.Verdict
}

// observe reads the clusters and notes for how long each has looked as it does.
func (c *Controller) observe() (map[string]share.Member, error) {
	clusters, err := decoded[karmada.Cluster](c.clusters)
	if err != nil {
		return nil, fmt.Errorf("clusters: %w", err)
	}
	now := c.clock.Now()
	members := make(map[string]share.Member, len(clusters))
	well := make(map[string]wellness, len(clusters))
	for _, cluster := range clusters {
		// The time of the transition shows a flap that fell between two rounds.
		ready := cluster.Ready()
		looks := fmt.Sprint(ready.Status, ready.LastTransitionTime.Unix())
		for _, taint := range cluster.Spec.Taints {
			looks += fmt.Sprintf(" %s=%s:%s", taint.Key, taint.Value, taint.Effect)
		}
		known, ok := c.well[cluster.Name]
		if !ok || known.looks != looks {
			known = wellness{looks, now}
		}
		well[cluster.Name] = known
		members[cluster.Name] = share.Member{Cluster: cluster, WellFor: now.Sub(known.since)}
	}
	c.well = well
	return members, nil
}

// syncShares advances the model in flight, or begins with the next one that is due.
func (c *Controller) syncShares(ctx context.Context, members map[string]share.Member) (time.Duration, error) {
	bindings, err := decoded[karmada.Binding](c.bindings)
	if err != nil {
		return 0, fmt.Errorf("bindings: %w", err)
	}
	now := c.clock.Now()
	next := resync
	var due []judged
	alive := map[types.UID]judged{}
	states := map[share.State]float64{share.Held: 0, share.Settling: 0, share.Due: 0, share.Busy: 0, share.Unsupported: 0}
	for _, binding := range bindings {
		if !c.watches(binding) {
			continue
		}
		each := judged{binding, share.Judge(binding, members, c.options.StableFor)}
		alive[binding.UID] = each
		if _, counted := states[each.State]; counted {
			states[each.State]++
		}
		switch each.State {
		case share.Settling:
			next = min(next, each.Wait)
		case share.Due:
			if tried := c.attempts[binding.UID]; tried.of == share.Text(each.Declared) && now.Before(tried.before) {
				next = min(next, tried.before.Sub(now))
			} else {
				due = append(due, each)
			}
		}
	}
	for state, count := range states {
		c.metrics.Pending.WithLabelValues(string(state)).Set(count)
	}
	for uid := range c.attempts {
		if _, ok := alive[uid]; !ok {
			delete(c.attempts, uid)
		}
	}
	if c.current != nil {
		each, ok := alive[c.current.uid]
		if !ok {
			c.land(ctx)
		} else if err := c.advance(ctx, each); err != nil {
			return 0, err
		}
	}
	if c.current != nil {
		return min(next, poll), nil
	}
	if len(due) == 0 {
		c.waitsEnd = time.Time{}
		return next, nil
	}
	if c.waitsEnd.IsZero() {
		c.waitsEnd = now.Add(c.options.Within)
	}
	if now.Before(c.notYet) {
		return min(next, c.notYet.Sub(now)), nil
	}
	// Those that failed come last, so that one that cannot be divided as declared keeps nobody waiting.
	slices.SortFunc(due, func(a, b judged) int {
		return cmp.Or(cmp.Compare(c.attempts[a.UID].count, c.attempts[b.UID].count), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	each := max(0, c.waitsEnd.Sub(now)) / time.Duration(len(due))
	return min(next, poll), c.begin(ctx, due[0], min(each, c.options.SettleTimeout))
}

func (c *Controller) watches(binding *karmada.Binding) bool {
	group, _, _ := strings.Cut(binding.Spec.Resource.APIVersion, "/")
	return slices.Contains(c.options.Kinds, binding.Spec.Resource.Kind+"."+group)
}

func (c *Controller) begin(ctx context.Context, each judged, settle time.Duration) error {
	log := c.log.With("model", each.Spec.Resource.Name, "short", each.Short, "held", share.Text(each.Held()), "declared", share.Text(each.Declared))
	if c.options.DryRun {
		log.Info("would reschedule")
		c.attempts[each.UID] = c.attempts[each.UID].next(share.Text(each.Declared), c.clock.Now(), c.options.Backoff, c.options.MaxBackoff)
		return nil
	}
	log.Info("rescheduling", "reason", each.Reason)
	c.current = &flight{
		uid: each.UID, namespace: each.Namespace, name: each.Name, model: each.Spec.Resource.Name,
		began: c.clock.Now(), goal: share.Text(each.Declared), short: each.Short, wellSince: map[string]time.Time{}, settle: settle,
	}
	for _, name := range each.Short {
		c.current.wellSince[name] = c.well[name].since
	}
	return c.advance(ctx, each)
}

// advance does the next step of the model in flight, if there is one to do.
func (c *Controller) advance(ctx context.Context, each judged) error {
	now := c.clock.Now()
	switch {
	case each.State == share.InPlace:
		c.arrived(ctx, each)
		return nil
	case !c.current.restored.IsZero():
		// It was in place and is no more, or the scheduler is at it again: another turn.
		if each.State != share.Busy {
			c.land(ctx)
		}
		return nil
	case each.State == share.Held || each.State == share.Settling || each.State == share.Unsupported:
		c.log.Warn("interrupted", "model", c.current.model, "reason", each.Reason)
		c.count(resultInterrupted)
		c.land(ctx)
		return nil
	case now.Sub(c.current.began) >= c.options.ScheduleTimeout:
		c.failed(ctx, each)
		return nil
	case each.State == share.Busy:
		return nil
	case len(each.Stale) > 0:
		return c.cancelEvictions(ctx, each)
	case c.current.request == "":
		return c.request(ctx, each)
	}
	return nil
}

// arrived keeps the model in flight until it is healthy where it was short, so that the next one does not load beside it.
func (c *Controller) arrived(ctx context.Context, each judged) {
	now := c.clock.Now()
	if c.current.restored.IsZero() {
		c.current.restored = now
		c.count(resultRestored)
		for name, since := range c.current.wellSince {
			c.metrics.Restore.WithLabelValues(name).Observe(now.Sub(since).Seconds())
		}
		delete(c.attempts, each.UID)
		c.log.Info("declared division restored", "model", c.current.model, "clusters", c.current.short, "division", share.Text(each.Held()))
		c.event(each.Binding, corev1.EventTypeNormal, ReasonRestored, fmt.Sprintf("Declared division restored: %s.", share.Text(each.Held())))
	}
	healthy := !slices.ContainsFunc(c.current.short, func(name string) bool { return each.Held()[name] > 0 && !each.Healthy(name) })
	if healthy || now.Sub(c.current.restored) >= c.current.settle {
		c.land(ctx)
	}
}

func (c *Controller) failed(ctx context.Context, each judged) {
	tried := c.attempts[each.UID].next(share.Text(each.Declared), c.clock.Now(), c.options.Backoff, c.options.MaxBackoff)
	c.attempts[each.UID] = tried
	pause := tried.before.Sub(c.clock.Now())
	c.count(resultFailed)
	c.log.Warn("declared division not reached", "model", c.current.model, "held", share.Text(each.Held()), "declared", share.Text(each.Declared), "retryIn", pause)
	c.event(each.Binding, corev1.EventTypeWarning, ReasonFailed, fmt.Sprintf(
		"Scheduled as %s %s after the request, declared: %s; retrying in %s. See the events of the scheduler on this binding.",
		cmp.Or(share.Text(each.Held()), "nothing"), c.options.ScheduleTimeout, share.Text(each.Declared), pause))
	c.land(ctx)
}

// land ends the flight. The request is deleted: its name is free, and nobody wonders about it.
func (c *Controller) land(ctx context.Context) {
	if name := c.current.request; name != "" {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		if err := c.hub.Resource(karmada.Rebalancers).Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			c.log.Warn("request not deleted; Karmada does it", "name", name, "error", err)
		}
	}
	c.current = nil
	c.notYet = c.clock.Now().Add(c.options.Interval)
}

// request asks Karmada for a fresh division.
//
// Karmada takes the time of the request from the creation of the object, in whole seconds, and passes over one that is not
// later than the last division and the last request. So an object from before is replaced, and one of the same second too.
func (c *Controller) request(ctx context.Context, each judged) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	client := c.hub.Resource(karmada.Rebalancers)
	wanted := rebalancer(each.Binding)
	made, err := client.Create(ctx, wanted, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		if err := client.Delete(ctx, wanted.GetName(), metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete an earlier request %s: %w", wanted.GetName(), err)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("request a fresh division of %s: %w", each.Name, err)
	}
	at := made.GetCreationTimestamp()
	for _, before := range []*metav1.Time{each.Status.LastScheduledTime, each.Spec.RescheduleTriggeredAt} {
		if before != nil && !at.After(before.Time) {
			uid := made.GetUID()
			err := client.Delete(ctx, made.GetName(), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
			if err != nil && !apierrors.IsNotFound(err) {
				return fmt.Errorf("delete a request of the same second %s: %w", made.GetName(), err)
			}
			return nil
		}
	}
	c.current.request = made.GetName()
	c.event(each.Binding, corev1.EventTypeNormal, ReasonRequested, fmt.Sprintf(
		"Requested a fresh division: %s; scheduled: %s, declared: %s.", each.Reason, cmp.Or(share.Text(each.Held()), "nothing"), share.Text(each.Declared)))
	return nil
}

func rebalancer(binding *karmada.Binding) *unstructured.Unstructured {
	resource := binding.Spec.Resource
	workload := map[string]any{"apiVersion": resource.APIVersion, "kind": resource.Kind, "namespace": resource.Namespace, "name": resource.Name}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": karmada.Rebalancers.GroupVersion().String(),
		"kind":       "WorkloadRebalancer",
		"metadata":   map[string]any{"name": requestName(binding)},
		"spec":       map[string]any{"workloads": []any{workload}, "ttlSecondsAfterFinished": int64(rebalancerTTL)},
	}}
}

// requestName is the same for a binding for ever: two controllers that both think they lead ask for one thing.
func requestName(binding *karmada.Binding) string {
	name := "failback." + binding.Namespace + "." + binding.Name
	if len(name) <= maxName {
		return name
	}
	return fmt.Sprintf("failback.%x", sha256.Sum256([]byte(name)))
}

// cancelEvictions takes back evictions whose taint is gone. Until they end, by health elsewhere or after ten minutes,
// Karmada's scheduler passes the cluster over. The cluster gets its replicas into the same change: were it not among the
// clusters of the binding, Karmada would delete the copy there. The sum being wrong by that, the scheduler divides anew.
func (c *Controller) cancelEvictions(ctx context.Context, each judged) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	client := c.hub.Resource(karmada.Bindings).Namespace(each.Namespace)
	live, err := client.Get(ctx, each.Name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read binding %s: %w", each.Name, err)
	}
	if live.GetResourceVersion() != each.ResourceVersion {
		// The judgement is about an older one: the event of the newer is on its way.
		return nil
	}
	if err := withoutEvictions(live, each.Stale); err != nil {
		return fmt.Errorf("binding %s: %w", each.Name, err)
	}
	if _, err := client.Update(ctx, live, metav1.UpdateOptions{}); err != nil {
		if apierrors.IsConflict(err) {
			return nil
		}
		return fmt.Errorf("cancel evictions of %s: %w", each.Name, err)
	}
	where := strings.Join(each.Stale, ", ")
	c.log.Info("eviction cancelled", "model", c.current.model, "clusters", each.Stale)
	c.event(each.Binding, corev1.EventTypeNormal, ReasonCancelled, fmt.Sprintf("Cancelled the eviction from %s: the taint is gone.", where))
	return nil
}

func withoutEvictions(binding *unstructured.Unstructured, from []string) error {
	tasks, _, err := unstructured.NestedSlice(binding.Object, "spec", "gracefulEvictionTasks")
	if err != nil {
		return err
	}
	targets, _, err := unstructured.NestedSlice(binding.Object, "spec", "clusters")
	if err != nil {
		return err
	}
	held := map[string]int64{}
	kept := []any{}
	for _, each := range tasks {
		task, _ := each.(map[string]any)
		name, _ := task["fromCluster"].(string)
		if !slices.Contains(from, name) {
			kept = append(kept, each)
			continue
		}
		replicas, _ := task["replicas"].(int64)
		held[name] = max(held[name], replicas, 1)
	}
	others := slices.DeleteFunc(targets, func(each any) bool {
		target, _ := each.(map[string]any)
		name, _ := target["name"].(string)
		_, back := held[name]
		return back
	})
	for _, name := range from {
		others = append(others, map[string]any{"name": name, "replicas": held[name]})
	}
	spec := binding.Object["spec"].(map[string]any)
	spec["clusters"] = others
	if len(kept) == 0 {
		delete(spec, "gracefulEvictionTasks")
	} else {
		spec["gracefulEvictionTasks"] = kept
	}
	return nil
}

func (c *Controller) count(result string) {
	for _, name := range c.current.short {
		c.metrics.Rescheduled.WithLabelValues(c.current.model, name, result).Inc()
	}
}

func (c *Controller) event(binding *karmada.Binding, kind, reason, message string) {
	c.recorder.Event(&corev1.ObjectReference{
		APIVersion: karmada.Bindings.GroupVersion().String(), Kind: "ResourceBinding",
		Namespace: binding.Namespace, Name: binding.Name, UID: binding.UID, ResourceVersion: binding.ResourceVersion,
	}, kind, reason, message)
}
