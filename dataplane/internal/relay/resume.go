package relay

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// What vLLM and OpenAI take for an absent max_tokens of /completions. Chats have no such limit.
const completionsDefault = 16

// request is a completion that can be taken up again in the middle of its answer.
type request struct {
	fields map[string]json.RawMessage
	chat   bool
	// The most tokens that the caller wants; -1 where it named no limit.
	limit      int
	wantsUsage bool
}

// Fields with which an answer is more than text, or its text is not what an engine would go on with. Each is fine while it has
// the value that means nothing.
var refused = []string{
	"tools", "tool_choice", "functions", "function_call", "response_format", "structured_outputs",
	"logprobs", "top_logprobs", "prompt_logprobs", "logprob_token_ids", "echo", "suffix", "use_beam_search", "prompt_embeds",
	"truncate_prompt_tokens", "return_token_ids", "kv_transfer_params", "continue_final_message", "audio",
}

// parseRequest reads the body of a request to a path that ends in /chat/completions or /completions.
// The error says why its answer cannot be resumed.
func parseRequest(path string, body []byte) (*request, error) {
	r := &request{chat: strings.HasSuffix(path, "/chat/completions"), limit: -1}
	if err := json.Unmarshal(body, &r.fields); err != nil {
		return nil, errors.New("the request is not a JSON object")
	}
	for name, value := range r.fields {
		if strings.HasPrefix(name, "guided_") && !void(value) {
			return nil, fmt.Errorf("the request has %s", name)
		}
	}
	for _, name := range refused {
		if value := r.fields[name]; !void(value) && !plainText(name, value) {
			return nil, fmt.Errorf("the request has %s", name)
		}
	}
	for _, name := range []string{"n", "best_of"} {
		if value := r.fields[name]; !void(value) && string(value) != "1" {
			return nil, fmt.Errorf("%s of the request is not 1", name)
		}
	}
	if string(r.fields["add_generation_prompt"]) == "false" {
		return nil, errors.New("the request has add_generation_prompt false")
	}
	var options struct {
		Usage bool `json:"include_usage"`
	}
	_ = json.Unmarshal(r.fields["stream_options"], &options)
	r.wantsUsage = options.Usage
	for _, name := range r.limits() {
		if value := r.number(name); value >= 0 && (r.limit < 0 || value < r.limit) {
			r.limit = value
		}
	}
	if r.chat {
		var messages []struct {
			Role string `json:"role"`
		}
		if json.Unmarshal(r.fields["messages"], &messages) != nil || len(messages) == 0 {
			return nil, errors.New("the request has no messages")
		}
		if messages[len(messages)-1].Role == "assistant" {
			return nil, errors.New("the last message is the assistant's")
		}
		return r, nil
	}
	if r.limit < 0 {
		r.limit = completionsDefault
	}
	if r.prompt() == "" {
		return nil, errors.New("the prompt is not one text")
	}
	return r, nil
}

// prompt is that of a plain completion; empty where it is not one text.
func (r *request) prompt() string {
	text := ""
	if json.Unmarshal(r.fields["prompt"], &text) != nil {
		return ""
	}
	return text
}

func (r *request) limits() []string {
	if r.chat {
		return []string{"max_tokens", "max_completion_tokens"}
	}
	return []string{"max_tokens"}
}

// number is a field that is a whole number; -1 where it is none.
func (r *request) number(name string) int {
	value := -1
	if raw := r.fields[name]; !void(raw) && json.Unmarshal(raw, &value) != nil {
		return -1
	}
	return value
}

// resumed is the body that asks for what follows after text, which was computed with `sent` tokens; at most `most` further
// ones, -1 for no limit.
func (r *request) resumed(text string, sent, most int) ([]byte, error) {
	fields := make(map[string]json.RawMessage, len(r.fields)+3)
	for name, value := range r.fields {
		fields[name] = value
	}
	put := func(name string, value any) error {
		raw, err := json.Marshal(value)
		fields[name] = raw
		return err
	}
	var failed error
	if most >= 0 {
		set := false
		for _, name := range r.limits() {
			if r.number(name) >= 0 {
				failed, set = errors.Join(failed, put(name, most)), true
			}
		}
		if !set {
			failed = errors.Join(failed, put("max_tokens", most))
		}
	}
	if least := r.number("min_tokens"); least > 0 {
		least = max(0, least-sent)
		if most >= 0 {
			least = min(least, most)
		}
		failed = errors.Join(failed, put("min_tokens", least))
	}
	switch {
	case text == "":
	case r.chat:
		said := map[string]string{"role": "assistant", "content": text}
		raw, err := json.Marshal(said)
		messages := append(bytes.Clone(bytes.TrimSuffix(bytes.TrimSpace(r.fields["messages"]), []byte("]"))), ',')
		fields["messages"] = append(append(messages, raw...), ']')
		failed = errors.Join(failed, err, put("continue_final_message", true), put("add_generation_prompt", false))
	default:
		failed = errors.Join(failed, put("prompt", r.prompt()+text))
	}
	if failed != nil {
		return nil, failed
	}
	return json.Marshal(fields)
}

// void tells whether a field is absent or says what its absence says.
func void(value json.RawMessage) bool {
	switch string(value) {
	case "", "null", "false", "[]", "{}", `""`:
		return true
	}
	return false
}

// plainText tells whether a field that can ask for more than text asks for text.
func plainText(name string, value json.RawMessage) bool {
	switch name {
	case "tool_choice", "function_call":
		return string(value) == `"none"`
	case "top_logprobs":
		// Of a plain completion `logprobs: 0` asks for those of the chosen tokens.
		return string(value) == "0"
	case "response_format":
		var format struct {
			Type string `json:"type"`
		}
		return json.Unmarshal(value, &format) == nil && format.Type == "text"
	}
	return false
}
