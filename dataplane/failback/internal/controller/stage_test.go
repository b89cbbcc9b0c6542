package controller

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
	testingclock "k8s.io/utils/clock/testing"

	"inference-fleet/dataplane/failback/internal/karmada"
	"inference-fleet/dataplane/failback/internal/share"
)

// start is a whole second, as an API server notes times.
var start = time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)

// stage is a hub in memory with a scheduler that divides when it is asked to, and the controller on it.
type stage struct {
	*testing.T
	hub        *dynamicfake.FakeDynamicClient
	clock      *testingclock.FakeClock
	controller *Controller
	metrics    *Metrics
	events     []string
	stores     map[schema.GroupVersionResource]cache.Store
	// asleep: the scheduler does nothing.
	asleep bool
}

func (s *stage) Event(object *corev1.ObjectReference, _, reason, _ string) {
	s.events = append(s.events, reason+" "+object.Name)
}

func newStage(t *testing.T, change func(*Options), objects ...*unstructured.Unstructured) *stage {
	t.Helper()
	kinds := map[schema.GroupVersionResource]string{
		karmada.Clusters: "ClusterList", karmada.Bindings: "ResourceBindingList", karmada.Works: "WorkList", karmada.Rebalancers: "WorkloadRebalancerList",
	}
	made := &stage{T: t, clock: testingclock.NewFakeClock(start), stores: map[schema.GroupVersionResource]cache.Store{}}
	seed := make([]runtime.Object, len(objects))
	for index, each := range objects {
		seed[index] = each
	}
	made.hub = dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), kinds, seed...)
	made.hub.PrependReactor("create", "workloadrebalancers", func(action clienttesting.Action) (bool, runtime.Object, error) {
		created := action.(clienttesting.CreateAction).GetObject().(*unstructured.Unstructured)
		created.SetCreationTimestamp(metav1.NewTime(made.clock.Now().Truncate(time.Second)))
		created.SetUID("request")
		return false, nil, nil
	})
	for resource := range kinds {
		made.stores[resource] = cache.NewStore(cache.MetaNamespaceKeyFunc)
	}
	options := Options{
		Kinds: []string{"InferenceService.serving.kserve.io"}, StableFor: 5 * time.Second, Interval: time.Second,
		SettleTimeout: 10 * time.Second, Within: 40 * time.Second, ScheduleTimeout: 15 * time.Second, Backoff: 10 * time.Second, MaxBackoff: 10 * time.Minute,
	}
	if change != nil {
		change(&options)
	}
	made.metrics = NewMetrics(prometheus.NewRegistry())
	made.controller = New(options, made.hub, made.stores[karmada.Clusters], made.stores[karmada.Bindings], made.stores[karmada.Works],
		made, made.metrics, made.clock, slog.New(slog.NewTextHandler(io.Discard, nil)))
	return made
}

// pass lets time go by, a second at a time, with a round and a turn of Karmada in each.
func (s *stage) pass(seconds int) {
	s.Helper()
	for range seconds {
		s.round()
		if !s.asleep {
			s.schedule()
		}
		s.clock.Step(time.Second)
	}
}

func (s *stage) round() {
	s.Helper()
	for resource, store := range s.stores {
		list, err := s.hub.Resource(resource).List(context.Background(), metav1.ListOptions{})
		if err != nil {
			s.Fatal(err)
		}
		var items []any
		for index := range list.Items {
			items = append(items, &list.Items[index])
		}
		if err := store.Replace(items, ""); err != nil {
			s.Fatal(err)
		}
	}
	if _, err := s.controller.Round(context.Background()); err != nil {
		s.Fatal(err)
	}
}

// schedule is what Karmada does: a request stamps the binding, and one whose stamp is later than its last division, or whose
// sum is wrong, is divided by 3:2:1 over those that are not being evicted.
func (s *stage) schedule() {
	s.Helper()
	for _, request := range s.list(karmada.Rebalancers) {
		workload := request.Object["spec"].(map[string]any)["workloads"].([]any)[0].(map[string]any)
		binding := s.binding(workload["name"].(string))
		before, err := karmada.Decode[karmada.Binding](binding)
		if err != nil {
			s.Fatal(err)
		}
		at := request.GetCreationTimestamp()
		if before.Spec.RescheduleTriggeredAt == nil || at.After(before.Spec.RescheduleTriggeredAt.Time) {
			set(binding, at.UTC().Format(time.RFC3339), "spec", "rescheduleTriggeredAt")
			s.update(karmada.Bindings, binding)
		}
	}
	for _, item := range s.list(karmada.Bindings) {
		binding, err := karmada.Decode[karmada.Binding](&item)
		if err != nil {
			s.Fatal(err)
		}
		var sum int32
		for _, target := range binding.Spec.Clusters {
			sum += target.Replicas
		}
		last, asked := binding.Status.LastScheduledTime, binding.Spec.RescheduleTriggeredAt
		if sum == binding.Spec.Replicas && (asked == nil || last != nil && !asked.After(last.Time)) {
			continue
		}
		weights := map[string]int64{"us-east": 3, "us-west": 2, "eu-west": 1}
		for _, task := range binding.Spec.EvictionTasks {
			delete(weights, task.FromCluster)
		}
		var targets []any
		for name, replicas := range share.Divide(binding.Spec.Replicas, weights, "") {
			if replicas > 0 {
				targets = append(targets, map[string]any{"name": name, "replicas": int64(replicas)})
			}
		}
		set(&item, targets, "spec", "clusters")
		set(&item, s.clock.Now().UTC().Format(time.RFC3339), "status", "lastScheduledTime")
		s.update(karmada.Bindings, &item)
	}
}

