package relay

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"inference-fleet/dataplane/internal/sse"
)

// Events beyond this are passed on in parts, and their stream is not resumed.
const largestEvent = 1 << 20

var errIdle = errors.New("nothing came for too long")

// attempt is one answer of the upstream, which can be given up on its own. Read ends with errIdle where nothing came for too long.
type attempt struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	answer *http.Response
	body   io.ReadCloser
	events *sse.Reader
	idle   time.Duration
	timer  *time.Timer
}

func newAttempt(ctx context.Context, cancel context.CancelCauseFunc, answer *http.Response, idle time.Duration) *attempt {
	a := &attempt{ctx: ctx, cancel: cancel, answer: answer, body: answer.Body, idle: idle}
	a.events = sse.NewReader(idleReader{a}, largestEvent)
	return a
}

func (a *attempt) Read(p []byte) (int, error) { return a.body.Read(p) }

func (a *attempt) Close() error {
	a.cancel(nil)
	return a.body.Close()
}

// cluster is where the answer comes from.
func (a *attempt) cluster() string {
	name := a.answer.Header.Get("X-Fleet-Cluster")
	if name == "" {
		return "unknown"
	}
	return name
}

type idleReader struct{ *attempt }

func (r idleReader) Read(p []byte) (int, error) {
	if r.timer == nil {
		r.timer = time.AfterFunc(r.idle, func() { r.cancel(errIdle) })
	} else {
		r.timer.Reset(r.idle)
	}
	count, err := r.body.Read(p)
	r.timer.Stop()
	if err != nil && context.Cause(r.ctx) == errIdle {
		err = errIdle
	}
	return count, err
}
