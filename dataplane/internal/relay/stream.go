package relay

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"inference-fleet/dataplane/internal/openai"
	"inference-fleet/dataplane/internal/serve"
	"inference-fleet/dataplane/internal/sse"
)

const (
	// A request is computed at most this often after its first time.
	mostResumes = 3
	// Text beyond this is not kept.
	mostText = 4 << 20
	// What is handed to the caller at once while more events are there already.
	batch = 16 * 1024
)

// Before each further try to resume, after one that brought nothing: the regions may need a moment to see what happened.
var pauses = [mostResumes]time.Duration{0, 250 * time.Millisecond, time.Second}

// stream is the body that the caller reads: whole events of one or, one after another, several attempts.
type stream struct {
	relay  *Relay
	out    *http.Request
	guard  *guarded
	answer *http.Response // That of the first attempt, whose headers the caller has.

	attempt  *attempt
	pending  bytes.Buffer // Not yet read by the caller.
	ended    error
	inPart   bool // An event was handed over in part.
	lastDone bool // [DONE] was handed over.
	failed   bool // So was an error event.

	// What would be asked for, nil where the stream cannot be resumed.
	request *request
	why     string

	// What the caller has got.
	begun    bool
	first    openai.Chunk // id, object, created and model: those of the first event
	text     strings.Builder
	tokens   int
	finished bool
	usage    bool

	resumes  int
	barren   int    // Tries to resume in a row that brought no event.
	announce string // The cluster that went on, until its first event.
	before   int    // Tokens before this attempt.
	given    int    // Those of them that are in its prompt.
	prompt   int    // Tokens of the caller's own prompt, where an engine told it on the way.
	// This attempt is asked for the usage alone: its answer was complete.
	usageOnly bool
}

func newStream(r *Relay, out *http.Request, guard *guarded, first *attempt) *stream {
	s := &stream{relay: r, out: out, guard: guard, answer: first.answer, attempt: first}
	switch {
	case !guard.policy.Resume:
		s.why = "resuming is off"
	case !guard.whole:
		s.why = "the request is too large to be kept"
	case strings.EqualFold(out.Header.Get(ResumeHeader), "never"):
		s.why = "the caller does not want it"
	default:
		request, err := parseRequest(out.URL.Path, guard.body.bytes)
		if err != nil {
			s.why = err.Error()
		} else {
			s.request = request
		}
	}
	return s
}

// begin waits for the first event. Until then the caller has got nothing, and an error can become a status.
func (s *stream) begin() error {
	piece, err := s.attempt.events.Next()
	if err != nil {
		if err == io.EOF {
			err = errors.New("the stream ended before its first event")
		}
		return openai.NewError(openai.StreamCut, http.StatusBadGateway, "no answer began: "+reason(err))
	}
	if data, _ := sse.Data(piece.Bytes); piece.Last {
		var chunk openai.Chunk
		if json.Unmarshal(data, &chunk) == nil && lost(chunk.Error) {
			return openai.NewError(chunk.Error.Type, max(http.StatusInternalServerError, chunk.Error.Status()), chunk.Error.Message)
		}
	}
	s.relay.watched.Add(1)
	s.relay.streams.Add(1)
	if s.request == nil {
		// It is not sent again.
		s.guard.body.release()
	} else {
		// The request has it all; what it takes still counts.
		s.guard.body.bytes = nil
	}
	s.take(piece)
	return nil
}

// lost tells whether an error event says that this engine failed, where another may do better.
func lost(failure *openai.Error) bool {
	return failure != nil && (failure.Type == openai.EngineStalled || failure.Status() >= http.StatusInternalServerError)
}

func (s *stream) Read(p []byte) (int, error) {
	for s.pending.Len() == 0 {
		if s.ended != nil {
			return 0, s.ended
		}
		s.advance()
	}
	return s.pending.Read(p)
}

// Close gives up what is under way.
func (s *stream) Close() error {
	s.relay.streams.Add(-1)
	s.guard.body.release()
	return s.attempt.Close()
}

// advance brings pending bytes or the end, or drops an event.
func (s *stream) advance() {
	for {
		piece, err := s.attempt.events.Next()
		if err != nil {
			s.over(err)
			return
		}
		s.take(piece)
		if s.ended != nil || s.pending.Len() > batch || !s.attempt.events.Ready() {
			return
		}
	}
}