func (s *stage) list(resource schema.GroupVersionResource) []unstructured.Unstructured {
	s.Helper()
	list, err := s.hub.Resource(resource).List(context.Background(), metav1.ListOptions{})
	if err != nil {
		s.Fatal(err)
	}
	return list.Items
}

func (s *stage) binding(model string) *unstructured.Unstructured {
	s.Helper()
	found, err := s.hub.Resource(karmada.Bindings).Namespace("models").Get(context.Background(), model+"-inferenceservice", metav1.GetOptions{})
	if err != nil {
		s.Fatal(err)
	}
	return found
}

func (s *stage) update(resource schema.GroupVersionResource, object *unstructured.Unstructured) {
	s.Helper()
	if _, err := s.hub.Resource(resource).Namespace(object.GetNamespace()).Update(context.Background(), object, metav1.UpdateOptions{}); err != nil {
		s.Fatal(err)
	}
}

func (s *stage) division(model string) string {
	s.Helper()
	binding, err := karmada.Decode[karmada.Binding](s.binding(model))
	if err != nil {
		s.Fatal(err)
	}
	return share.Text(binding.Held())
}

// wrote lists verbs and names of everything that was changed on the hub by the controller.
func (s *stage) wrote() []string {
	var found []string
	for _, action := range s.hub.Actions() {
		switch action := action.(type) {
		case clienttesting.CreateActionImpl:
			found = append(found, "create "+action.GetObject().(*unstructured.Unstructured).GetName())
		case clienttesting.DeleteActionImpl:
			found = append(found, "delete "+action.Name)
		case clienttesting.PatchActionImpl:
			found = append(found, fmt.Sprintf("patch %s %s", action.Name, action.Patch))
		}
	}
	return found
}

func (s *stage) heard(reason string) []string {
	var found []string
	for _, each := range s.events {
		if name, ok := strings.CutPrefix(each, reason+" "); ok {
			found = append(found, strings.TrimSuffix(name, "-inferenceservice"))
		}
	}
	return found
}

func (s *stage) same(what string, got, want any) {
	s.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		s.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func set(object *unstructured.Unstructured, value any, path ...string) {
	if err := unstructured.SetNestedField(object.Object, value, path...); err != nil {
		panic(err)
	}
}

func cluster(name string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "cluster.karmada.io/v1alpha1", "kind": "Cluster",
		"metadata": map[string]any{"name": name, "creationTimestamp": start.Add(-time.Hour).Format(time.RFC3339)},
		"spec":     map[string]any{"syncMode": "Push"},
		"status": map[string]any{
			"conditions":     []any{map[string]any{"type": "Ready", "status": "True"}},
			"apiEnablements": []any{map[string]any{"groupVersion": "serving.kserve.io/v1beta1", "resources": []any{map[string]any{"kind": "InferenceService"}}}},
		},
	}}
}

func clusters() []*unstructured.Unstructured {
	return []*unstructured.Unstructured{cluster("us-east"), cluster("us-west"), cluster("eu-west")}
}

// moved is a model of six replicas whose share of us-east went elsewhere.
func moved(model string) *unstructured.Unstructured {
	var weights []any
	for name, weight := range map[string]int64{"us-east": 3, "us-west": 2, "eu-west": 1} {
		weights = append(weights, map[string]any{"targetCluster": map[string]any{"clusterNames": []any{name}}, "weight": weight})
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "work.karmada.io/v1alpha2", "kind": "ResourceBinding",
		"metadata": map[string]any{"name": model + "-inferenceservice", "namespace": "models", "uid": model},
		"spec": map[string]any{
			"resource": map[string]any{"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "namespace": "models", "name": model},
			"replicas": int64(6),
			"clusters": []any{map[string]any{"name": "us-west", "replicas": int64(4)}, map[string]any{"name": "eu-west", "replicas": int64(2)}},
			"placement": map[string]any{
				"clusterAffinity": map[string]any{"clusterNames": []any{"eu-west", "us-east", "us-west"}},
				"replicaScheduling": map[string]any{
					"replicaSchedulingType": "Divided", "replicaDivisionPreference": "Weighted", "weightPreference": map[string]any{"staticWeightList": weights},
				},
			},
		},
		"status": map[string]any{"lastScheduledTime": start.Add(-time.Minute).Format(time.RFC3339)},
	}}
}

func with(objects []*unstructured.Unstructured, more ...*unstructured.Unstructured) []*unstructured.Unstructured {
	return append(slices.Clone(objects), more...)
}
