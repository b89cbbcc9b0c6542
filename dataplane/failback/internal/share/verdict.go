package share

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"inference-fleet/dataplane/failback/internal/karmada"
)

// State is what is to be done about a binding.
type State string

const (
	// Unsupported: its placement has no declared division, or somebody suspended its scheduling.
	Unsupported State = "unsupported"
	// InPlace: every cluster holds what is declared.
	InPlace State = "in-place"
	// Busy: the scheduler has not yet seen the latest change.
	Busy State = "busy"
	// Held: a cluster lacks replicas, and nobody may give it any now.
	Held State = "held"
	// Settling: the same, until the cluster has been well for long enough.
	Settling State = "settling"
	// Due: a fresh division is to be requested.
	Due State = "due"
)

// Verdict is the judgement on one binding.
type Verdict struct {
	State State
	// Reason is for people.
	Reason string
	// Declared is the division that the scheduler would make of its own accord now.
	Declared map[string]int32
	// Short names the clusters that hold less than declared.
	Short []string
	// Stale names clusters whose eviction has lost its cause: the taint is gone and they have been well for long enough.
	Stale []string
	// Wait is the time until a Settling verdict may change.
	Wait time.Duration
}

// Member is a cluster, and for how long it has been Ready with the taints that it has now.
type Member struct {
	*karmada.Cluster
	WellFor time.Duration
}

// Judge compares what the clusters of a binding hold with what is declared.
//
// Declared is what Karmada's scheduler makes of the static weights over the clusters that it would choose today: matched by
// the affinity, serving the kind, without an untolerated taint and without an eviction. Capacity is no part of it, as it is
// none of Karmada's static division. A request is due when every cluster that would gain replicas has been well for
// stableFor: a fresh division cannot be limited to some clusters.
func Judge(binding *karmada.Binding, members map[string]Member, stableFor time.Duration) Verdict {
	spec := &binding.Spec
	weights, ok := staticWeights(spec.Placement)
	suspended := spec.Suspension != nil && spec.Suspension.Scheduling != nil && *spec.Suspension.Scheduling
	if !ok || suspended || spec.Replicas == 0 || binding.DeletionTimestamp != nil {
		return Verdict{State: Unsupported, Reason: "no static weights, no replicas, suspended or deleted"}
	}
	if !binding.Observed() {
		return Verdict{State: Busy, Reason: "the scheduler has not observed the latest generation"}
	}
	stale := staleEvictions(binding, members, stableFor)
	held := binding.Held()
	chosen := map[string]int64{}
	for name, member := range members {
		if weight := weights(member.Cluster); weight > 0 && feasible(binding, member, slices.Contains(stale, name)) {
			chosen[name] = weight
		}
	}
	verdict := Verdict{Declared: Divide(spec.Replicas, chosen, spec.Resource.UID), Stale: stale}
	var settling []string
	for name, want := range verdict.Declared {
		if want <= held[name] {
			continue
		}
		verdict.Short = append(verdict.Short, name)
		member := members[name]
		if reason := unwell(member.Cluster, spec.Placement.ClusterTolerations); reason != "" {
			verdict.State, verdict.Reason = Held, fmt.Sprintf("cluster %s: %s", name, reason)
		} else if left := stableFor - member.WellFor; left > 0 {
			verdict.Wait = max(verdict.Wait, left)
			settling = append(settling, name)
		}
	}
	slices.Sort(verdict.Short)
	switch {
	case verdict.State == Held:
	case len(settling) > 0:
		slices.Sort(settling)
		verdict.State, verdict.Reason = Settling, fmt.Sprintf("waiting until %s has been Ready and untainted for %s", strings.Join(settling, ", "), stableFor)
	case len(verdict.Short) > 0:
		verdict.State, verdict.Reason = Due, fmt.Sprintf("%s below the declared share", strings.Join(verdict.Short, ", "))
	default:
		// Evictions of clusters that shall hold nothing end by themselves.
		verdict.State, verdict.Stale = InPlace, nil
	}
	if verdict.State != Due && verdict.State != InPlace {
		return verdict
	}
	if wait := settlingEvictions(binding, members, stableFor); wait > 0 {
		verdict.State, verdict.Wait, verdict.Reason = Settling, wait, "waiting until an evicted cluster has been Ready and untainted for "+stableFor.String()
	}
	return verdict
}

// staticWeights gives a cluster's weight; false where the placement divides in another way.
func staticWeights(placement *karmada.Placement) (func(*karmada.Cluster) int64, bool) {
	if placement == nil || placement.ReplicaScheduling == nil || len(placement.ClusterAffinities) > 0 {
		return nil, false
	}
	how := placement.ReplicaScheduling
	preference := how.WeightPreference
	if how.Type != "Divided" || how.Preference != "Weighted" || preference != nil && preference.Dynamic != "" {
		return nil, false
	}
	chosenBy := []karmada.Affinity{}
	if placement.ClusterAffinity != nil {
		chosenBy = append(chosenBy, *placement.ClusterAffinity)
	}
	list := []karmada.Weight{{Weight: 1}}
	if preference != nil && len(preference.Static) > 0 {
		list = preference.Static
	}
	for _, each := range list {
		chosenBy = append(chosenBy, each.TargetCluster)
	}
	for _, each := range chosenBy {
		if each.FieldSelector != nil {
			return nil, false
		}
	}
	return func(cluster *karmada.Cluster) int64 {
		var weight int64
		if placement.ClusterAffinity != nil && !matches(cluster, *placement.ClusterAffinity) {
			return 0
		}
		for _, each := range list {
			if matches(cluster, each.TargetCluster) {
				weight = max(weight, each.Weight)
			}
		}
		return weight
	}, true
}

