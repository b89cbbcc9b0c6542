// fleet-load sends completions at the times at which they are due and tells, a JSON line each, what they came to.
// The plan comes on standard input.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"inference-fleet/dataplane/internal/load"
)

func main() {
	if len(os.Args) > 1 {
		fail(fmt.Sprintf("takes no arguments, the plan comes on standard input, got: `%s`", os.Args[1]))
	}
	plans, err := load.ReadPlans(os.Stdin)
	if err != nil {
		fail(err.Error())
	}
	// Memory is little; collecting it takes time from what is measured.
	debug.SetGCPercent(400)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	// A second signal ends the process at once.
	context.AfterFunc(ctx, stop)
	if err := load.Run(ctx, plans, os.Stdout); err != nil {
		fail(err.Error())
	}
}

func fail(message string) {
	fmt.Fprintf(os.Stderr, "fleet-load: %s\n", message)
	os.Exit(2)
}
