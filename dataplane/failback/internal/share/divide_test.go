package share

import (
	"testing"

	"k8s.io/apimachinery/pkg/types"
)

func TestReplicasGoWhereWebstersMethodPutsThem(t *testing.T) {
	for _, each := range []struct {
		name     string
		replicas int32
		weights  map[string]int64
		uid      types.UID
		want     string
	}{
		{"as the weights", 6, map[string]int64{"us-east": 3, "us-west": 2, "eu-west": 1}, "", "eu-west 1, us-east 3, us-west 2"},
		{"of three over 4:3:3", 3, map[string]int64{"us-east": 4, "us-west": 3, "eu-west": 3}, "", "eu-west 1, us-east 1, us-west 1"},
		{"fewer than clusters", 2, map[string]int64{"a": 5, "b": 3, "c": 1}, "", "a 1, b 1"},
		{"a small weight gets nothing", 4, map[string]int64{"a": 100, "b": 1}, "", "a 4"},
		{"a tie goes to the first name", 1, map[string]int64{"a": 1, "b": 1}, "", "a 1"},
		// FNV-1a of these is even, and odd.
		{"a tie by an even UID", 1, map[string]int64{"a": 1, "b": 1}, "a", "a 1"},
		{"a tie by an odd UID", 1, map[string]int64{"a": 1, "b": 1}, "b", "b 1"},
		{"of equal quotients the cluster with fewer replicas", 2, map[string]int64{"a": 3, "b": 1}, "", "a 1, b 1"},
		{"nobody to have them", 3, map[string]int64{}, "", ""},
	} {
		t.Run(each.name, func(t *testing.T) {
			if got := Text(Divide(each.replicas, each.weights, each.uid)); got != each.want {
				t.Errorf("got %q, want %q", got, each.want)
			}
		})
	}
}