// over is called where the upstream has no more.
func (s *stream) over(err error) {
	if data, _ := sse.Data(s.attempt.events.Rest()); err == io.EOF && bytes.Equal(data, openai.Done) && !s.lastDone {
		// Its empty line is missing, which not every server sends.
		s.emit(openai.DoneEvent)
		s.lastDone = true
	}
	cause := context.Cause(s.out.Context())
	switch {
	case s.lastDone || s.failed:
		s.end()
	case errors.Is(cause, serve.ErrStopping):
		s.giveUp(cause.Error())
		s.cut(cause.Error(), nil)
	case cause != nil:
		// The caller left.
		s.ended = context.Canceled
	case err == io.EOF:
		s.cut("the stream ended without [DONE]", nil)
	default:
		s.cut(reason(err), nil)
	}
}

func (s *stream) end() {
	s.ended = io.EOF
	if trailer := s.attempt.answer.Trailer; s.attempt.answer != s.answer && len(trailer) > 0 {
		s.answer.Trailer = trailer
	}
}

func (s *stream) giveUp(why string) {
	if s.request != nil {
		s.request, s.why = nil, why
		s.guard.body.release()
	}
}

// take hands an event to the caller, as it is, changed or not at all.
func (s *stream) take(piece sse.Piece) {
	if !piece.First || !piece.Last {
		s.giveUp("an event was too large to be kept")
		s.emit(piece.Bytes)
		s.inPart = !piece.Last
		return
	}
	data, is := sse.Data(piece.Bytes)
	switch {
	case s.lastDone || s.failed || !is:
		s.emit(piece.Bytes)
		return
	case bytes.Equal(data, openai.Done):
		s.emit(piece.Bytes)
		s.lastDone = true
		return
	}
	var chunk openai.Chunk
	if err := json.Unmarshal(data, &chunk); err != nil {
		s.giveUp("an event is not of this API")
		s.emit(piece.Bytes)
		return
	}
	if chunk.Error != nil {
		if lost(chunk.Error) {
			s.cut(chunk.Error.Error(), bytes.Clone(piece.Bytes))
			return
		}
		s.failed = true
		s.emit(piece.Bytes)
		return
	}
	for at := range chunk.Choices {
		if reason := chunk.Choices[at].Aborted(); reason != "" && !s.usageOnly {
			s.cut("the engine ended it by `"+reason+"`", nil)
			return
		}
	}
	if s.resumes == 0 {
		s.note(&chunk)
		s.emit(piece.Bytes)
		return
	}
	changed, err := s.fit(data, &chunk)
	if err != nil {
		s.cut("an event of the new answer is not of this API", nil)
		return
	}
	s.note(&chunk)
	if changed != nil {
		s.emit(openai.Event(changed))
	}
}

func (s *stream) emit(event []byte) {
	s.barren = 0
	if s.announce != "" {
		fmt.Fprintf(&s.pending, ": resumed %s\n\n", s.announce)
		s.announce = ""
	}
	s.pending.Write(event)
}

// note remembers what the caller has got.
func (s *stream) note(chunk *openai.Chunk) {
	if !s.begun {
		s.begun = true
		s.first = openai.Chunk{ID: chunk.ID, Object: chunk.Object, Created: bytes.Clone(chunk.Created), Model: chunk.Model}
	}
	if chunk.Usage != nil && len(chunk.Choices) == 0 {
		s.usage = true
	}
	for at := range chunk.Choices {
		choice := &chunk.Choices[at]
		if choice.Index != 0 || !choice.Delta.OnlyText() {
			s.giveUp("the answer is more than one text")
		}
		said := choice.Said()
		if said != "" && !s.usageOnly {
			s.tokens++
		}
		if s.request != nil && !s.usageOnly {
			if s.text.Len()+len(said) > mostText {
				s.giveUp("the answer is too long to be kept")
			} else {
				s.text.WriteString(said)
			}
		}
		if choice.FinishReason != nil {
			s.finished = true
		}
	}
	if chunk.Usage != nil && len(chunk.Choices) > 0 && !s.usageOnly {
		// Servers that tell it with every event know better than a count of events.
		s.tokens = max(s.tokens, s.before+chunk.Usage.Completion)
		if s.resumes == 0 {
			s.prompt = chunk.Usage.Prompt
		}
	}
}

