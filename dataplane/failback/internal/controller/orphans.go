package controller

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"

	"inference-fleet/dataplane/failback/internal/karmada"
)

// Reasons of events on a Cluster.
const (
	ReasonOrphanDeleted = "OrphanDeleted"
	ReasonOrphansKept   = "OrphansKept"
)

// Orphans deletes what Karmada left on a member though no Work on the hub stands for it any more.
//
// Karmada deletes a member's object only if its own cache of that member holds it (objectwatcher.go, Delete). For up to a
// minute after a member's return that cache is old: what was made and deleted meanwhile stays there for good, GPUs included.
//
// Deleted is an object only if Karmada marked it as its own and for this hub, its Work is gone by a read past every cache,
// it was seen so in two scans, and it was made after the member joined this hub. A hub that lost its data has no Works
// either, and must not take the models along: what is older than the join, or more than half of what the member holds, is
// counted and told of, and stays.
type Orphans struct {
	Hub      dynamic.Interface
	Clusters cache.Store
	// Member gives a client for the objects of a member.
	Member func(cluster string) (metadata.Interface, error)
	// Mapper turns Kinds into resources.
	Mapper   meta.RESTMapper
	Kinds    []schema.GroupVersionKind
	Selector string
	Interval time.Duration
	DryRun   bool
	Recorder Recorder
	Metrics  *Metrics
	Log      *slog.Logger

	// seen are the orphans of the last scan, by cluster.
	seen map[string]map[types.UID]bool
	told map[string]string
}

const (
	orphanOlder = "predates-join"
	orphanMany  = "too-many"
	orphanNew   = "unconfirmed"
)

type held struct {
	metav1.PartialObjectMetadata
	resource schema.GroupVersionResource
	kind     string
}

