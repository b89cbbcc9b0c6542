package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"inference-fleet/dataplane/failback/internal/karmada"
	"inference-fleet/dataplane/failback/internal/share"
)

// ReasonResynced is the reason of an event on a Work.
const ReasonResynced = "WorkResynced"

const (
	// worksPerRound bounds what one round changes, so that a member that comes back is not sent everything at once.
	worksPerRound = 20
	// workBackoff is doubled with each resync of the same Work.
	workBackoff, maxWorkBackoff = 5 * time.Second, 5 * time.Minute
)

// Stuck tells a Work that notes for good that its object exists.
//
// Karmada makes an object twice that is deleted and wanted again at once. The second time it exists already, which the
// status controller notes in the Work and never takes back (work_status_controller.go, handleDeleteEvent): the hub shows the
// model in that cluster as not ready and without replicas. A Work that changes is applied anew, and an object that is
// somebody else's is refused there as ever.
func Stuck(work *karmada.Work) bool {
	for _, each := range work.Status.Conditions {
		if each.Type == "Applied" && each.Status == metav1.ConditionFalse && each.Reason == "ReCreateFailed" && strings.Contains(each.Message, "already exists") {
			return work.DeletionTimestamp == nil
		}
	}
	return false
}

// syncWorks has Karmada look again at Works that are stuck.
func (c *Controller) syncWorks(ctx context.Context, members map[string]share.Member) (time.Duration, error) {
	works, err := decoded[karmada.Work](c.works)
	if err != nil {
		return 0, fmt.Errorf("works: %w", err)
	}
	now := c.clock.Now()
	next := resync
	stuck := map[types.UID]bool{}
	left := worksPerRound
	for _, work := range works {
		cluster := strings.TrimPrefix(work.Namespace, karmada.ExecutionSpacePrefix)
		member, known := members[cluster]
		if !Stuck(work) || !known || member.Ready().Status != metav1.ConditionTrue {
			continue
		}
		stuck[work.UID] = true
		tried := c.resynced[work.UID]
		if now.Before(tried.before) {
			next = min(next, tried.before.Sub(now))
			continue
		}
		if left--; left < 0 {
			next = gap
			continue
		}
		c.resynced[work.UID] = tried.next("", now, workBackoff, maxWorkBackoff)
		if err := c.resyncWork(ctx, work, cluster); err != nil {
			return 0, err
		}
	}
	c.metrics.StuckWorks.Set(float64(len(stuck)))
	for uid, tried := range c.resynced {
		// Kept for a while: one that gets stuck again at once must not be changed in a circle.
		if !stuck[uid] && now.Sub(tried.before) > maxWorkBackoff {
			delete(c.resynced, uid)
		}
	}
	return next, nil
}

func (c *Controller) resyncWork(ctx context.Context, work *karmada.Work, cluster string) error {
	log := c.log.With("work", work.Name, "cluster", cluster)
	if c.options.DryRun {
		log.Info("would re-sync: the object exists but the Work is marked failed")
		return nil
	}
	// A change that means nothing: false is what it is where it is not set.
	var changed *bool
	if work.Spec.SuspendDispatching == nil {
		changed = new(bool)
	} else if *work.Spec.SuspendDispatching {
		return nil
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": work.ResourceVersion},
		"spec":     map[string]any{"suspendDispatching": changed},
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err = c.hub.Resource(karmada.Works).Namespace(work.Namespace).Patch(ctx, work.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("re-sync work %s/%s: %w", work.Namespace, work.Name, err)
	}
	log.Info("re-synced: the object exists but the Work was marked failed")
	c.metrics.Resynced.WithLabelValues(cluster).Inc()
	c.recorder.Event(&corev1.ObjectReference{
		APIVersion: karmada.Works.GroupVersion().String(), Kind: "Work", Namespace: work.Namespace, Name: work.Name, UID: work.UID,
	}, corev1.EventTypeNormal, ReasonResynced, "The object exists, but the Work was marked failed.")
	return nil
}
