// Karmada's four servers in one binary, which acts by the name it is started under: one link instead of four, and one copy in
// memory. Each is started as its own main package does it. karmadactl stays apart: a command should start quickly.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	"k8s.io/component-base/logs"
	_ "k8s.io/component-base/logs/json/register"
	controllerruntime "sigs.k8s.io/controller-runtime"

	aggregated "github.com/karmada-io/karmada/cmd/aggregated-apiserver/app"
	controllers "github.com/karmada-io/karmada/cmd/controller-manager/app"
	scheduler "github.com/karmada-io/karmada/cmd/scheduler/app"
	webhook "github.com/karmada-io/karmada/cmd/webhook/app"
)

func main() {
	var command func(context.Context) *cobra.Command
	switch name := filepath.Base(os.Args[0]); name {
	case "karmada-aggregated-apiserver":
		command = aggregated.NewAggregatedApiserverCommand
	case "karmada-controller-manager":
		command = controllers.NewControllerManagerCommand
	case "karmada-scheduler":
		command = func(ctx context.Context) *cobra.Command { return scheduler.NewSchedulerCommand(ctx) }
	case "karmada-webhook":
		command = webhook.NewWebhookCommand
	default:
		fmt.Fprintf(os.Stderr, "must be started as one of Karmada's servers, got: `%s`\n", name)
		os.Exit(2)
	}
	code := cli.Run(command(controllerruntime.SetupSignalHandler()))
	// What is still buffered would be lost.
	logs.FlushLogs()
	os.Exit(code)
}
