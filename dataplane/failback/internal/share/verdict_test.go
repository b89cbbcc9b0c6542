package share

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"inference-fleet/dataplane/failback/internal/karmada"
)

const stable = 5 * time.Second

// placement as the fleet declares it: 3:2:1, and a lost cluster is tolerated for a minute.
const bindingYAML = `
metadata: {name: chat-inferenceservice, namespace: models, generation: 4}
spec:
  resource: {apiVersion: serving.kserve.io/v1beta1, kind: InferenceService, namespace: models, name: chat}
  replicas: 6
  clusters: [{name: us-west, replicas: 4}, {name: eu-west, replicas: 2}]
  placement:
    clusterAffinity: {clusterNames: [eu-west, us-east, us-west]}
    clusterTolerations: [{key: lost, operator: Exists, effect: NoExecute, tolerationSeconds: 60}]
    replicaScheduling:
      replicaSchedulingType: Divided
      replicaDivisionPreference: Weighted
      weightPreference:
        staticWeightList:
        - {targetCluster: {clusterNames: [us-east]}, weight: 3}
        - {targetCluster: {clusterNames: [us-west]}, weight: 2}
        - {targetCluster: {clusterNames: [eu-west]}, weight: 1}
status: {schedulerObservedGeneration: 4}
`

func decode[T any](t *testing.T, text string) *T {
	t.Helper()
	object := map[string]any{}
	if err := yaml.Unmarshal([]byte(text), &object); err != nil {
		t.Fatal(err)
	}
	found, err := karmada.Decode[T](&unstructured.Unstructured{Object: integers(object).(map[string]any)})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// integers as an API server's client reads them.
func integers(value any) any {
	switch value := value.(type) {
	case map[string]any:
		for key, each := range value {
			value[key] = integers(each)
		}
	case []any:
		for index, each := range value {
			value[index] = integers(each)
		}
	case float64:
		return int64(value)
	}
	return value
}

func member(t *testing.T, name string, wellFor time.Duration, change func(*karmada.Cluster)) Member {
	t.Helper()
	cluster := decode[karmada.Cluster](t, `
status:
  conditions: [{type: Ready, status: "True"}]
  apiEnablements: [{groupVersion: serving.kserve.io/v1beta1, resources: [{kind: InferenceService}]}]
`)
	cluster.Name = name
	if change != nil {
		change(cluster)
	}
	return Member{cluster, wellFor}
}

func taint(key string, effect corev1.TaintEffect) func(*karmada.Cluster) {
	return func(cluster *karmada.Cluster) {
		cluster.Spec.Taints = append(cluster.Spec.Taints, corev1.Taint{Key: key, Effect: effect})
	}
}

func down(cluster *karmada.Cluster) {
	cluster.Status.Conditions[0].Status = metav1.ConditionFalse
	taint("cluster.karmada.io/not-ready", corev1.TaintEffectNoSchedule)(cluster)
	taint("lost", corev1.TaintEffectNoExecute)(cluster)
}

func evict(cluster, producer, reason string) func(*karmada.Binding) {
	return func(binding *karmada.Binding) {
		binding.Spec.EvictionTasks = append(binding.Spec.EvictionTasks, karmada.EvictionTask{FromCluster: cluster, Producer: producer, Reason: reason})
	}
}

func byTaint(cluster string) func(*karmada.Binding) {
	return evict(cluster, "TaintManager", "TaintUntolerated")
}

func holds(targets ...karmada.Target) func(*karmada.Binding) {
	return func(binding *karmada.Binding) { binding.Spec.Clusters = targets }
}

func TestWhatIsToBeDoneAboutABinding(t *testing.T) {
	all := []karmada.Target{{Name: "us-east", Replicas: 3}, {Name: "us-west", Replicas: 2}, {Name: "eu-west", Replicas: 1}}
	for _, each := range []struct {
		name    string
		binding func(*karmada.Binding)
		east    func(*karmada.Cluster)
		west    func(*karmada.Cluster)
		wellFor time.Duration
		state   State
		reason  string
		want    string
		stale   string
	}{
		{name: "a region came back", state: Due, want: "eu-west 1, us-east 3, us-west 2", reason: "us-east below"},
		{name: "everything is in place", binding: holds(all...), state: InPlace, want: "eu-west 1, us-east 3, us-west 2"},
		{name: "it came back just now", wellFor: stable - time.Second, state: Settling, reason: "us-east has been Ready"},
		{name: "it is still away", east: down, state: InPlace, want: "eu-west 2, us-west 4"},
		{name: "it is away and keeps its replicas for now", binding: holds(all...), east: down, state: InPlace, want: "eu-west 1, us-east 3, us-west 2"},
		{name: "it is Ready and the taint is still there", east: taint("lost", corev1.TaintEffectNoExecute), state: Held, reason: "taint lost:NoExecute"},
		{name: "somebody cordoned it", east: taint("cluster.karmada.io/unschedulable", corev1.TaintEffectNoSchedule), state: InPlace, want: "eu-west 2, us-west 4"},
		{
			name: "somebody cordoned it while it holds a part", state: Held, reason: "taint cluster.karmada.io/unschedulable:NoSchedule",
			binding: holds(karmada.Target{Name: "us-east", Replicas: 1}, karmada.Target{Name: "us-west", Replicas: 5}),
			east:    taint("cluster.karmada.io/unschedulable", corev1.TaintEffectNoSchedule),
		},
		{name: "a taint that only prefers", east: taint("slow", corev1.TaintEffectPreferNoSchedule), state: Due},
		{
			name: "a taint that is tolerated for good", east: taint("spot", corev1.TaintEffectNoExecute), state: Due,
			binding: func(binding *karmada.Binding) {
				binding.Spec.Placement.ClusterTolerations = append(binding.Spec.Placement.ClusterTolerations, corev1.Toleration{Key: "spot", Operator: "Exists"})
			},
		},
		{name: "it leaves the federation", east: func(c *karmada.Cluster) { c.DeletionTimestamp = &metav1.Time{} }, state: InPlace},
		{name: "it does not report the kind", east: func(c *karmada.Cluster) { c.Status.APIEnablements = nil }, state: InPlace, want: "eu-west 2, us-west 4"},
		{name: "its eviction has lost its cause", binding: byTaint("us-east"), state: Due, want: "eu-west 1, us-east 3, us-west 2", stale: "us-east"},
		{name: "its eviction lost its cause just now", binding: byTaint("us-east"), wellFor: time.Second, state: Settling, reason: "an evicted cluster"},
		{name: "its eviction still has its cause", binding: byTaint("us-east"), east: down, state: InPlace, want: "eu-west 2, us-west 4"},
		{name: "somebody else evicts it", binding: evict("us-east", "descheduler", "Drain"), state: InPlace, want: "eu-west 2, us-west 4"},
		{name: "the model failed there", binding: evict("us-east", "TaintManager", "ApplicationFailure"), state: InPlace},
		{
			name: "a taint and somebody else evict it", state: InPlace, want: "eu-west 2, us-west 4",
			binding: func(b *karmada.Binding) { byTaint("us-east")(b); evict("us-east", "descheduler", "Drain")(b) },
		},
		{name: "another region is away and keeps its replicas", west: down, state: Due, want: "eu-west 1, us-east 3, us-west 2"},
		{
			name: "another one is away and would gain", west: down, state: Held, reason: "cluster us-west: not Ready",
			binding: holds(karmada.Target{Name: "us-west", Replicas: 1}, karmada.Target{Name: "eu-west", Replicas: 5}),
		},
		{name: "the scheduler is at it", binding: func(b *karmada.Binding) { b.Generation++ }, state: Busy},
		{
			// It notes no generation for which it found no cluster: the only one of a model was evicted.
			name: "the scheduler found no cluster", state: Due, want: "eu-west 1, us-east 3, us-west 2", stale: "us-east",
			binding: func(b *karmada.Binding) {
				byTaint("us-east")(b)
				holds()(b)
				b.Generation++
				b.Status.Conditions = []metav1.Condition{{Type: "Scheduled", Status: metav1.ConditionFalse, Reason: "NoClusterFit"}}
			},
		},
		{name: "weights by free capacity", binding: func(b *karmada.Binding) {
			b.Spec.Placement.ReplicaScheduling.WeightPreference.Dynamic = "AvailableReplicas"
		}, state: Unsupported},
		{name: "copied to all", binding: func(b *karmada.Binding) { b.Spec.Placement.ReplicaScheduling.Type = "Duplicated" }, state: Unsupported},
		{name: "no placement yet", binding: func(b *karmada.Binding) { b.Spec.Placement = nil }, state: Unsupported},
		{name: "chosen by a field", binding: func(b *karmada.Binding) { b.Spec.Placement.ClusterAffinity.FieldSelector = &struct{}{} }, state: Unsupported},
		{name: "no replicas", binding: func(b *karmada.Binding) { b.Spec.Replicas = 0 }, state: Unsupported},
		{
			name: "weights that are left out are equal", state: Due, want: "eu-west 2, us-east 2, us-west 2",
			binding: func(b *karmada.Binding) { b.Spec.Placement.ReplicaScheduling.WeightPreference = nil },
		},
		{
			name: "not in the affinity", state: InPlace, want: "eu-west 2, us-west 4",
			binding: func(b *karmada.Binding) {
				b.Spec.Placement.ClusterAffinity.ClusterNames = []string{"eu-west", "us-west"}
			},
		},
		{
			name: "excluded by name", state: InPlace,
			binding: func(b *karmada.Binding) { b.Spec.Placement.ClusterAffinity.Exclude = []string{"us-east"} },
		},
		{
			name: "chosen by labels", state: Due, want: "us-west 6",
			binding: func(b *karmada.Binding) {
				b.Spec.Placement.ClusterAffinity.LabelSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"tier": "gold"}}
			},
			west: func(c *karmada.Cluster) { c.Labels = map[string]string{"tier": "gold"} },
		},
		{name: "nothing is held anywhere", binding: holds(), state: Due, want: "eu-west 1, us-east 3, us-west 2"},
	} {
		t.Run(each.name, func(t *testing.T) {
			binding := decode[karmada.Binding](t, bindingYAML)
			if each.binding != nil {
				each.binding(binding)
			}
			wellFor := stable
			if each.wellFor != 0 {
				wellFor = each.wellFor
			}
			members := map[string]Member{
				"us-east": member(t, "us-east", wellFor, each.east),
				"us-west": member(t, "us-west", time.Hour, each.west),
				"eu-west": member(t, "eu-west", time.Hour, nil),
				"unnamed": member(t, "unnamed", time.Hour, nil),
			}
			got := Judge(binding, members, stable)
			if got.State != each.state || !strings.Contains(got.Reason, each.reason) {
				t.Fatalf("got %s (%s), want %s (%s)", got.State, got.Reason, each.state, each.reason)
			}
			if each.want != "" && Text(got.Declared) != each.want {
				t.Errorf("declared %q, want %q", Text(got.Declared), each.want)
			}
			if stale := strings.Join(got.Stale, ","); stale != each.stale {
				t.Errorf("stale evictions %q, want %q", stale, each.stale)
			}
			if got.State == Settling && got.Wait != stable-wellFor {
				t.Errorf("waits %s", got.Wait)
			}
		})
	}
}

func TestARequestWaitsForAnEvictedClusterThatIsAlmostStable(t *testing.T) {
	binding := decode[karmada.Binding](t, bindingYAML)
	byTaint("us-east")(binding)
	holds(karmada.Target{Name: "us-west", Replicas: 6})(binding)
	members := map[string]Member{
		"us-east": member(t, "us-east", time.Second, nil),
		"us-west": member(t, "us-west", time.Hour, nil),
		"eu-west": member(t, "eu-west", time.Hour, nil),
	}
	// eu-west could have its share at once, and would get it from a division that has to be made again for us-east.
	if got := Judge(binding, members, stable); got.State != Settling || got.Wait != stable-time.Second {
		t.Errorf("got %s for %s", got.State, got.Wait)
	}
}
