// Package serve runs one HTTP server until it is told to stop.
package serve

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// ErrStopping is why a request's context ended: the time for finishing requests after SIGTERM was over.
var ErrStopping = errors.New("this process is stopping")

// Requests that are told to end by ErrStopping may say so to their callers.
const lastWords = time.Second

// Run serves until SIGTERM or SIGINT. Requests under way may then go on for the time of drain.
func Run(listen string, handler http.Handler, drain time.Duration, logger *log.Logger) error {
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return fmt.Errorf("cannot listen: %w", err)
	}
	base, stop := context.WithCancelCause(context.Background())
	defer stop(nil)
	server := &http.Server{
		Handler:     handler,
		BaseContext: func(net.Listener) context.Context { return base },
		ErrorLog:    logger,
		// No limit on idle connections: a proxy that sends on one just as it is closed would lose a request.
	}
	logger.Printf("listens on %s", listener.Addr())

	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGTERM, os.Interrupt)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return err
	case <-told:
	}
	// A second signal ends the process at once.
	signal.Stop(told)
	if finish(server, drain) != nil {
		stop(ErrStopping)
		_ = finish(server, lastWords)
	}
	return server.Close()
}

func finish(server *http.Server, within time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	return server.Shutdown(ctx)
}
