// Package standin is an engine that computes nothing: it counts, on time, and can be full, frozen and stalled like a real one.
package standin

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// A long wait is looked at this often, so that computing counts as progress also where no token is sent.
const longestWait = 250 * time.Millisecond

var (
	errFull    = errors.New("every place is taken")
	errStalled = errors.New("the engine has requests and computes nothing")
)

// state is replaced as a whole; changed is closed when it is.
type state struct {
	frozen, stalled bool
	changed         chan struct{}
}

// engine hands out tokens: each takes the same time, whatever the number of requests.
type engine struct {
	token    time.Duration
	capacity int
	stall    time.Duration

	lock     sync.Mutex // For changes of state and active.
	now      atomic.Pointer[state]
	active   int
	progress atomic.Int64 // Nanoseconds since started of the last token, or of the first request after a time without.
	started  time.Time
}

func newEngine(token, stall time.Duration, capacity int) *engine {
	e := &engine{token: token, stall: stall, capacity: capacity, started: time.Now()}
	e.now.Store(&state{changed: make(chan struct{})})
	return e
}

// watch finds the engine stalled when it is: only a frozen one can be. A process that was stopped and goes on has been idle
// for as long, and computes.
func (e *engine) watch() {
	for range time.Tick(min(100*time.Millisecond, e.stall/4)) {
		e.lock.Lock()
		idle := time.Since(e.started) - time.Duration(e.progress.Load())
		if now := e.now.Load(); now.frozen && e.active > 0 && idle > e.stall && !now.stalled {
			e.change(state{frozen: true, stalled: true})
		}
		e.lock.Unlock()
	}
}

// freeze stops every token, or lets them go on: then the engine computes again, and is no longer stalled.
func (e *engine) freeze(frozen bool) {
	e.lock.Lock()
	defer e.lock.Unlock()
	if now := e.now.Load(); frozen != now.frozen {
		e.progressed()
		e.change(state{frozen: frozen})
	}
}

func (e *engine) change(next state) {
	next.changed = make(chan struct{})
	close(e.now.Swap(&next).changed)
}

func (e *engine) progressed() { e.progress.Store(int64(time.Since(e.started))) }

// enter takes a place; leave gives it back.
func (e *engine) enter() error {
	e.lock.Lock()
	defer e.lock.Unlock()
	switch {
	case e.now.Load().stalled:
		return errStalled
	case e.capacity > 0 && e.active >= e.capacity:
		return errFull
	}
	if e.active == 0 {
		e.progressed()
	}
	e.active++
	return nil
}

func (e *engine) leave() {
	e.lock.Lock()
	e.active--
	e.lock.Unlock()
}

// work is the computation of one request.
type work struct {
	*engine
	timer *time.Timer
	due   time.Time // Of the last token.
}

func (e *engine) start() *work {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	return &work{engine: e, timer: timer, due: time.Now()}
}

// compute waits for the next tokens.
func (w *work) compute(ctx context.Context, tokens int) error {
	w.due = w.due.Add(time.Duration(tokens) * w.token)
	for {
		now := w.now.Load()
		if now.stalled {
			return errStalled
		}
		if now.frozen {
			since := time.Now()
			select {
			case <-now.changed:
			case <-ctx.Done():
				return ctx.Err()
			}
			w.due = w.due.Add(time.Since(since))
			continue
		}
		left := time.Until(w.due)
		if left <= 0 {
			w.progressed()
			return ctx.Err()
		}
		w.timer.Reset(min(left, longestWait))
		select {
		case <-w.timer.C:
			if !w.now.Load().frozen {
				w.progressed()
			}
		case <-now.changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
