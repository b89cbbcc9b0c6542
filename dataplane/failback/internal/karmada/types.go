// Package karmada holds the parts of Karmada's API that the controller reads and writes, as they are in 1.16 and 1.18.
//
// Structs of our own: Karmada's module would bring its whole dependency tree for a dozen fields.
package karmada

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// Resources that the controller touches.
var (
	Clusters    = schema.GroupVersionResource{Group: "cluster.karmada.io", Version: "v1alpha1", Resource: "clusters"}
	Bindings    = schema.GroupVersionResource{Group: "work.karmada.io", Version: "v1alpha2", Resource: "resourcebindings"}
	Works       = schema.GroupVersionResource{Group: "work.karmada.io", Version: "v1alpha1", Resource: "works"}
	Rebalancers = schema.GroupVersionResource{Group: "apps.karmada.io", Version: "v1alpha1", Resource: "workloadrebalancers"}
)

const (
	// ExecutionSpacePrefix begins the namespace on the hub that holds a member's Works.
	ExecutionSpacePrefix = "karmada-es-"
	// WorkName and WorkNamespace are annotations of a member's object: the Work it came from.
	WorkName      = "work.karmada.io/name"
	WorkNamespace = "work.karmada.io/namespace"
	// ProducerTaintManager and ReasonTaint mark an eviction that a taint caused, and nothing else.
	ProducerTaintManager = "TaintManager"
	ReasonTaint          = "TaintUntolerated"

	healthy = "Healthy"
	// scheduled is the condition by which the scheduler says whether it found clusters.
	scheduled = "Scheduled"
)

// Cluster is a member, as the hub sees it.
type Cluster struct {
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		SyncMode string         `json:"syncMode"`
		Taints   []corev1.Taint `json:"taints"`
	} `json:"spec"`
	Status struct {
		Conditions     []metav1.Condition `json:"conditions"`
		APIEnablements []struct {
			GroupVersion string `json:"groupVersion"`
			Resources    []struct {
				Kind string `json:"kind"`
			} `json:"resources"`
		} `json:"apiEnablements"`
	} `json:"status"`
}

// Ready is the condition of that name, zero where it was never reported.
func (c *Cluster) Ready() metav1.Condition {
	for _, each := range c.Status.Conditions {
		if each.Type == "Ready" {
			return each
		}
	}
	return metav1.Condition{}
}

// Serves tells whether the member has reported the kind.
func (c *Cluster) Serves(apiVersion, kind string) bool {
	for _, group := range c.Status.APIEnablements {
		if group.GroupVersion != apiVersion {
			continue
		}
		for _, each := range group.Resources {
			if each.Kind == kind {
				return true
			}
		}
	}
	return false
}

// Affinity chooses clusters.
type Affinity struct {
	LabelSelector *metav1.LabelSelector `json:"labelSelector"`
	FieldSelector *struct{}             `json:"fieldSelector"`
	ClusterNames  []string              `json:"clusterNames"`
	Exclude       []string              `json:"exclude"`
}

// Placement is what the scheduler reads; Karmada copies it from the policy into the binding.
type Placement struct {
	ClusterAffinity    *Affinity           `json:"clusterAffinity"`
	ClusterAffinities  []struct{}          `json:"clusterAffinities"`
	ClusterTolerations []corev1.Toleration `json:"clusterTolerations"`
	ReplicaScheduling  *struct {
		Type             string `json:"replicaSchedulingType"`
		Preference       string `json:"replicaDivisionPreference"`
		WeightPreference *struct {
			Static  []Weight `json:"staticWeightList"`
			Dynamic string   `json:"dynamicWeight"`
		} `json:"weightPreference"`
	} `json:"replicaScheduling"`
}

// Weight is one line of a static weight list.
type Weight struct {
	TargetCluster Affinity `json:"targetCluster"`
	Weight        int64    `json:"weight"`
}

// Target is a cluster and its replicas.
type Target struct {
	Name     string `json:"name"`
	Replicas int32  `json:"replicas"`
}

// EvictionTask says that a cluster loses its replicas.
type EvictionTask struct {
	FromCluster string `json:"fromCluster"`
	Replicas    *int32 `json:"replicas"`
	Reason      string `json:"reason"`
	Producer    string `json:"producer"`
}

// Binding is a ResourceBinding: which clusters hold how much of one object.
type Binding struct {
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Resource struct {
			APIVersion string    `json:"apiVersion"`
			Kind       string    `json:"kind"`
			Namespace  string    `json:"namespace"`
			Name       string    `json:"name"`
			UID        types.UID `json:"uid"`
		} `json:"resource"`
		Replicas              int32          `json:"replicas"`
		Clusters              []Target       `json:"clusters"`
		Placement             *Placement     `json:"placement"`
		EvictionTasks         []EvictionTask `json:"gracefulEvictionTasks"`
		RescheduleTriggeredAt *metav1.Time   `json:"rescheduleTriggeredAt"`
		Suspension            *struct {
			Scheduling *bool `json:"scheduling"`
		} `json:"suspension"`
	} `json:"spec"`
	Status struct {
		SchedulerObservedGeneration int64              `json:"schedulerObservedGeneration"`
		LastScheduledTime           *metav1.Time       `json:"lastScheduledTime"`
		Conditions                  []metav1.Condition `json:"conditions"`
		AggregatedStatus            []struct {
			ClusterName string `json:"clusterName"`
			Health      string `json:"health"`
		} `json:"aggregatedStatus"`
	} `json:"status"`
}

// Held is the replicas of each cluster as they are scheduled.
func (b *Binding) Held() map[string]int32 {
	held := make(map[string]int32, len(b.Spec.Clusters))
	for _, each := range b.Spec.Clusters {
		held[each.Name] = each.Replicas
	}
	return held
}

// Observed tells whether the scheduler has looked at the latest change. It notes a generation only once it has found clusters:
// where it found none, as while the only cluster of a model is evicted, it is done all the same (patchBindingStatusCondition).
func (b *Binding) Observed() bool {
	return b.Status.SchedulerObservedGeneration == b.Generation || meta.IsStatusConditionFalse(b.Status.Conditions, scheduled)
}

// Healthy tells whether the object is reported healthy in the cluster.
func (b *Binding) Healthy(cluster string) bool {
	for _, each := range b.Status.AggregatedStatus {
		if each.ClusterName == cluster {
			return each.Health == healthy
		}
	}
	return false
}

// Work is one object for one member. Its manifest is read apart, see Manifest.
type Work struct {
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		SuspendDispatching *bool `json:"suspendDispatching"`
	} `json:"spec"`
	Status struct {
		Conditions []metav1.Condition `json:"conditions"`
	} `json:"status"`
}

// Decode reads an object from the dynamic client. A field of another type than ours is an error, an unknown one is not.
func Decode[T any](object *unstructured.Unstructured) (*T, error) {
	into := new(T)
	return into, runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, into)
}
