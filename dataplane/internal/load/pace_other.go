//go:build !linux

package load

import (
	"context"
	"time"
)

type pace struct{}

func newPace() pace { return pace{} }

func (pace) end() {}

// until waits for a point in time; false where ctx ended before.
func (pace) until(ctx context.Context, at time.Time) bool {
	select {
	case <-time.After(time.Until(at)):
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
