package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
)

func TestFlags(t *testing.T) {
	chosen, err := parse([]string{"--orphan-kinds=v1/ConfigMap,serving.kserve.io/v1beta1/InferenceService"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if len(chosen.orphanKinds) != 2 || chosen.orphanKinds[0].Version != "v1" || chosen.orphanKinds[1].Group != "serving.kserve.io" {
		t.Errorf("kinds: %v", chosen.orphanKinds)
	}
	for _, each := range [][2]string{
		{"--kinds=InferenceService", "--kinds: must be Kind.group, got: `InferenceService`"},
		{"--orphan-kinds=ConfigMap", "--orphan-kinds: must be apiVersion/Kind, got: `ConfigMap`"},
		{"--orphan-selector=", "--orphan-selector: must be a label selector that is not empty, got: ``"},
		{"--stable-for=-1s", "--stable-for: too short"},
		{"--orphan-interval=1ms", "--orphan-interval: too short"},
		{"more", "unexpected argument, got: `more`"},
	} {
		if _, err := parse([]string{each[0]}, io.Discard); err == nil || err.Error() != each[1] {
			t.Errorf("%s: got %v", each[0], err)
		}
	}
}

func TestReadinessFollowsTheCaches(t *testing.T) {
	synced := false
	handler := healthHandler(func() bool { return synced })
	ask := func(path string) int {
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, path, nil))
		return answer.Code
	}
	if ask("/healthz") != http.StatusOK || ask("/readyz") != http.StatusServiceUnavailable {
		t.Error("before the caches are synced")
	}
	synced = true
	if ask("/readyz") != http.StatusOK {
		t.Error("after")
	}
}

func TestAMemberIsReachedThroughTheHub(t *testing.T) {
	if host := memberConfig(&rest.Config{Host: "https://hub:6443/"}, "us-east").Host; !strings.HasSuffix(host, ":6443/apis/cluster.karmada.io/v1alpha1/clusters/us-east/proxy") {
		t.Error(host)
	}
}

func TestCachesHoldOnlyWhatIsRead(t *testing.T) {
	object := &unstructured.Unstructured{Object: map[string]any{
		"metadata": map[string]any{"name": "x", "managedFields": []any{}, "annotations": map[string]any{"a": "b"}},
		"spec":     map[string]any{"workload": map[string]any{}, "suspendDispatching": false},
		"status":   map[string]any{"aggregatedStatus": []any{map[string]any{"clusterName": "a", "health": "Healthy", "status": map[string]any{"much": "more"}}}},
	}}
	trimmed, err := trim(object)
	if err != nil {
		t.Fatal(err)
	}
	want := `map[metadata:map[name:x] spec:map[suspendDispatching:false] status:map[aggregatedStatus:[map[clusterName:a health:Healthy]]]]`
	if got := fmt.Sprint(trimmed.(*unstructured.Unstructured).Object); got != want {
		t.Errorf("got %s", got)
	}
}