// fit changes the data of a resumed attempt's event into one of the first attempt; nil where the caller has it already.
func (s *stream) fit(data []byte, chunk *openai.Chunk) ([]byte, error) {
	fields := map[string]json.RawMessage{}
	if err := json.Unmarshal(data, &fields); err != nil {
		return nil, err
	}
	if len(chunk.Choices) > 0 {
		if s.usageOnly {
			return nil, nil
		}
		choices, needed, err := s.fitChoice(fields["choices"], &chunk.Choices[0])
		if err != nil || !needed {
			return nil, err
		}
		fields["choices"] = choices
	}
	var err error
	put := func(name string, value any) {
		raw, failed := openai.Marshal(value)
		fields[name], err = raw, errors.Join(err, failed)
	}
	if s.begun {
		put("id", s.first.ID)
		put("model", s.first.Model)
		fields["created"] = s.first.Created
	}
	if chunk.Usage != nil {
		usage := map[string]any{}
		if err := json.Unmarshal(fields["usage"], &usage); err != nil {
			return nil, err
		}
		prompt, completion := max(0, chunk.Usage.Prompt-s.given), s.before+chunk.Usage.Completion
		if s.prompt > 0 {
			prompt = s.prompt
		}
		if s.usageOnly {
			completion = s.before
		}
		usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"] = prompt, completion, prompt+completion
		put("usage", usage)
	}
	if err != nil {
		return nil, err
	}
	return openai.Marshal(fields)
}

// fitChoice drops the role, which the caller has, and white space that it has already.
func (s *stream) fitChoice(raw json.RawMessage, choice *openai.Choice) (json.RawMessage, bool, error) {
	if !s.begun {
		return raw, true, nil
	}
	var choices []map[string]json.RawMessage
	if err := json.Unmarshal(raw, &choices); err != nil {
		return nil, false, err
	}
	if s.blank() {
		// White space alone cannot be gone on from, so the answer began anew.
		choice.Delta.Content = strings.TrimLeft(choice.Delta.Content, " \t\r\n")
		choice.Text = strings.TrimLeft(choice.Text, " \t\r\n")
	}
	if choice.Said() == "" && choice.FinishReason == nil && choice.Delta.OnlyText() {
		return nil, false, nil
	}
	if text, is := choices[0]["text"]; is && len(text) > 0 {
		text, err := openai.Marshal(choice.Text)
		if err != nil {
			return nil, false, err
		}
		choices[0]["text"] = text
	}
	if delta, is := choices[0]["delta"]; is {
		fields := map[string]json.RawMessage{}
		if err := json.Unmarshal(delta, &fields); err != nil {
			return nil, false, err
		}
		delete(fields, "role")
		if _, is := fields["content"]; is {
			content, err := openai.Marshal(choice.Delta.Content)
			if err != nil {
				return nil, false, err
			}
			fields["content"] = content
		}
		delta, err := openai.Marshal(fields)
		if err != nil {
			return nil, false, err
		}
		choices[0]["delta"] = delta
	}
	changed, err := openai.Marshal(choices)
	return changed, true, err
}

// blank tells whether the caller has white space and nothing else.
func (s *stream) blank() bool { return s.text.Len() > 0 && strings.TrimSpace(s.text.String()) == "" }

// cut is called where the upstream broke off. said is its own error event, if it sent one. The caller gets the rest of the
// answer, or an error event.
func (s *stream) cut(cause string, said []byte) {
	from := s.attempt.cluster()
	_ = s.attempt.Close()
	s.announce = ""
	if s.request != nil && s.resume(from, cause) {
		return
	}
	if s.out.Context().Err() != nil && !errors.Is(context.Cause(s.out.Context()), serve.ErrStopping) {
		s.ended = context.Canceled
		return
	}
	s.relay.cut.Add(1)
	s.relay.log.Printf("cut path=%s cluster=%s tokens=%d cause=%q not-resumed=%q", s.out.URL.Path, from, s.tokens, cause, s.why)
	if s.inPart {
		s.pending.WriteString("\n\n")
	}
	if said == nil {
		message := fmt.Sprintf("the answer broke off after %d tokens (%s) and was not gone on with: %s", s.tokens, cause, s.why)
		said = openai.NewError(openai.StreamCut, http.StatusBadGateway, message).Event()
	}
	s.pending.Write(said)
	s.failed = true
	s.end()
}

