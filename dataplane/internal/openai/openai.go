// Package openai has the parts of the OpenAI API that a relay and a load generator look at: errors and the events of a stream.
package openai

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// Types of the errors that the fleet's own parts make.
const (
	RegionLost    = "region_lost"
	EngineStalled = "engine_stalled"
	Overloaded    = "overloaded"
	StreamCut     = "stream_cut"
)

// Done is the data of the event that ends a stream.
var Done = []byte("[DONE]")

// DoneEvent is that event.
var DoneEvent = []byte("data: [DONE]\n\n")

// Error is the object under "error" of an answer or of an event.
type Error struct {
	Message string `json:"message"`
	Type    string `json:"type"`
	// A number for the fleet's parts and vLLM, a word or null elsewhere.
	Code json.RawMessage `json:"code"`
}

// NewError is an error with the HTTP status that fits it.
func NewError(kind string, code int, message string) *Error {
	return &Error{Message: message, Type: kind, Code: json.RawMessage(strconv.Itoa(code))}
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %s", e.Type, e.Message) }

// Status is the HTTP status in Code; 0 where Code is none.
func (e *Error) Status() int {
	code, err := strconv.Atoi(strings.Trim(string(e.Code), `"`))
	if err != nil || code < 100 || code > 599 {
		return 0
	}
	return code
}

// Body is the JSON of an answer that is this error.
func (e *Error) Body() []byte {
	// Marshalling three strings cannot fail.
	body, _ := Marshal(map[string]*Error{"error": e})
	return body
}

// Event is this error inside a stream that has begun.
func (e *Error) Event() []byte { return Event(e.Body()) }

// Write answers a request with this error.
func (e *Error) Write(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(e.Status())
	_, _ = w.Write(e.Body())
}

// Event is a server-sent event with this data, which holds no line break.
func Event(data []byte) []byte {
	event := make([]byte, 0, len(data)+8)
	event = append(event, "data: "...)
	event = append(event, data...)
	return append(event, "\n\n"...)
}

// Marshal is json.Marshal without escapes for HTML, which no server of this API makes.
func Marshal(value any) ([]byte, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}

// Chunk is an event of a streamed completion, of either kind. Fields that nobody here looks at are left out.
type Chunk struct {
	ID      string          `json:"id"`
	Object  string          `json:"object"`
	Created json.RawMessage `json:"created"`
	Model   string          `json:"model"`
	Choices []Choice        `json:"choices"`
	Usage   *Usage          `json:"usage"`
	Error   *Error          `json:"error"`
}

// Choice is one answer of several in an event: Delta of a chat, Text of a plain completion.
type Choice struct {
	Index        int     `json:"index"`
	Delta        Delta   `json:"delta"`
	Text         string  `json:"text"`
	FinishReason *string `json:"finish_reason"`
}

// Aborted is the finish reason with which vLLM ends what it did not finish, as when it is told to stop; empty for other reasons.
func (c *Choice) Aborted() string {
	if c.FinishReason != nil && (*c.FinishReason == "abort" || *c.FinishReason == "error") {
		return *c.FinishReason
	}
	return ""
}

// Said is the text that this event adds.
func (c *Choice) Said() string { return c.Delta.Content + c.Text }

// Delta is what an event adds to a message. All but Role and Content cannot be handed to an engine to go on from.
type Delta struct {
	Role             string          `json:"role"`
	Content          string          `json:"content"`
	Reasoning        json.RawMessage `json:"reasoning"`
	ReasoningContent json.RawMessage `json:"reasoning_content"`
	ToolCalls        json.RawMessage `json:"tool_calls"`
	FunctionCall     json.RawMessage `json:"function_call"`
	Refusal          json.RawMessage `json:"refusal"`
	Audio            json.RawMessage `json:"audio"`
}

// OnlyText tells whether there is nothing but a role and text.
func (d *Delta) OnlyText() bool {
	for _, other := range []json.RawMessage{d.Reasoning, d.ReasoningContent, d.ToolCalls, d.FunctionCall, d.Refusal, d.Audio} {
		switch string(other) {
		case "", "null", `""`, "[]", "{}":
		default:
			return false
		}
	}
	return true
}

// Usage counts tokens.
type Usage struct {
	Prompt     int `json:"prompt_tokens"`
	Completion int `json:"completion_tokens"`
	Total      int `json:"total_tokens"`
}
