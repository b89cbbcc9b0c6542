// fleet-failback gives clusters that came back their declared share of the replicas. See docs/failback.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"inference-fleet/dataplane/failback/internal/controller"
)

const shutdownTimeout = 5 * time.Second

type settings struct {
	kubeconfig     string
	leaseNamespace string
	leaderElect    bool
	metrics        string
	health         string
	orphanKinds    []schema.GroupVersionKind
	orphanSelector string
	orphanInterval time.Duration
	options        controller.Options
}

func main() {
	chosen, err := parse(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(2)
	}
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	klog.SetSlogLogger(log)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, chosen, log); err != nil {
		log.Error("stopped", "error", err)
		os.Exit(1)
	}
}

func parse(arguments []string, output io.Writer) (settings, error) {
	var chosen settings
	var kinds, orphanKinds string
	flags := flag.NewFlagSet("fleet-failback", flag.ContinueOnError)
	flags.SetOutput(output)
	flags.StringVar(&chosen.kubeconfig, "kubeconfig", "", "kubeconfig of the Karmada API server; empty: the one of the pod's own cluster")
	flags.BoolVar(&chosen.leaderElect, "leader-elect", true, "act only while holding the lease; off for a single process")
	flags.StringVar(&chosen.leaseNamespace, "lease-namespace", "karmada-system", "namespace of the lease in the Karmada API server")
	flags.StringVar(&chosen.metrics, "metrics-bind-address", "127.0.0.1:9466", "address of /metrics; 0: none")
	flags.StringVar(&chosen.health, "health-probe-bind-address", "127.0.0.1:9467", "address of /healthz and /readyz")
	flags.StringVar(&kinds, "kinds", "InferenceService.serving.kserve.io", "kinds whose bindings are watched, as Kind.group, comma-separated")
	flags.DurationVar(&chosen.options.StableFor, "stable-for", 5*time.Second, "how long a cluster must be Ready and untainted before it is given replicas")
	flags.DurationVar(&chosen.options.Interval, "interval", time.Second, "pause between two models")
	flags.DurationVar(&chosen.options.SettleTimeout, "settle-timeout", 10*time.Second, "longest wait for a rescheduled model to be healthy before the next one's turn")
	flags.DurationVar(&chosen.options.Within, "within", 30*time.Second, "bound for these waits of all models that are due at the same time")
	flags.DurationVar(&chosen.options.ScheduleTimeout, "schedule-timeout", 15*time.Second, "longest wait for the declared division after a request")
	flags.DurationVar(&chosen.options.Backoff, "backoff", 10*time.Second, "pause after a request without effect, doubled with each of the same division")
	flags.DurationVar(&chosen.options.MaxBackoff, "max-backoff", 10*time.Minute, "longest such pause")
	flags.StringVar(&orphanKinds, "orphan-kinds", "", "kinds that members are searched for without a Work, as apiVersion/Kind, comma-separated; empty: none")
	flags.StringVar(&chosen.orphanSelector, "orphan-selector", "karmada.io/managed=true", "labels of the objects that are searched")
	flags.DurationVar(&chosen.orphanInterval, "orphan-interval", 30*time.Second, "pause between two searches; an orphan must be found twice")
	flags.BoolVar(&chosen.options.DryRun, "dry-run", false, "log what would be done and do nothing")
	if err := flags.Parse(arguments); err != nil {
		return chosen, err
	}
	if flags.NArg() > 0 {
		return chosen, fmt.Errorf("unexpected argument, got: `%s`", flags.Arg(0))
	}
	for _, each := range strings.Split(kinds, ",") {
		kind, group, found := strings.Cut(each, ".")
		if !found || kind == "" || group == "" {
			return chosen, fmt.Errorf("--kinds: must be Kind.group, got: `%s`", each)
		}
		chosen.options.Kinds = append(chosen.options.Kinds, each)
	}
	for _, each := range strings.FieldsFunc(orphanKinds, func(c rune) bool { return c == ',' }) {
		at := strings.LastIndex(each, "/")
		if at <= 0 || at == len(each)-1 {
			return chosen, fmt.Errorf("--orphan-kinds: must be apiVersion/Kind, got: `%s`", each)
		}
		chosen.orphanKinds = append(chosen.orphanKinds, schema.FromAPIVersionAndKind(each[:at], each[at+1:]))
	}
	if selector, err := labels.Parse(chosen.orphanSelector); err != nil || selector.Empty() {
		return chosen, fmt.Errorf("--orphan-selector: must be a label selector that is not empty, got: `%s`", chosen.orphanSelector)
	}
	for name, value := range map[string]time.Duration{
		"stable-for": chosen.options.StableFor, "interval": chosen.options.Interval, "settle-timeout": chosen.options.SettleTimeout, "within": chosen.options.Within,
		"schedule-timeout": chosen.options.ScheduleTimeout - 1, "backoff": chosen.options.Backoff - 1, "orphan-interval": chosen.orphanInterval - time.Second,
	} {
		if value < 0 {
			return chosen, fmt.Errorf("--%s: too short", name)
		}
	}
	return chosen, nil
}

