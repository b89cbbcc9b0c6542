package controller

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"inference-fleet/dataplane/failback/internal/karmada"
)

const (
	declared  = "eu-west 1, us-east 3, us-west 2"
	elsewhere = "eu-west 2, us-west 4"
)

func (s *stage) healthy(model string) {
	s.Helper()
	binding := s.binding(model)
	set(binding, []any{map[string]any{"clusterName": "us-east", "health": "Healthy"}}, "status", "aggregatedStatus")
	s.update(karmada.Bindings, binding)
}

func (s *stage) change(name string, change func(*unstructured.Unstructured)) {
	s.Helper()
	for _, each := range s.list(karmada.Clusters) {
		if each.GetName() == name {
			change(&each)
			s.update(karmada.Clusters, &each)
		}
	}
}

func ready(status string) func(*unstructured.Unstructured) {
	return func(cluster *unstructured.Unstructured) {
		set(cluster, []any{map[string]any{"type": "Ready", "status": status}}, "status", "conditions")
	}
}

func TestARegionGetsItsShareBackOnceItIsStable(t *testing.T) {
	stage := newStage(t, nil, with(clusters(), moved("chat"))...)
	stage.pass(5)
	stage.same("before it is stable", stage.division("chat"), elsewhere)
	stage.pass(2)
	stage.same("division", stage.division("chat"), declared)
	stage.pass(15)
	stage.same("events", stage.events, []string{"FailbackRequested chat-inferenceservice", "FailbackRestored chat-inferenceservice"})
	stage.same("requests left", len(stage.list(karmada.Rebalancers)), 0)
	stage.same("restored", testutil.ToFloat64(stage.metrics.Rescheduled.WithLabelValues("chat", "us-east", "restored")), 1)
	stage.hub.ClearActions()
	stage.pass(60)
	stage.same("changes when all is in place", stage.wrote(), []string(nil))
}

func TestModelsComeBackOneByOne(t *testing.T) {
	stage := newStage(t, nil, with(clusters(), moved("chat"), moved("code"), moved("tiny"))...)
	stage.pass(8)
	stage.same("first", []string{stage.division("chat"), stage.division("code")}, []string{declared, elsewhere})
	stage.healthy("chat")
	stage.pass(3)
	stage.same("second, once the first is healthy", []string{stage.division("code"), stage.division("tiny")}, []string{declared, elsewhere})
	stage.pass(8)
	stage.same("third, while the second is not healthy yet", stage.division("tiny"), elsewhere)
	stage.pass(4)
	stage.same("third, after a bounded wait", stage.division("tiny"), declared)
}

func TestAModelThatIsNotDividedAsDeclaredIsRequestedEverLessOftenAndKeepsNobodyWaiting(t *testing.T) {
	stage := newStage(t, nil, with(clusters(), moved("chat"), moved("tiny"))...)
	stage.asleep = true
	stage.pass(25)
	stage.same("failed", stage.heard(ReasonFailed), []string{"chat"})
	stage.same("requested next", stage.heard(ReasonRequested), []string{"chat", "tiny"})
	stage.pass(600)
	requests := len(stage.heard(ReasonRequested))
	if requests < 6 || requests > 14 {
		t.Errorf("%d requests in ten minutes", requests)
	}
	stage.asleep = false
	stage.pass(700)
	stage.same("in the end", []string{stage.division("chat"), stage.division("tiny")}, []string{declared, declared})
	stage.same("attempts remembered", len(stage.controller.attempts), 0)
}

func TestManyModelsShareTheTimeThatMayBeWaited(t *testing.T) {
	all := clusters()
	var names []string
	for index := range 16 {
		names = append(names, string(rune('a'+index)))
		all = append(all, moved(names[index]))
	}
	stage := newStage(t, nil, all...)
	stage.pass(65)
	for _, name := range names {
		stage.same(name, stage.division(name), declared)
	}
	stage.pass(20)
	stage.same("the next time begins anew", stage.controller.waitsEnd.IsZero(), true)
}

func TestModelsThatFailedComeLast(t *testing.T) {
	stage := newStage(t, nil, with(clusters(), moved("a"), moved("b"), moved("c"))...)
	stage.asleep = true
	stage.pass(45)
	stage.same("requested", stage.heard(ReasonRequested), []string{"a", "b", "c"})
}

