package standin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"inference-fleet/dataplane/internal/openai"
)

const (
	largestBody = 64 << 20
	// What vLLM and OpenAI take for an absent max_tokens of /completions.
	completionsDefault = 16
)

// Options of a stand-in.
type Options struct {
	Model, Revision string
	// How long a token takes.
	Token time.Duration
	// Length of a chat's answer where the request names no limit.
	Tokens int
	// Requests at once; 0 for no limit.
	Capacity int
	Stall    time.Duration
}

type server struct {
	Options
	engine *engine
	born   int64
	number atomic.Int64
}

// New makes the handler, and an engine that runs as long as the process.
func New(options Options) http.Handler {
	s := &server{Options: options, engine: newEngine(options.Token, options.Stall, options.Capacity), born: time.Now().Unix()}
	go s.engine.watch()
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/chat/completions", s.complete)
	mux.HandleFunc("POST /v1/completions", s.complete)
	mux.HandleFunc("GET /v1/models", s.models)
	mux.HandleFunc("GET /health", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /fleet/ready", s.ready)
	mux.HandleFunc("POST /stand-in/freeze", func(w http.ResponseWriter, _ *http.Request) { s.freeze(w, true) })
	mux.HandleFunc("POST /stand-in/thaw", func(w http.ResponseWriter, _ *http.Request) { s.freeze(w, false) })
	mux.HandleFunc("/", func(w http.ResponseWriter, in *http.Request) {
		openai.NewError("NotFoundError", http.StatusNotFound, "there is no "+in.Method+" "+in.URL.Path).Write(w)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, in *http.Request) {
		if s.Revision != "" {
			w.Header().Set("X-Fleet-Revision", s.Revision)
		}
		mux.ServeHTTP(w, in)
	})
}

func (s *server) freeze(w http.ResponseWriter, frozen bool) {
	s.engine.freeze(frozen)
	answer(w, http.StatusOK, map[string]bool{"frozen": frozen})
}

func (s *server) ready(w http.ResponseWriter, _ *http.Request) {
	if s.engine.now.Load().stalled {
		answer(w, http.StatusServiceUnavailable, map[string]string{"status": "stalled", "revision": s.Revision})
		return
	}
	answer(w, http.StatusOK, map[string]string{"status": "ready", "revision": s.Revision})
}

func (s *server) models(w http.ResponseWriter, _ *http.Request) {
	model := map[string]any{"id": s.Model, "object": "model", "created": s.born, "owned_by": "fleet-stand-in", "root": s.Model, "parent": nil}
	answer(w, http.StatusOK, map[string]any{"object": "list", "data": []any{model}})
}

func answer(w http.ResponseWriter, status int, value any) {
	// Nothing that is answered here fails to marshal.
	body, _ := openai.Marshal(value)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// asked is a request, as far as a counting engine reads it.
type asked struct {
	Model    string `json:"model"`
	Messages []struct {
		Role    string          `json:"role"`
		Content json.RawMessage `json:"content"`
	} `json:"messages"`
	Prompt        string `json:"prompt"`
	Stream        bool   `json:"stream"`
	N             *int   `json:"n"`
	MaxTokens     *int   `json:"max_tokens"`
	MaxCompletion *int   `json:"max_completion_tokens"`
	Continue      bool   `json:"continue_final_message"`
	Generation    *bool  `json:"add_generation_prompt"`
	Options       struct {
		Usage bool `json:"include_usage"`
	} `json:"stream_options"`
}

// answerPlan is what will be said: the numbers after last.
type answerPlan struct {
	chat    bool
	prompt  int // Words, which count as its tokens.
	last    int
	space   bool // The first word comes after one without a space.
	tokens  int
	reason  string
	stream  bool
	usage   bool
	id      string
	created int64
	model   string
}

func (s *server) complete(w http.ResponseWriter, in *http.Request) {
	plan, failure := s.plan(in)
	if failure != nil {
		failure.Write(w)
		return
	}
	switch err := s.engine.enter(); {
	case errors.Is(err, errFull):
		w.Header().Set("Retry-After", "1")
		openai.NewError(openai.Overloaded, http.StatusTooManyRequests, fmt.Sprintf("all %d places are taken", s.Capacity)).Write(w)
		return
	case err != nil:
		giveBack(w, err)
		return
	}
	defer s.engine.leave()
	if plan.stream {
		s.stream(w, in, plan)
		return
	}
	if err := s.engine.start().compute(in.Context(), plan.tokens); err != nil {
		giveBack(w, err)
		return
	}
	answer(w, http.StatusOK, plan.whole())
}

func stalledError() *openai.Error {
	return openai.NewError(openai.EngineStalled, http.StatusServiceUnavailable, errStalled.Error())
}

// giveBack ends a request that was not begun to be answered.
func giveBack(w http.ResponseWriter, err error) {
	if !errors.Is(err, errStalled) {
		// The caller left, or this process ends.
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("X-Fleet-Reason", "engine-stalled")
	stalledError().Write(w)
}

func (s *server) stream(w http.ResponseWriter, in *http.Request, plan *answerPlan) {
	control := http.NewResponseController(w)
	computing := s.engine.start()
	for number := 1; number <= plan.tokens; number++ {
		err := computing.compute(in.Context(), 1)
		if errors.Is(err, errStalled) && number > 1 {
			_, _ = w.Write(stalledError().Event())
			return
		}
		if err != nil {
			giveBack(w, err)
			return
		}
		var out []byte
		if number == 1 {
			// Not before the first token: until then a request can be given back.
			w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
			out = plan.opening()
		}
		out = append(out, plan.event(number)...)
		if number == plan.tokens {
			out = append(out, plan.closing()...)
		}
		if _, err := w.Write(out); err != nil || control.Flush() != nil {
			return
		}
	}
}

// plan reads a request. The answer goes on counting from the number that the prompt ends with.
func (s *server) plan(in *http.Request) (*answerPlan, *openai.Error) {
	invalid := func(format string, values ...any) (*answerPlan, *openai.Error) {
		return nil, openai.NewError("BadRequestError", http.StatusBadRequest, fmt.Sprintf(format, values...))
	}
	body, err := io.ReadAll(io.LimitReader(in.Body, largestBody+1))
	if err != nil || len(body) > largestBody {
		return invalid("the body must be whole and of %d bytes at most", largestBody)
	}
	var ask asked
	if err := json.Unmarshal(body, &ask); err != nil {
		return invalid("the body must be a request of this API: %v", err)
	}
	if ask.Model != s.Model {
		return nil, openai.NewError("NotFoundError", http.StatusNotFound, fmt.Sprintf("The model `%s` does not exist.", ask.Model))
	}
	if ask.N != nil && *ask.N != 1 {
		return invalid("n must be 1, got: `%d`", *ask.N)
	}
	now := time.Now()
	plan := &answerPlan{
		chat: strings.HasSuffix(in.URL.Path, "/chat/completions"), reason: "length", stream: ask.Stream, usage: ask.Options.Usage,
		created: now.Unix(), model: s.Model,
	}
	tail, limit := ask.Prompt, ask.MaxTokens
	if !plan.chat {
		if ask.Prompt == "" {
			return invalid("prompt must be one text")
		}
		plan.id = fmt.Sprintf("cmpl-%x-%x", now.UnixNano(), s.number.Add(1))
		plan.prompt = len(strings.Fields(ask.Prompt))
		plan.tokens = completionsDefault
	} else {
		if len(ask.Messages) == 0 {
			return invalid("messages must not be empty")
		}
		if ask.Continue && (ask.Generation == nil || *ask.Generation) {
			return invalid("Cannot set both `continue_final_message` and `add_generation_prompt` to True.")
		}
		plan.id = fmt.Sprintf("chatcmpl-%x-%x", now.UnixNano(), s.number.Add(1))
		texts := make([]string, len(ask.Messages))
		for at, message := range ask.Messages {
			texts[at] = text(message.Content)
			plan.prompt += len(strings.Fields(texts[at]))
		}
		tail, plan.tokens, plan.reason = texts[len(texts)-1], s.Tokens, "stop"
		if ask.Continue {
			// The caller has a part of the answer.
			before := ""
			if len(texts) > 1 {
				before = texts[len(texts)-2]
			}
			plan.tokens = max(1, s.Tokens-(number(tail)-number(before)))
		}
		if limit == nil {
			limit = ask.MaxCompletion
		}
	}
	plan.last = number(tail)
	// A chat's answer begins a message; all else follows on a text.
	plan.space = (!plan.chat || ask.Continue) && !strings.HasSuffix(tail, " ") && tail != ""
	if limit != nil {
		if *limit < 1 {
			return invalid("max_tokens must be 1 or more, got: `%d`", *limit)
		}
		plan.tokens, plan.reason = *limit, "length"
	}
	return plan, nil
}

// text is a message's content: a text or a list of parts.
func text(content json.RawMessage) string {
	var whole string
	if json.Unmarshal(content, &whole) == nil {
		return whole
	}
	var parts []struct {
		Text string `json:"text"`
	}
	_ = json.Unmarshal(content, &parts)
	texts := make([]string, len(parts))
	for at, part := range parts {
		texts[at] = part.Text
	}
	return strings.Join(texts, " ")
}

// number is the one that a text ends with; 0 where it ends otherwise.
func number(text string) int {
	words := strings.Fields(text)
	if len(words) == 0 {
		return 0
	}
	value, err := strconv.Atoi(words[len(words)-1])
	if err != nil || value < 0 || value > 1<<40 {
		return 0
	}
	return value
}

// token is the text of the number-th token.
func (p *answerPlan) token(number int) string {
	word := strconv.Itoa(p.last + number)
	if number > 1 || p.space {
		return " " + word
	}
	return word
}

func (p *answerPlan) counts() map[string]int {
	return map[string]int{"prompt_tokens": p.prompt, "completion_tokens": p.tokens, "total_tokens": p.prompt + p.tokens}
}

func (p *answerPlan) whole() map[string]any {
	var text strings.Builder
	for number := range p.tokens {
		text.WriteString(p.token(number + 1))
	}
	choice := map[string]any{"index": 0, "logprobs": nil, "finish_reason": p.reason}
	object := "text_completion"
	if p.chat {
		object = "chat.completion"
		choice["message"] = map[string]any{"role": "assistant", "content": text.String(), "refusal": nil}
	} else {
		choice["text"] = text.String()
	}
	return map[string]any{"id": p.id, "object": object, "created": p.created, "model": p.model, "choices": []any{choice}, "usage": p.counts()}
}

// chunk is an event. Written by hand: it is most of what a stand-in computes.
func (p *answerPlan) chunk(choices string) []byte {
	object := "text_completion"
	if p.chat {
		object = "chat.completion.chunk"
	}
	model, _ := openai.Marshal(p.model)
	return fmt.Appendf(nil, "data: {\"id\":%q,\"object\":%q,\"created\":%d,\"model\":%s,\"choices\":[%s]", p.id, object, p.created, model, choices)
}

func (p *answerPlan) opening() []byte {
	if !p.chat {
		return nil
	}
	return append(p.chunk(`{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}`), "}\n\n"...)
}

func (p *answerPlan) event(number int) []byte {
	reason := "null"
	if number == p.tokens {
		reason = strconv.Quote(p.reason)
	}
	said := fmt.Sprintf(`"text":%q`, p.token(number))
	if p.chat {
		said = fmt.Sprintf(`"delta":{"content":%q}`, p.token(number))
	}
	return append(p.chunk(fmt.Sprintf(`{"index":0,%s,"logprobs":null,"finish_reason":%s}`, said, reason)), "}\n\n"...)
}

func (p *answerPlan) closing() []byte {
	if !p.usage {
		return openai.DoneEvent
	}
	// Marshalling numbers cannot fail.
	usage, _ := openai.Marshal(p.counts())
	event := append(p.chunk(""), `,"usage":`...)
	return append(append(append(event, usage...), "}\n\n"...), openai.DoneEvent...)
}