// resume goes on elsewhere, or ends an answer that lacks nothing but its end. False, and why says the reason, where it does not.
func (s *stream) resume(from, cause string) bool {
	for {
		left := s.left()
		if left == 0 && !s.finished {
			s.finish()
		}
		if s.finished && (s.usage || !s.request.wantsUsage) {
			s.relay.log.Printf("completed path=%s cluster=%s tokens=%d cause=%q", s.out.URL.Path, from, s.tokens, cause)
			s.emit(openai.DoneEvent)
			s.lastDone = true
			s.end()
			return true
		}
		if s.resumes == mostResumes {
			if s.why == "" {
				s.why = fmt.Sprintf("it was cut %d times", mostResumes+1)
			}
			return false
		}
		if s.finished {
			// Only an engine can count the prompt, and it computes one token at least.
			left, s.usageOnly = 1, true
		}
		if !s.wait(pauses[s.barren]) {
			s.why = context.Cause(s.out.Context()).Error()
			return false
		}
		s.barren++
		s.resumes++
		next, err := s.goOn(left)
		switch {
		case err == nil:
			s.relay.resumed.Add(1)
			s.relay.log.Printf("resumed path=%s from=%s to=%s tokens=%d cause=%q resume=%d", s.out.URL.Path, from, next, s.tokens, cause, s.resumes)
			s.why = ""
			return true
		case errors.As(err, new(final)):
			s.why = err.Error()
			return false
		}
		s.why = reason(err)
	}
}

// left is how many tokens the caller may still get; -1 where it named no limit.
func (s *stream) left() int {
	if s.request.limit < 0 {
		return -1
	}
	return max(0, s.request.limit-s.tokens)
}

// final is an error with which further tries are in vain.
type final struct{ error }

// goOn asks for what is missing and gives the cluster that answers. Further tries may help unless its error is final.
func (s *stream) goOn(left int) (string, error) {
	text, given := s.text.String(), s.tokens
	if s.blank() {
		text, given = "", 0
	}
	body, err := s.request.resumed(text, s.tokens, left)
	if err != nil {
		return "", final{err}
	}
	next, err := s.relay.open(s.out.Clone(s.out.Context()), body, s.guard.policy.Idle)
	if err != nil {
		return "", err
	}
	if !isStream(next.answer) {
		_ = next.Close()
		err := fmt.Errorf("the next answer was HTTP %d", next.answer.StatusCode)
		if code := next.answer.StatusCode; code < http.StatusInternalServerError && code != http.StatusTooManyRequests {
			return "", final{err}
		}
		return "", err
	}
	cluster := clean(next.cluster())
	s.attempt, s.announce, s.before, s.given = next, cluster, s.tokens, given
	return cluster, nil
}

// finish says that the limit of tokens is reached, where the upstream could not.
func (s *stream) finish() {
	type choice struct {
		Index  int       `json:"index"`
		Delta  *struct{} `json:"delta,omitempty"`
		Text   *string   `json:"text,omitempty"`
		Reason string    `json:"finish_reason"`
	}
	last := choice{Reason: "length"}
	if s.request.chat {
		last.Delta = &struct{}{}
	} else {
		last.Text = new(string)
	}
	// Marshalling numbers and texts cannot fail.
	event, _ := openai.Marshal(map[string]any{
		"id": s.first.ID, "object": s.first.Object, "created": s.first.Created, "model": s.first.Model, "choices": []choice{last},
	})
	s.emit(openai.Event(event))
	s.finished = true
}

func (s *stream) wait(pause time.Duration) bool {
	if pause == 0 {
		return s.out.Context().Err() == nil
	}
	select {
	case <-time.After(pause):
		return true
	case <-s.out.Context().Done():
		return false
	}
}

// clean keeps a header's value from ending a comment.
func clean(name string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' {
			return -1
		}
		return c
	}, name)
}
