// fleet-relay stands between a front door and its way to the regions, and lets no streamed completion end unseen.
package main

import (
	"flag"
	"fmt"
	"log"
	"net/http"
	"net/url"
	"os"
	"runtime/debug"
	"time"

	"inference-fleet/dataplane/internal/relay"
	"inference-fleet/dataplane/internal/serve"
)

func main() {
	listen := flag.String("listen", "", "`address` to listen on, as 127.0.0.1:8080")
	upstream := flag.String("upstream", "", "`URL` that every request goes to, as http://127.0.0.1:8081")
	admin := flag.String("admin", "none", "`address` of /stats, or none")
	memory := flag.Int64("buffers-mebibytes", 256, "memory of all requests together that are kept to be sent again")
	drain := flag.Duration("drain", 30*time.Second, "how long streams may go on after SIGTERM")
	flag.Parse()

	target, err := url.Parse(*upstream)
	wrong := ""
	switch {
	case flag.NArg() > 0:
		wrong = fmt.Sprintf("takes flags only, got: `%s`", flag.Arg(0))
	case *listen == "":
		wrong = "--listen must be an address, got: ``"
	case err != nil || target.Scheme != "http" || target.Host == "" || (target.Path != "" && target.Path != "/") || target.RawQuery != "":
		wrong = fmt.Sprintf("--upstream must be http://HOST:PORT, got: `%s`", *upstream)
	case *memory < 0 || *memory > 1<<20:
		wrong = fmt.Sprintf("--buffers-mebibytes must be 0 or more, got: `%d`", *memory)
	}
	if wrong != "" {
		fmt.Fprintf(os.Stderr, "fleet-relay: %s\n", wrong)
		os.Exit(2)
	}

	// A heap of a few megabytes would be collected many times a second; the limit keeps a full one from growing as freely.
	debug.SetGCPercent(400)
	debug.SetMemoryLimit(2*(*memory<<20) + 256<<20)
	logger := log.New(os.Stderr, "fleet-relay: ", log.LstdFlags|log.Lmicroseconds|log.LUTC|log.Lmsgprefix)
	handler := relay.New(relay.Options{Upstream: target, Memory: *memory << 20, Log: logger})
	if *admin != "none" {
		mux := http.NewServeMux()
		mux.HandleFunc("GET /stats", handler.ServeStats)
		go func() {
			if err := http.ListenAndServe(*admin, mux); err != nil {
				logger.Fatalf("--admin %s: %v", *admin, err)
			}
		}()
	}
	if err := serve.Run(*listen, handler, *drain, logger); err != nil {
		logger.Fatal(err)
	}
}
