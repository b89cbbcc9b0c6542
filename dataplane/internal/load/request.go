package load

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"inference-fleet/dataplane/internal/openai"
	"inference-fleet/dataplane/internal/sse"
)

// What a request came to.
const (
	ok         = "ok"
	status     = "status"      // HTTP 400 or above
	refused    = "refused"     // no connection
	reset      = "reset"       // broken before the answer, or in an answer that is no stream
	timeout    = "timeout"     // not answered in full in time
	truncated  = "truncated"   // a stream that ended without [DONE] and without an error event, or what the engine aborted
	errorEvent = "error-event" // a stream that ended with an error event
)

// Outcomes are all there are, in the order in which they are told.
var Outcomes = []string{ok, status, refused, reset, timeout, truncated, errorEvent}

const (
	largestEvent = 1 << 20
	largestError = 16 * 1024
	largestBody  = 1 << 20
)

// Result is a line of the output. Times are seconds since the beginning, nil where it did not come to that.
type Result struct {
	Label      string   `json:"label"`
	N          int      `json:"n"`
	Door       string   `json:"door"`
	Due        seconds  `json:"due"`
	Sent       seconds  `json:"sent"`
	Headers    *seconds `json:"headers"`
	FirstToken *seconds `json:"firstToken"`
	End        *seconds `json:"end"`
	Status     *int     `json:"status"`
	Cluster    *string  `json:"cluster"`
	Revision   *string  `json:"revision"`
	Outcome    string   `json:"outcome"`
	// Events with content of a stream, 1 for another answer.
	Tokens  int  `json:"tokens"`
	Resumed bool `json:"resumed"`
	// How often another door was taken.
	Switched   int     `json:"switched"`
	RetryAfter *string `json:"retryAfter"`
	Error      string  `json:"error"`
}

// seconds are written with microseconds.
type seconds float64

func (s seconds) MarshalJSON() ([]byte, error) { return fmt.Appendf(nil, "%.6f", float64(s)), nil }

// exchange is one request under way.
type exchange struct {
	*Result
	begin time.Time
	plan  *Plan
}

func (e *exchange) since() *seconds {
	now := seconds(time.Since(e.begin).Seconds())
	return &now
}

// send sends request n and waits for its answer.
func send(plan *Plan, n int, begin time.Time, due time.Duration) *Result {
	e := &exchange{Result: &Result{Label: plan.Label, N: n, Due: seconds(due.Seconds())}, begin: begin, plan: plan}
	e.Sent = *e.since()
	deadline := time.Now().Add(plan.timeout())
	for {
		door := &plan.doors[(n+e.Switched)%len(plan.doors)]
		e.Door = door.name
		err := e.once(door, deadline)
		e.classify(err)
		unanswered := e.Outcome == refused || (e.Outcome == reset && e.Headers == nil)
		if !unanswered || !plan.SwitchDoors || e.Switched+1 >= len(plan.doors) {
			break
		}
		e.Switched++
	}
	e.End = e.since()
	return e.Result
}

// Errors that say how an answer ended, beside those of the connection.
var (
	errStatus     = errors.New("")
	errEvent      = errors.New("")
	errDial       = errors.New("")
	errUnfinished = errors.New("the stream ended without [DONE]")
	errAborted    = errors.New("the engine aborted the answer")
)

func (e *exchange) once(door *door, deadline time.Time) error {
	e.Error = ""
	used, err := door.pool.take(deadline)
	if err != nil {
		return errors.Join(errDial, err)
	}
	reusable := false
	defer func() {
		if reusable {
			door.pool.keep(used)
		} else {
			_ = used.Close()
		}
	}()
	if err := used.SetDeadline(deadline); err != nil {
		return err
	}
	if _, err := used.Write(door.message); err != nil {
		return err
	}
	answer, err := http.ReadResponse(used.reader, nil)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	e.Headers = e.since()
	e.Status = &answer.StatusCode
	e.Cluster, e.Revision, e.RetryAfter = header(answer, "X-Fleet-Cluster"), header(answer, "X-Fleet-Revision"), header(answer, "Retry-After")
	err = e.read(answer)
	reusable = !answer.Close && (err == nil || errors.Is(err, errStatus) || errors.Is(err, errEvent) || errors.Is(err, errAborted))
	return err
}

