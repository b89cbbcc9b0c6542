// kube-apiserver, kube-controller-manager and kube-scheduler in one binary, which acts by the name it is started under.
// They share most of their code: one link instead of three, and one copy in memory for all clusters on a machine.
// Each is started as its own main package does it. kubectl stays apart: it would start more slowly as a part of this.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	_ "time/tzdata" // time zones of CronJobs

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
)

func main() {
	var command *cobra.Command
	switch name := filepath.Base(os.Args[0]); name {
	case "kube-apiserver":
		command = apiserver.NewAPIServerCommand()
	case "kube-controller-manager":
		command = controllers.NewControllerManagerCommand()
	case "kube-scheduler":
		command = scheduler.NewSchedulerCommand()
	default:
		fmt.Fprintf(os.Stderr, "must be started as kube-apiserver, kube-controller-manager or kube-scheduler, got: `%s`\n", name)
		os.Exit(2)
	}
	os.Exit(cli.Run(command))
}