// Run scans until the context ends.
func (o *Orphans) Run(ctx context.Context) {
	ticker := time.NewTicker(o.Interval)
	defer ticker.Stop()
	for {
		o.Scan(ctx)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// Scan looks at every member in push mode that is Ready.
func (o *Orphans) Scan(ctx context.Context) {
	clusters, err := decoded[karmada.Cluster](o.Clusters)
	if err != nil {
		o.Log.Error("orphans: clusters", "error", err)
		return
	}
	seen := map[string]map[types.UID]bool{}
	for _, cluster := range clusters {
		// Of a member in pull mode, nothing says that the hub can reach its API server.
		if cluster.DeletionTimestamp != nil || cluster.Ready().Status != metav1.ConditionTrue || cluster.Spec.SyncMode == "Pull" {
			continue
		}
		found, err := o.scan(ctx, cluster)
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			o.Metrics.Errors.WithLabelValues("orphans").Inc()
			o.Log.Warn("orphans: member not scanned", "cluster", cluster.Name, "error", err)
			continue
		}
		seen[cluster.Name] = found
	}
	o.seen = seen
}

func (o *Orphans) scan(ctx context.Context, cluster *karmada.Cluster) (map[types.UID]bool, error) {
	ctx, cancel := context.WithTimeout(ctx, o.Interval)
	defer cancel()
	member, err := o.Member(cluster.Name)
	if err != nil {
		return nil, err
	}
	space := karmada.ExecutionSpacePrefix + cluster.Name
	all, err := o.list(ctx, member, space)
	if err != nil {
		return nil, err
	}
	var orphans []held
	for _, each := range all {
		gone, err := o.workIsGone(ctx, space, each.Annotations[karmada.WorkName])
		if err != nil {
			return nil, err
		}
		if gone {
			orphans = append(orphans, each)
		}
	}
	found := map[types.UID]bool{}
	kept := map[string]float64{orphanOlder: 0, orphanMany: 0, orphanNew: 0}
	for _, each := range orphans {
		found[each.UID] = true
		switch {
		case !each.CreationTimestamp.After(cluster.CreationTimestamp.Time):
			kept[orphanOlder]++
		case len(orphans)*2 > len(all):
			kept[orphanMany]++
		case !o.seen[cluster.Name][each.UID]:
			kept[orphanNew]++
		default:
			if err := o.delete(ctx, member, cluster, each); err != nil {
				return nil, err
			}
		}
	}
	for reason, count := range kept {
		o.Metrics.Orphans.WithLabelValues(cluster.Name, reason).Set(count)
	}
	o.tell(cluster, kept)
	return found, nil
}

// list gives what Karmada holds on a member for this hub, but for what is being deleted.
func (o *Orphans) list(ctx context.Context, member metadata.Interface, space string) ([]held, error) {
	var all []held
	for _, kind := range o.Kinds {
		mapping, err := o.Mapper.RESTMapping(kind.GroupKind(), kind.Version)
		if meta.IsNoMatchError(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		list, err := member.Resource(mapping.Resource).List(ctx, metav1.ListOptions{LabelSelector: o.Selector})
		if apierrors.IsNotFound(err) {
			// The member does not serve the kind.
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", mapping.Resource.Resource, err)
		}
		for _, each := range list.Items {
			ours := each.Annotations[karmada.WorkName] != "" && each.Annotations[karmada.WorkNamespace] == space
			if ours && each.DeletionTimestamp == nil {
				all = append(all, held{each, mapping.Resource, kind.Kind})
			}
		}
	}
	return all, nil
}

// workIsGone reads past every cache, and after the objects: a Work that was made in between must not be missed. Karmada
// removes a Work only after it has seen to the object, so an object without one waits for nothing.
func (o *Orphans) workIsGone(ctx context.Context, space, name string) (bool, error) {
	_, err := o.Hub.Resource(karmada.Works).Namespace(space).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return true, nil
	}
	return false, err
}

func (o *Orphans) delete(ctx context.Context, member metadata.Interface, cluster *karmada.Cluster, each held) error {
	what := strings.TrimPrefix(each.Namespace+"/"+each.Name, "/")
	log := o.Log.With("cluster", cluster.Name, "kind", each.kind, "object", what)
	if o.DryRun {
		log.Info("would delete orphan")
		return nil
	}
	background := metav1.DeletePropagationBackground
	unchanged := metav1.Preconditions{UID: &each.UID, ResourceVersion: &each.ResourceVersion}
	err := member.Resource(each.resource).Namespace(each.Namespace).Delete(ctx, each.Name, metav1.DeleteOptions{PropagationPolicy: &background, Preconditions: &unchanged})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("delete orphan %s %s: %w", each.kind, what, err)
	}
	log.Info("orphan deleted")
	o.Metrics.OrphansDeleted.WithLabelValues(cluster.Name, each.kind).Inc()
	o.event(cluster, corev1.EventTypeNormal, ReasonOrphanDeleted, fmt.Sprintf("Deleted %s %s: no Work on the hub stands for it.", each.kind, what))
	return nil
}

// tell says once that orphans stay, and again when their number changes.
func (o *Orphans) tell(cluster *karmada.Cluster, kept map[string]float64) {
	text := ""
	if kept[orphanOlder] > 0 {
		text += fmt.Sprintf(" %.0f older than the join of the cluster;", kept[orphanOlder])
	}
	if kept[orphanMany] > 0 {
		text += fmt.Sprintf(" %.0f, more than half of what the cluster holds;", kept[orphanMany])
	}
	if o.told == nil {
		o.told = map[string]string{}
	}
	if o.told[cluster.Name] == text {
		return
	}
	o.told[cluster.Name] = text
	if text != "" {
		o.Log.Warn("orphans kept", "cluster", cluster.Name, "count", text)
		o.event(cluster, corev1.EventTypeWarning, ReasonOrphansKept, "Objects without a Work on the hub are not deleted:"+strings.TrimSuffix(text, ";")+".")
	}
}

func (o *Orphans) event(cluster *karmada.Cluster, kind, reason, message string) {
	o.Recorder.Event(&corev1.ObjectReference{
		APIVersion: karmada.Clusters.GroupVersion().String(), Kind: "Cluster", Name: cluster.Name, UID: cluster.UID,
	}, kind, reason, message)
}