func header(answer *http.Response, name string) *string {
	if value := answer.Header.Get(name); value != "" {
		return &value
	}
	return nil
}

// read reads the answer to its end.
func (e *exchange) read(answer *http.Response) error {
	switch {
	case answer.StatusCode >= http.StatusBadRequest:
		body, err := io.ReadAll(io.LimitReader(answer.Body, largestError))
		if err == nil {
			_, err = io.Copy(io.Discard, answer.Body)
		}
		e.Error = worded(body)
		if err != nil {
			// It was answered all the same; its connection is of no more use.
			answer.Close = true
		}
		return errStatus
	case e.plan.Stream:
		return e.readStream(answer)
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, largestBody))
	if err == nil {
		_, err = io.Copy(io.Discard, answer.Body)
	}
	if err != nil {
		return err
	}
	e.FirstToken = e.since()
	e.Tokens = 1
	var whole openai.Chunk
	if json.Unmarshal(body, &whole) == nil && aborted(&whole) {
		return errAborted
	}
	return nil
}

// worded is the error in an answer's body, or the beginning of another body.
func worded(body []byte) string {
	var answer struct {
		Error *openai.Error `json:"error"`
	}
	text := string(body)
	if json.Unmarshal(body, &answer) == nil && answer.Error != nil {
		text = answer.Error.Error()
	}
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > 200 {
		text = strings.ToValidUTF8(text[:200], "") + "…"
	}
	return text
}

func aborted(chunk *openai.Chunk) bool {
	return slices.ContainsFunc(chunk.Choices, func(each openai.Choice) bool { return each.Aborted() != "" })
}

func (e *exchange) readStream(answer *http.Response) error {
	events := sse.NewReader(answer.Body, largestEvent)
	done, failed, gaveUp := false, false, false
	for {
		piece, err := events.Next()
		if err != nil {
			answer.Close = answer.Close || err != io.EOF
			switch {
			case failed:
				return errEvent
			case done && gaveUp:
				return errAborted
			case done:
				// Whatever came after it, all was said.
				return nil
			case isTimeout(err):
				return err
			case err == io.EOF:
				return errUnfinished
			}
			return errors.Join(errUnfinished, err)
		}
		e.note(piece, &done, &failed, &gaveUp)
	}
}

func (e *exchange) note(piece sse.Piece, done, failed, gaveUp *bool) {
	data, is := sse.Data(piece.Bytes)
	if !is {
		if comment, is := sse.Comment(piece.Bytes); is && strings.HasPrefix(comment, "resumed") {
			e.Resumed = true
		}
		return
	}
	if bytes.Equal(data, openai.Done) {
		*done = true
		return
	}
	var chunk openai.Chunk
	if json.Unmarshal(data, &chunk) != nil {
		return
	}
	if chunk.Error != nil {
		*failed = true
		e.Error = chunk.Error.Error()
		return
	}
	*gaveUp = *gaveUp || aborted(&chunk)
	for at := range chunk.Choices {
		if chunk.Choices[at].Said() != "" {
			e.Tokens++
			if e.FirstToken == nil {
				e.FirstToken = e.since()
			}
			break
		}
	}
}

// classify names the outcome, and words the error where the server did not.
func (e *exchange) classify(err error) {
	switch {
	case err == nil:
		e.Outcome = ok
		return
	case errors.Is(err, errStatus):
		e.Outcome = status
		return
	case errors.Is(err, errEvent):
		e.Outcome = errorEvent
		return
	case isTimeout(err):
		e.Outcome = timeout
	case errors.Is(err, errDial):
		e.Outcome = refused
	case errors.Is(err, errUnfinished) || errors.Is(err, errAborted):
		e.Outcome = truncated
	default:
		e.Outcome = reset
	}
	e.Error = strings.Join(strings.Fields(err.Error()), " ")
}

func isTimeout(err error) bool {
	var network net.Error
	return errors.Is(err, os.ErrDeadlineExceeded) || (errors.As(err, &network) && network.Timeout())
}