func TestAnotherDivisionIsTriedAtOnce(t *testing.T) {
	now := start
	tried := attempt{}
	for range 4 {
		tried = tried.next("a 1", now, 10*time.Second, time.Minute)
	}
	if pause := tried.before.Sub(now); pause != time.Minute {
		t.Errorf("after four tries the pause is %s", pause)
	}
	if other := tried.next("b 1", now, 10*time.Second, time.Minute); other.count != 1 || other.before.Sub(now) != 10*time.Second {
		t.Errorf("another division begins with %+v", other)
	}
}

func TestARegionThatIsLostAgainInterruptsIt(t *testing.T) {
	stage := newStage(t, nil, with(clusters(), moved("chat"))...)
	stage.asleep = true
	stage.pass(6)
	stage.same("requested", stage.heard(ReasonRequested), []string{"chat"})
	stage.change("us-east", ready("False"))
	stage.pass(1)
	stage.same("requests left", len(stage.list(karmada.Rebalancers)), 0)
	stage.same("interrupted", testutil.ToFloat64(stage.metrics.Rescheduled.WithLabelValues("chat", "us-east", "interrupted")), 1)
	stage.asleep = false
	stage.change("us-east", ready("True"))
	stage.pass(5)
	stage.same("it must be stable again", len(stage.heard(ReasonRequested)), 1)
	stage.pass(3)
	stage.same("division", stage.division("chat"), declared)
}

func TestNothingIsRequestedForARegionThatFlaps(t *testing.T) {
	stage := newStage(t, nil, with(clusters(), moved("chat"))...)
	for range 10 {
		stage.change("us-east", ready("True"))
		stage.pass(4)
		stage.change("us-east", ready("False"))
		stage.pass(1)
	}
	stage.same("changes", stage.wrote(), []string(nil))
}

func TestAFlapBetweenTwoRoundsCounts(t *testing.T) {
	stage := newStage(t, nil, with(clusters(), moved("chat"))...)
	stage.pass(4)
	stage.change("us-east", func(cluster *unstructured.Unstructured) {
		set(cluster, []any{map[string]any{"type": "Ready", "status": "True", "lastTransitionTime": stage.clock.Now().Format(time.RFC3339)}}, "status", "conditions")
	})
	stage.pass(4)
	stage.same("changes", stage.wrote(), []string(nil))
}

func TestACordonedRegionIsLeftAlone(t *testing.T) {
	cordoned := clusters()
	set(cordoned[0], []any{map[string]any{"key": "cluster.karmada.io/unschedulable", "effect": "NoSchedule"}}, "spec", "taints")
	stage := newStage(t, nil, with(cordoned, moved("chat"))...)
	stage.pass(30)
	stage.same("changes", stage.wrote(), []string(nil))
	stage.change("us-east", func(cluster *unstructured.Unstructured) { delete(cluster.Object["spec"].(map[string]any), "taints") })
	stage.pass(8)
	stage.same("uncordoned", stage.division("chat"), declared)
}

func TestARegionWithATaintThatKeepsNobodyAwayIsStableToo(t *testing.T) {
	tainted := clusters()
	taint := map[string]any{"key": "slow", "effect": "PreferNoSchedule", "timeAdded": start.Format(time.RFC3339)}
	set(tainted[0], []any{taint}, "spec", "taints")
	stage := newStage(t, nil, with(tainted, moved("chat"))...)
	stage.pass(8)
	stage.same("division", stage.division("chat"), declared)
}

func evicted(binding *unstructured.Unstructured, producer string, replicas any) *unstructured.Unstructured {
	task := map[string]any{"fromCluster": "us-east", "producer": producer, "reason": "TaintUntolerated"}
	if replicas != nil {
		task["replicas"] = replicas
	}
	set(binding, []any{task, map[string]any{"fromCluster": "elsewhere", "producer": "person", "reason": "Drain"}}, "spec", "gracefulEvictionTasks")
	return binding
}

func TestAnEvictionWithoutCauseIsCancelledAndTheCopyStays(t *testing.T) {
	for _, each := range []struct {
		name     string
		replicas any
		targets  []any
		want     string
	}{
		{"on its way", int64(2), []any{map[string]any{"name": "us-west", "replicas": int64(6)}}, "us-east 2, us-west 6"},
		{"nowhere else to go", int64(6), nil, "us-east 6"},
		{"replicas not noted", nil, []any{map[string]any{"name": "us-west", "replicas": int64(6)}}, "us-east 1, us-west 6"},
		{"named without replicas", int64(2), []any{map[string]any{"name": "us-east", "replicas": int64(0)}}, "us-east 2"},
	} {
		t.Run(each.name, func(t *testing.T) {
			binding := evicted(moved("chat"), "TaintManager", each.replicas)
			set(binding, each.targets, "spec", "clusters")
			stage := newStage(t, nil, with(clusters(), binding)...)
			stage.asleep = true
			stage.pass(6)
			stage.same("kept", stage.division("chat"), each.want)
			tasks, _, _ := unstructured.NestedSlice(stage.binding("chat").Object, "spec", "gracefulEvictionTasks")
			if len(tasks) != 1 || tasks[0].(map[string]any)["fromCluster"] != "elsewhere" {
				t.Errorf("evictions left: %v", tasks)
			}
			stage.same("events", stage.heard(ReasonCancelled), []string{"chat"})
			stage.asleep = false
			stage.pass(5)
			stage.same("division", stage.division("chat"), declared)
		})
	}
}