func matches(cluster *karmada.Cluster, affinity karmada.Affinity) bool {
	if slices.Contains(affinity.Exclude, cluster.Name) {
		return false
	}
	if affinity.LabelSelector != nil {
		selector, err := metav1.LabelSelectorAsSelector(affinity.LabelSelector)
		if err != nil || !selector.Matches(labels.Set(cluster.Labels)) {
			return false
		}
	}
	return len(affinity.ClusterNames) == 0 || slices.Contains(affinity.ClusterNames, cluster.Name)
}

// feasible tells whether the scheduler would choose the cluster (its filters ClusterEviction, APIEnablement, TaintToleration).
func feasible(binding *karmada.Binding, member Member, stale bool) bool {
	if member.DeletionTimestamp != nil || !stale && evicting(binding, member.Name) {
		return false
	}
	if _, target := binding.Held()[member.Name]; target || stale {
		return true
	}
	if !member.Serves(binding.Spec.Resource.APIVersion, binding.Spec.Resource.Kind) {
		return false
	}
	return !slices.ContainsFunc(member.Spec.Taints, func(taint corev1.Taint) bool {
		return repels(taint) && !tolerated(taint, binding.Spec.Placement.ClusterTolerations, false)
	})
}

func evicting(binding *karmada.Binding, cluster string) bool {
	return slices.ContainsFunc(binding.Spec.EvictionTasks, func(task karmada.EvictionTask) bool { return task.FromCluster == cluster })
}

// unwell says why a cluster must not be given replicas; empty where nothing speaks against it.
func unwell(cluster *karmada.Cluster, tolerations []corev1.Toleration) string {
	if ready := cluster.Ready(); ready.Status != metav1.ConditionTrue {
		return "not Ready"
	}
	for _, taint := range cluster.Spec.Taints {
		// A taint that is tolerated for some seconds is an eviction to come.
		if repels(taint) && !tolerated(taint, tolerations, true) {
			return fmt.Sprintf("taint %s:%s", taint.Key, taint.Effect)
		}
	}
	return ""
}

func repels(taint corev1.Taint) bool {
	return taint.Effect == corev1.TaintEffectNoSchedule || taint.Effect == corev1.TaintEffectNoExecute
}

func tolerated(taint corev1.Taint, tolerations []corev1.Toleration, forGood bool) bool {
	return slices.ContainsFunc(tolerations, func(each corev1.Toleration) bool {
		if forGood && taint.Effect == corev1.TaintEffectNoExecute && each.TolerationSeconds != nil {
			return false
		}
		if each.Effect != "" && each.Effect != taint.Effect || each.Key != "" && each.Key != taint.Key {
			return false
		}
		switch each.Operator {
		case corev1.TolerationOpExists:
			return true
		case "", corev1.TolerationOpEqual:
			return each.Key != "" && each.Value == taint.Value
		}
		return false
	})
}

// causedByTaint tells an eviction that Karmada began for a taint, and which nobody wants once the taint is gone. Evictions of
// other producers are a decision about the model, and stay.
func causedByTaint(task karmada.EvictionTask) bool {
	return task.Producer == karmada.ProducerTaintManager && task.Reason == karmada.ReasonTaint
}

// staleEvictions names clusters whose evictions, all of them, have lost their cause for long enough.
func staleEvictions(binding *karmada.Binding, members map[string]Member, stableFor time.Duration) []string {
	var stale []string
	for _, name := range evicted(binding) {
		member, known := members[name]
		if known && member.DeletionTimestamp == nil && unwell(member.Cluster, binding.Spec.Placement.ClusterTolerations) == "" && member.WellFor >= stableFor {
			stale = append(stale, name)
		}
	}
	return stale
}

// settlingEvictions is the time until an eviction that has lost its cause becomes stale. A request before that would divide
// without the cluster, and a second one follow.
func settlingEvictions(binding *karmada.Binding, members map[string]Member, stableFor time.Duration) time.Duration {
	var wait time.Duration
	for _, name := range evicted(binding) {
		member, known := members[name]
		if known && member.DeletionTimestamp == nil && unwell(member.Cluster, binding.Spec.Placement.ClusterTolerations) == "" {
			wait = max(wait, stableFor-member.WellFor)
		}
	}
	return wait
}

// evicted names the clusters of which every eviction was caused by a taint.
func evicted(binding *karmada.Binding) []string {
	byTaint := map[string]bool{}
	for _, task := range binding.Spec.EvictionTasks {
		before, seen := byTaint[task.FromCluster]
		byTaint[task.FromCluster] = causedByTaint(task) && (before || !seen)
	}
	var names []string
	for name, all := range byTaint {
		if all {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Text of a division: `us-east 3, us-west 2`.
func Text(division map[string]int32) string {
	var parts []string
	for name, replicas := range division {
		if replicas > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", name, replicas))
		}
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}
