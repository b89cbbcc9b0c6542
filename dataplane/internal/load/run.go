package load

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"sync"
	"time"
)

// A reader of the output sees each result after this time at the latest.
const flushEvery = 100 * time.Millisecond

// Counts are of one plan, or of all.
type Counts struct {
	Requests int // In the plan.
	Sent     int
	Resumed  int
	Switched int
	Outcomes map[string]int
}

func (c *Counts) add(result *Result) {
	if c.Outcomes == nil {
		c.Outcomes = map[string]int{}
	}
	c.Sent++
	c.Outcomes[result.Outcome]++
	c.Switched += result.Switched
	if result.Resumed {
		c.Resumed++
	}
}

func (c *Counts) fields() map[string]any {
	fields := map[string]any{"requests": c.Requests, "sent": c.Sent, "resumed": c.Resumed, "switched": c.Switched}
	for _, outcome := range Outcomes {
		fields[outcome] = c.Outcomes[outcome]
	}
	return fields
}

// Run sends what the plans say and writes a line for each request as it ends. When ctx ends no further requests are sent, and
// those under way are awaited.
func Run(ctx context.Context, plans []*Plan, output io.Writer) error {
	out := &report{writer: bufio.NewWriterSize(output, 64*1024), labels: map[string]*Counts{}}
	for _, plan := range plans {
		out.total.Requests += plan.Requests
		out.labels[plan.Label] = &Counts{Requests: plan.Requests}
	}
	begin := time.Now()
	out.line(map[string]any{"begin": seconds(float64(begin.UnixMicro()) / 1e6)})
	flushing, stop := context.WithCancel(context.Background())
	go out.flush(flushing)

	var sending sync.WaitGroup
	for _, plan := range plans {
		sending.Go(func() { out.send(ctx, plan, begin, &sending) })
	}
	sending.Wait()
	stop()
	return out.end()
}

// send starts each request when it is due.
func (r *report) send(ctx context.Context, plan *Plan, begin time.Time, under *sync.WaitGroup) {
	pace := newPace()
	defer pace.end()
	for n := range plan.Requests {
		due := time.Duration(float64(n) / plan.Rate * float64(time.Second))
		if !pace.until(ctx, begin.Add(due)) {
			return
		}
		under.Go(func() { r.result(send(plan, n, begin, due)) })
	}
}

type report struct {
	lock   sync.Mutex
	writer *bufio.Writer
	total  Counts
	labels map[string]*Counts
}

func (r *report) result(result *Result) {
	// Outside the lock: it is most of the work.
	line, _ := json.Marshal(result)
	r.lock.Lock()
	defer r.lock.Unlock()
	r.total.add(result)
	r.labels[result.Label].add(result)
	_, _ = r.writer.Write(append(line, '\n'))
}

func (r *report) line(value any) {
	line, _ := json.Marshal(value)
	r.lock.Lock()
	defer r.lock.Unlock()
	_, _ = r.writer.Write(append(line, '\n'))
	_ = r.writer.Flush()
}

func (r *report) flush(ctx context.Context) {
	ticker := time.NewTicker(flushEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			r.lock.Lock()
			_ = r.writer.Flush()
			r.lock.Unlock()
		case <-ctx.Done():
			return
		}
	}
}

// end writes the summary. Its error is the first that writing met.
func (r *report) end() error {
	summary := r.total.fields()
	labels := map[string]any{}
	for label, counts := range r.labels {
		labels[label] = counts.fields()
	}
	summary["labels"] = labels
	r.line(map[string]any{"summary": summary})
	return r.writer.Flush()
}
