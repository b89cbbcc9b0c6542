package load

import (
	"context"
	"runtime"
	"syscall"
	"time"
)

// No wait is longer at a time, so that the end of a run is noticed.
const longestNap = 20 * time.Millisecond

// pace sleeps in a thread of its own: Go's timers are late by up to a millisecond where the process is idle.
type pace struct{}

func newPace() pace {
	runtime.LockOSThread()
	return pace{}
}

func (pace) end() { runtime.UnlockOSThread() }

// until waits for a point in time; false where ctx ended before.
func (pace) until(ctx context.Context, at time.Time) bool {
	for ctx.Err() == nil {
		left := time.Until(at)
		if left <= 0 {
			return true
		}
		nap := syscall.NsecToTimespec(int64(min(left, longestNap)))
		// An interrupted nap is only a shorter one.
		_ = syscall.Nanosleep(&nap, nil)
	}
	return false
}