func TestAnEvictionThatSomebodyWantsStays(t *testing.T) {
	stage := newStage(t, nil, with(clusters(), evicted(moved("chat"), "person", int64(2)))...)
	stage.pass(30)
	stage.same("changes", stage.wrote(), []string(nil))
	stage.same("division", stage.division("chat"), elsewhere)
}

func TestAnEarlierRequestIsReplaced(t *testing.T) {
	earlier := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apps.karmada.io/v1alpha1", "kind": "WorkloadRebalancer",
		"metadata": map[string]any{"name": "failback.models.chat-inferenceservice", "creationTimestamp": start.Add(-time.Hour).Format(time.RFC3339)},
		"spec":     map[string]any{"workloads": []any{map[string]any{"name": "chat"}}},
	}}
	stage := newStage(t, nil, with(clusters(), moved("chat"), earlier)...)
	stage.asleep = true
	stage.pass(7)
	made := stage.list(karmada.Rebalancers)
	if len(made) != 1 || !made[0].GetCreationTimestamp().After(start) {
		t.Errorf("requests: %v", made)
	}
}

func TestARequestOfTheSecondOfTheLastDivisionIsMadeAgain(t *testing.T) {
	binding := moved("chat")
	set(binding, start.Add(5*time.Second).Format(time.RFC3339), "status", "lastScheduledTime")
	stage := newStage(t, nil, with(clusters(), binding)...)
	stage.pass(8)
	stage.same("changes", strings.Join(stage.wrote()[:3], "; "),
		"create failback.models.chat-inferenceservice; delete failback.models.chat-inferenceservice; create failback.models.chat-inferenceservice")
	stage.same("division", stage.division("chat"), declared)
}

func TestADryRunChangesNothing(t *testing.T) {
	stage := newStage(t, func(options *Options) { options.DryRun = true }, with(clusters(), moved("chat"), stuckWork("chat"))...)
	stage.pass(60)
	stage.same("changes", stage.wrote(), []string(nil))
}

func TestBindingsOfOtherKindsAreNobodysBusiness(t *testing.T) {
	other := moved("chat")
	set(other, "Deployment", "spec", "resource", "kind")
	stage := newStage(t, nil, with(clusters(), other)...)
	stage.pass(10)
	stage.same("changes", stage.wrote(), []string(nil))
}

func TestAModelThatIsDeletedMeanwhileIsForgotten(t *testing.T) {
	stage := newStage(t, nil, with(clusters(), moved("chat"), moved("tiny"))...)
	stage.asleep = true
	stage.pass(6)
	if err := stage.hub.Tracker().Delete(karmada.Bindings, "models", "chat-inferenceservice"); err != nil {
		t.Fatal(err)
	}
	stage.pass(4)
	stage.same("requested", stage.heard(ReasonRequested), []string{"chat", "tiny"})
}

func TestAHubThatRefusesIsAskedAgain(t *testing.T) {
	stage := newStage(t, nil, with(clusters(), moved("chat"))...)
	stage.pass(5)
	failures := 1
	stage.hub.PrependReactor("create", "workloadrebalancers", func(clienttesting.Action) (bool, runtime.Object, error) {
		failures--
		return failures >= 0, nil, corruptError{}
	})
	stage.controller.clock.Sleep(0)
	if _, err := stage.controller.Round(t.Context()); err == nil {
		t.Fatal("the round must fail")
	}
	stage.pass(3)
	stage.same("division", stage.division("chat"), declared)
}

type corruptError struct{}

func (corruptError) Error() string { return "refused" }

func TestARequestsNameIsOneForEachBinding(t *testing.T) {
	long := &karmada.Binding{}
	long.Namespace, long.Name = "models", strings.Repeat("x", 250)
	if name := requestName(long); len(name) > maxName || name == requestName(&karmada.Binding{}) {
		t.Errorf("name %q", name)
	}
}
