package controller

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"inference-fleet/dataplane/failback/internal/karmada"
)

func work(name, status, reason, message string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "work.karmada.io/v1alpha1", "kind": "Work",
		"metadata": map[string]any{"name": name, "namespace": "karmada-es-us-east", "uid": name, "resourceVersion": "7"},
		"spec":     map[string]any{},
		"status":   map[string]any{"conditions": []any{map[string]any{"type": "Applied", "status": status, "reason": reason, "message": message}}},
	}}
}

const exists = `inferenceservices.serving.kserve.io "chat" already exists`

func stuckWork(name string) *unstructured.Unstructured {
	return work(name, "False", "ReCreateFailed", exists)
}

func TestAWorkIsStuckWhereItsObjectWasMadeTwice(t *testing.T) {
	leaving := stuckWork("chat")
	leaving.SetDeletionTimestamp(&metav1.Time{Time: start})
	fresh := stuckWork("chat")
	delete(fresh.Object, "status")
	for _, each := range []struct {
		name string
		work *unstructured.Unstructured
		want bool
	}{
		{"made twice", stuckWork("chat"), true},
		{"applied", work("chat", "True", "ReCreateFailed", exists), false},
		{"somebody else's", work("chat", "False", "AppliedFailed", "already exists in the cluster, Karmada will not manage it"), false},
		{"the member is away", work("chat", "False", "ReCreateFailed", "connection refused"), false},
		{"not looked at yet", fresh, false},
		{"being deleted", leaving, false},
	} {
		t.Run(each.name, func(t *testing.T) {
			found, err := karmada.Decode[karmada.Work](each.work)
			if err != nil {
				t.Fatal(err)
			}
			if got := Stuck(found); got != each.want {
				t.Errorf("got %t", got)
			}
		})
	}
}

func TestAStuckWorkIsChangedSoThatKarmadaLooksAndDispatchesAsBefore(t *testing.T) {
	again := stuckWork("again")
	set(again, false, "spec", "suspendDispatching")
	suspended := stuckWork("suspended")
	set(suspended, true, "spec", "suspendDispatching")
	stage := newStage(t, nil, with(clusters(), stuckWork("new"), again, suspended, work("well", "True", "", ""))...)
	stage.round()
	stage.same("changes", len(stage.wrote()), 2)
	for _, want := range []string{
		`patch again {"metadata":{"resourceVersion":"7"},"spec":{"suspendDispatching":null}}`,
		`patch new {"metadata":{"resourceVersion":"7"},"spec":{"suspendDispatching":false}}`,
	} {
		found := false
		for _, got := range stage.wrote() {
			found = found || got == want
		}
		if !found {
			t.Errorf("missing: %s in %v", want, stage.wrote())
		}
	}
	stage.same("metric", testutil.ToFloat64(stage.metrics.Resynced.WithLabelValues("us-east")), 2)
	stage.same("events", len(stage.heard(ReasonResynced)), 2)
}

func TestAWorkThatStaysStuckIsChangedEverLessOften(t *testing.T) {
	stage := newStage(t, nil, with(clusters(), stuckWork("chat"))...)
	stage.pass(600)
	if changes := len(stage.wrote()); changes < 5 || changes > 9 {
		t.Errorf("%d changes in ten minutes", changes)
	}
}

func TestAMemberThatIsAwayIsNotBothered(t *testing.T) {
	stage := newStage(t, nil, with(clusters(), stuckWork("chat"))...)
	stage.change("us-east", ready("False"))
	stage.pass(5)
	stage.same("changes", stage.wrote(), []string(nil))
}

func TestManyStuckWorksAreSpreadOverRounds(t *testing.T) {
	all := clusters()
	for index := range worksPerRound + 5 {
		all = append(all, stuckWork(string(rune('a'+index))))
	}
	stage := newStage(t, nil, all...)
	stage.round()
	stage.same("in the first round", len(stage.wrote()), worksPerRound)
	stage.round()
	stage.same("in all", len(stage.wrote()), worksPerRound+5)
}