func run(ctx context.Context, chosen settings, log *slog.Logger) error {
	config, err := clientcmd.BuildConfigFromFlags("", chosen.kubeconfig)
	if err != nil {
		return fmt.Errorf("--kubeconfig: %w", err)
	}
	config.UserAgent = "fleet-failback"
	config.QPS, config.Burst = 20, 40
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	metrics := controller.NewMetrics(registry)
	beside, err := newHub(config, log)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var servers sync.WaitGroup
	defer servers.Wait()
	defer cancel()
	for _, each := range []struct {
		flag, address string
		handler       http.Handler
	}{
		{"--metrics-bind-address", chosen.metrics, metricsHandler(registry)},
		{"--health-probe-bind-address", chosen.health, healthHandler(beside.synced)},
	} {
		if each.address == "0" {
			continue
		}
		listener, err := net.Listen("tcp", each.address)
		if err != nil {
			return fmt.Errorf("%s: %w", each.flag, err)
		}
		servers.Go(func() { serve(ctx, listener, each.handler) })
	}
	beside.start(ctx)
	defer beside.close()
	work := func(ctx context.Context) {
		if !beside.wait(ctx) {
			return
		}
		metrics.Leader.Set(1)
		defer metrics.Leader.Set(0)
		log.Info("acting", "stableFor", chosen.options.StableFor.String(), "dryRun", chosen.options.DryRun)
		var loops sync.WaitGroup
		if len(chosen.orphanKinds) > 0 {
			orphans := beside.orphans(config, chosen, metrics, log)
			loops.Go(func() { orphans.Run(ctx) })
		}
		controller.New(chosen.options, beside.dynamic, beside.clusters.GetStore(), beside.bindings.GetStore(), beside.works.GetStore(),
			beside.recorder, metrics, clock.RealClock{}, log).Run(ctx, beside.changed)
		loops.Wait()
	}
	if !chosen.leaderElect {
		work(ctx)
		return nil
	}
	return elected(ctx, config, chosen.leaseNamespace, log, work)
}

func metricsHandler(registry *prometheus.Registry) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	return mux
}

// healthHandler: alive is whoever answers; ready is who has seen the hub once. A hub that is away later is no reason to
// restart: the caches go on when it is back.
func healthHandler(synced func() bool) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !synced() {
			http.Error(w, "caches are not synced", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	return mux
}

func serve(ctx context.Context, listener net.Listener, handler http.Handler) {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	done := context.AfterFunc(ctx, func() {
		ending, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
		defer cancel()
		_ = server.Shutdown(ending)
	})
	defer done()
	_ = server.Serve(listener)
}

// memberConfig leads to a member by way of Karmada's aggregated API: with our own identity and what the member grants it,
// and without any credentials of the member.
func memberConfig(hub *rest.Config, cluster string) *rest.Config {
	member := rest.CopyConfig(hub)
	member.Host = strings.TrimSuffix(hub.Host, "/") + "/apis/cluster.karmada.io/v1alpha1/clusters/" + cluster + "/proxy"
	return member
}
