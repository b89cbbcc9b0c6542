// fleet-stand-in answers like vLLM behind the fleet's engine watchdog, at the price of a timer: for drills whose rates no real
// engine serves on a small machine.
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"runtime/debug"
	"time"

	"inference-fleet/dataplane/internal/serve"
	"inference-fleet/dataplane/internal/standin"
)

func main() {
	options := standin.Options{}
	listen := flag.String("listen", "", "`address` to listen on, as 127.0.0.1:8080")
	flag.StringVar(&options.Model, "model", "", "`name` of the model, as requests give it")
	flag.StringVar(&options.Revision, "revision", "", "`text` of the answers' x-fleet-revision; empty for none")
	token := flag.Float64("token-milliseconds", 5, "how long a token takes")
	flag.IntVar(&options.Tokens, "tokens", 8, "length of a chat's answer where the request names no limit")
	flag.IntVar(&options.Capacity, "capacity", 0, "requests at once before 429; 0 for no limit")
	stall := flag.Float64("stall-seconds", 8, "without a token for this long, requests under way are given back")
	drain := flag.Duration("drain", 5*time.Second, "how long requests may go on after SIGTERM")
	flag.Parse()

	wrong := ""
	switch {
	case flag.NArg() > 0:
		wrong = fmt.Sprintf("takes flags only, got: `%s`", flag.Arg(0))
	case *listen == "":
		wrong = "--listen must be an address, got: ``"
	case options.Model == "":
		wrong = "--model must be a name, got: ``"
	case !(*token >= 0 && *token <= 60_000):
		wrong = fmt.Sprintf("--token-milliseconds must be from 0 to 60000, got: `%v`", *token)
	case options.Tokens < 1:
		wrong = fmt.Sprintf("--tokens must be 1 or more, got: `%d`", options.Tokens)
	case options.Capacity < 0:
		wrong = fmt.Sprintf("--capacity must be 0 or more, got: `%d`", options.Capacity)
	case !(*stall > 0 && *stall <= 1e6):
		wrong = fmt.Sprintf("--stall-seconds must be above 0, got: `%v`", *stall)
	}
	if wrong != "" {
		fmt.Fprintf(os.Stderr, "fleet-stand-in: %s\n", wrong)
		os.Exit(2)
	}
	options.Token = time.Duration(*token * float64(time.Millisecond))
	options.Stall = time.Duration(*stall * float64(time.Second))

	// Memory is little; collecting it takes time from what is measured.
	debug.SetGCPercent(400)
	logger := log.New(os.Stderr, "fleet-stand-in: ", log.LstdFlags|log.Lmicroseconds|log.LUTC|log.Lmsgprefix)
	if err := serve.Run(*listen, standin.New(options), *drain, logger); err != nil {
		logger.Fatal(err)
	}
}
