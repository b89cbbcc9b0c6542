package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	coordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/tools/record"

	"inference-fleet/dataplane/failback/internal/controller"
	"inference-fleet/dataplane/failback/internal/karmada"
)

const (
	component = "fleet-failback"
	// Kubernetes' own defaults for its controllers.
	leaseDuration, renewDeadline, retryPeriod = 15 * time.Second, 10 * time.Second, 2 * time.Second
)

// hub is what the controller needs of the Karmada API server.
type hub struct {
	config      *rest.Config
	dynamic     dynamic.Interface
	clusters    cache.SharedInformer
	bindings    cache.SharedInformer
	works       cache.SharedInformer
	changed     chan struct{}
	broadcaster record.EventBroadcaster
	recorder    events
}

func newHub(config *rest.Config, log *slog.Logger) (*hub, error) {
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	core, err := typedcorev1.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	made := &hub{config: config, dynamic: client, changed: make(chan struct{}, 1), broadcaster: record.NewBroadcaster()}
	made.broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: core.Events("")})
	made.recorder = events{made.broadcaster.NewRecorder(runtime.NewScheme(), corev1.EventSource{Component: component})}
	for resource, informer := range map[schema.GroupVersionResource]*cache.SharedInformer{
		karmada.Clusters: &made.clusters, karmada.Bindings: &made.bindings, karmada.Works: &made.works,
	} {
		*informer = dynamicinformer.NewFilteredDynamicInformer(client, resource, metav1.NamespaceAll, 0, cache.Indexers{}, nil).Informer()
		if err := (*informer).SetTransform(trim); err != nil {
			return nil, err
		}
		if err := (*informer).SetWatchErrorHandler(func(_ *cache.Reflector, err error) {
			log.Warn("watch ended", "resource", resource.Resource, "error", err)
		}); err != nil {
			return nil, err
		}
		if _, err := (*informer).AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    func(any) { made.change() },
			UpdateFunc: func(any, any) { made.change() },
			DeleteFunc: func(any) { made.change() },
		}); err != nil {
			return nil, err
		}
	}
	return made, nil
}

func (h *hub) change() {
	select {
	case h.changed <- struct{}{}:
	default:
	}
}

func (h *hub) start(ctx context.Context) {
	for _, each := range h.informers() {
		go each.RunWithContext(ctx)
	}
}

func (h *hub) close() { h.broadcaster.Shutdown() }

func (h *hub) informers() []cache.SharedInformer {
	return []cache.SharedInformer{h.clusters, h.bindings, h.works}
}

func (h *hub) synced() bool {
	for _, each := range h.informers() {
		if !each.HasSynced() {
			return false
		}
	}
	return true
}

func (h *hub) wait(ctx context.Context) bool {
	return cache.WaitForCacheSync(ctx.Done(), h.clusters.HasSynced, h.bindings.HasSynced, h.works.HasSynced)
}

func (h *hub) orphans(config *rest.Config, chosen settings, metrics *controller.Metrics, log *slog.Logger) *controller.Orphans {
	return &controller.Orphans{
		Hub: h.dynamic, Clusters: h.clusters.GetStore(),
		Member: func(cluster string) (metadata.Interface, error) {
			return metadata.NewForConfig(memberConfig(config, cluster))
		},
		Mapper: restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(discovery.NewDiscoveryClientForConfigOrDie(config))),
		Kinds:  chosen.orphanKinds, Selector: chosen.orphanSelector, Interval: chosen.orphanInterval, DryRun: chosen.options.DryRun,
		Recorder: h.recorder, Metrics: metrics, Log: log,
	}
}

// trim drops what nobody here reads: a fleet has a Work for each object and member, and each holds the whole object.
func trim(object any) (any, error) {
	item, ok := object.(*unstructured.Unstructured)
	if !ok {
		return object, nil
	}
	for _, path := range [][]string{
		{"metadata", "managedFields"}, {"metadata", "annotations"}, {"spec", "workload"}, {"status", "manifestStatuses"},
		{"status", "resourceSummary"}, {"status", "nodeSummary"},
	} {
		unstructured.RemoveNestedField(item.Object, path...)
	}
	if status, found, err := unstructured.NestedSlice(item.Object, "status", "aggregatedStatus"); found && err == nil {
		for _, each := range status {
			delete(each.(map[string]any), "status")
		}
		_ = unstructured.SetNestedSlice(item.Object, status, "status", "aggregatedStatus")
	}
	return item, nil
}

// events writes events about objects of which there is only a reference.
type events struct{ record.EventRecorder }

func (e events) Event(object *corev1.ObjectReference, kind, reason, message string) {
	e.EventRecorder.Event(object, kind, reason, message)
}

// elected works while this process holds the lease, and ends with it: what another one begins must not be worked on twice.
func elected(ctx context.Context, config *rest.Config, namespace string, log *slog.Logger, work func(context.Context)) error {
	leases, err := coordinationv1.NewForConfig(config)
	if err != nil {
		return err
	}
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	lock := &resourcelock.LeaseLock{
		LeaseMeta: metav1.ObjectMeta{Name: component, Namespace: namespace}, Client: leases,
		LockConfig: resourcelock.ResourceLockConfig{Identity: fmt.Sprintf("%s_%d", name, os.Getpid())},
	}
	// Holds a token while the work goes on.
	acting := make(chan struct{}, 1)
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: lock, LeaseDuration: leaseDuration, RenewDeadline: renewDeadline, RetryPeriod: retryPeriod, Name: component, ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(ctx context.Context) {
				acting <- struct{}{}
				work(ctx)
				<-acting
			},
			OnStoppedLeading: func() {},
			OnNewLeader:      func(identity string) { log.Info("leader", "identity", identity) },
		},
	})
	if err != nil {
		return err
	}
	elector.Run(ctx)
	acting <- struct{}{}
	if ctx.Err() != nil {
		return nil
	}
	return errors.New("lease lost")
}
