package controller

import (
	"errors"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/metadata"
	metadatafake "k8s.io/client-go/metadata/fake"
	clienttesting "k8s.io/client-go/testing"

	"inference-fleet/dataplane/failback/internal/karmada"
)

var services = schema.GroupVersionResource{Group: "serving.kserve.io", Version: "v1beta1", Resource: "inferenceservices"}

const space = "karmada-es-us-east"

// heldObject is what Karmada put on a member after it joined.
func heldObject(name, workName string, change func(*metav1.PartialObjectMetadata)) *metav1.PartialObjectMetadata {
	made := &metav1.PartialObjectMetadata{
		TypeMeta: metav1.TypeMeta{APIVersion: "serving.kserve.io/v1beta1", Kind: "InferenceService"},
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: "models", UID: types.UID(name), CreationTimestamp: metav1.NewTime(start),
			Labels:      map[string]string{"karmada.io/managed": "true"},
			Annotations: map[string]string{karmada.WorkName: workName, karmada.WorkNamespace: space},
		},
	}
	if change != nil {
		change(made)
	}
	return made
}

// member serves InferenceServices; three of them are in order, so that one more is not half of all.
func newOrphans(t *testing.T, objects ...*metav1.PartialObjectMetadata) (*stage, *Orphans, *metadatafake.FakeMetadataClient) {
	t.Helper()
	stage := newStage(t, nil, with(clusters(), work("known", "True", "", ""))...)
	scheme := metadatafake.NewTestScheme()
	_ = metav1.AddMetaToScheme(scheme)
	seed := []runtime.Object{}
	for _, name := range []string{"one", "two", "three"} {
		seed = append(seed, heldObject(name, "known", nil))
	}
	for _, each := range objects {
		seed = append(seed, each)
	}
	member := metadatafake.NewSimpleMetadataClient(scheme, seed...)
	mapper := meta.NewDefaultRESTMapper(nil)
	kind := services.GroupVersion().WithKind("InferenceService")
	mapper.AddSpecific(kind, services, services, meta.RESTScopeNamespace)
	stage.round()
	return stage, &Orphans{
		Hub: stage.hub, Clusters: stage.stores[karmada.Clusters], Mapper: mapper, Interval: time.Minute,
		Member: func(cluster string) (metadata.Interface, error) {
			if cluster != "us-east" {
				return nil, errors.New("away")
			}
			return member, nil
		},
		Kinds:    []schema.GroupVersionKind{kind, {Group: "not.served", Version: "v1", Kind: "Thing"}},
		Selector: "karmada.io/managed=true", Recorder: stage, Metrics: stage.metrics, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}, member
}

func deleted(member *metadatafake.FakeMetadataClient) []string {
	var names []string
	for _, action := range member.Actions() {
		if action, ok := action.(clienttesting.DeleteActionImpl); ok {
			names = append(names, action.Name)
		}
	}
	return names
}

func TestAnObjectIsDeletedOnceItsWorkIsGone(t *testing.T) {
	for _, each := range []struct {
		name   string
		object *metav1.PartialObjectMetadata
		want   []string
	}{
		{"its Work is gone", heldObject("chat", "gone", nil), []string{"chat"}},
		{"its Work is there, on its way out or not", heldObject("chat", "known", nil), nil},
		{"it is being deleted", heldObject("chat", "gone", func(o *metav1.PartialObjectMetadata) { o.DeletionTimestamp = &metav1.Time{Time: start} }), nil},
		{"it is of another hub", heldObject("chat", "gone", func(o *metav1.PartialObjectMetadata) { o.Annotations[karmada.WorkNamespace] = "karmada-es-other" }), nil},
		{"it is not Karmada's", heldObject("chat", "gone", func(o *metav1.PartialObjectMetadata) { o.Labels = nil }), nil},
		{"it names no Work", heldObject("chat", "", nil), nil},
		{
			"it is older than the join", heldObject("chat", "gone", func(o *metav1.PartialObjectMetadata) { o.CreationTimestamp = metav1.NewTime(start.Add(-2 * time.Hour)) }), nil,
		},
	} {
		t.Run(each.name, func(t *testing.T) {
			stage, orphans, member := newOrphans(t, each.object)
			orphans.Scan(t.Context())
			stage.same("at first sight", deleted(member), []string(nil))
			orphans.Scan(t.Context())
			stage.same("deleted", deleted(member), each.want)
			stage.same("events", len(stage.heard(ReasonOrphanDeleted)), len(each.want))
			stage.same("metric", testutil.ToFloat64(stage.metrics.OrphansDeleted.WithLabelValues("us-east", "InferenceService")), len(each.want))
		})
	}
}

func TestAHubThatLostItsWorksDeletesNothing(t *testing.T) {
	stage, orphans, member := newOrphans(t)
	if err := stage.hub.Tracker().Delete(karmada.Works, space, "known"); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		orphans.Scan(t.Context())
	}
	stage.same("deleted", deleted(member), []string(nil))
	stage.same("told once", stage.heard(ReasonOrphansKept), []string{"us-east"})
	stage.same("counted", testutil.ToFloat64(stage.metrics.Orphans.WithLabelValues("us-east", orphanMany)), 3)
}

func TestAMemberThatIsNotReadyOrPullsIsNotScanned(t *testing.T) {
	for name, change := range map[string]func(*unstructured.Unstructured){
		"not Ready": ready("False"),
		"pulls":     func(cluster *unstructured.Unstructured) { set(cluster, "Pull", "spec", "syncMode") },
	} {
		t.Run(name, func(t *testing.T) {
			stage, orphans, member := newOrphans(t, heldObject("chat", "gone", nil))
			stage.change("us-east", change)
			stage.round()
			orphans.Scan(t.Context())
			orphans.Scan(t.Context())
			stage.same("calls", len(member.Actions()), 0)
		})
	}
}

func TestTwoSightsMustFollowEachOther(t *testing.T) {
	stage, orphans, member := newOrphans(t, heldObject("chat", "gone", nil))
	orphans.Scan(t.Context())
	back := work("gone", "True", "", "")
	if err := stage.hub.Tracker().Create(karmada.Works, back, space); err != nil {
		t.Fatal(err)
	}
	orphans.Scan(t.Context())
	if err := stage.hub.Tracker().Delete(karmada.Works, space, "gone"); err != nil {
		t.Fatal(err)
	}
	orphans.Scan(t.Context())
	stage.same("deleted", deleted(member), []string(nil))
}
