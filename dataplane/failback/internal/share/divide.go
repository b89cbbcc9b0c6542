// Package share says which clusters should hold how many replicas of a model, and whether anything may be done about it.
//
// Pure functions on what the hub holds: no client, no clock of their own.
package share

import (
	"cmp"
	"hash/fnv"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/types"
)

// Divide hands out replicas one by one, each to the cluster with the highest weight / (2 * replicas so far + 1): the method
// of Webster, as Karmada's scheduler divides by static weights (pkg/util/helper/webstermethod.go). Clusters that tie with
// equal replicas are ordered by name, in a direction that Karmada takes from a hash of the object's UID.
func Divide(replicas int32, weights map[string]int64, uid types.UID) map[string]int32 {
	seats := make(map[string]int32, len(weights))
	names := slices.Sorted(maps.Keys(weights))
	if laterNameWins(uid) {
		slices.Reverse(names)
	}
	priority := func(name string) float64 { return float64(weights[name]) / float64(2*seats[name]+1) }
	for range replicas {
		if len(names) == 0 {
			break
		}
		// The first of equals wins, so names are in the order in which they do.
		next := slices.MaxFunc(names, func(a, b string) int {
			return cmp.Or(cmp.Compare(priority(a), priority(b)), cmp.Compare(seats[b], seats[a]))
		})
		seats[next]++
	}
	return seats
}

func laterNameWins(uid types.UID) bool {
	if uid == "" {
		return false
	}
	hash := fnv.New32a()
	hash.Write([]byte(uid))
	return hash.Sum32()&1 == 1
}
