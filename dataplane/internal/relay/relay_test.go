package relay

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"inference-fleet/dataplane/internal/openai"
	"inference-fleet/dataplane/internal/serve"
)

const (
	watched = "resume=true;idle=30;buffer=100000"
	hello   = `{"model":"m","messages":[{"role":"user","content":"Hello"}],"stream":true,"max_tokens":6}`
)

// play is what an upstream does with one request.
type play func(w http.ResponseWriter, in *http.Request)

// world is a relay before an upstream that plays one part for each request.
type world struct {
	t     *testing.T
	relay *Relay
	url   string
	log   *bytes.Buffer

	lock   sync.Mutex
	plays  []play
	bodies []string
	heads  []http.Header
}

func newWorld(t *testing.T, plays ...play) *world {
	return newWorldOf(t, Options{Memory: 1 << 20}, plays...)
}

func newWorldOf(t *testing.T, options Options, plays ...play) *world {
	t.Helper()
	pauses = [mostResumes]time.Duration{}
	w := &world{t: t, log: &bytes.Buffer{}, plays: plays}
	upstream := httptest.NewServer(http.HandlerFunc(w.answer))
	t.Cleanup(upstream.Close)
	options.Upstream, _ = url.Parse(upstream.URL)
	options.Log = log.New(w.log, "", 0)
	w.relay = New(options)
	front := httptest.NewServer(w.relay)
	t.Cleanup(front.Close)
	w.url = front.URL
	return w
}

func (w *world) answer(out http.ResponseWriter, in *http.Request) {
	body, _ := io.ReadAll(in.Body)
	w.lock.Lock()
	w.bodies = append(w.bodies, string(body))
	w.heads = append(w.heads, in.Header)
	if len(w.plays) == 0 {
		w.lock.Unlock()
		w.t.Error("the upstream was asked more often than expected")
		return
	}
	next := w.plays[0]
	w.plays = w.plays[1:]
	w.lock.Unlock()
	next(out, in)
}

func (w *world) request(path, body string, headers ...string) *http.Request {
	request, err := http.NewRequest(http.MethodPost, w.url+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	request.Header.Set(PolicyHeader, watched)
	for at := 0; at < len(headers); at += 2 {
		request.Header.Set(headers[at], headers[at+1])
	}
	return request
}

func (w *world) ask(path, body string, headers ...string) (*http.Response, string, error) {
	w.t.Helper()
	answer, err := http.DefaultClient.Do(w.request(path, body, headers...))
	if err != nil {
		w.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	return answer, string(text), err
}

// streaming sends events of the cluster and then ends as told.
func streaming(cluster string, end play, events ...string) play {
	return func(w http.ResponseWriter, in *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("X-Fleet-Cluster", cluster)
		_ = http.NewResponseController(w).Flush()
		for _, event := range events {
			_, _ = io.WriteString(w, event)
			_ = http.NewResponseController(w).Flush()
		}
		if end != nil {
			end(w, in)
		}
	}
}

func broken(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

func hangs(_ http.ResponseWriter, in *http.Request) { <-in.Context().Done() }

func status(code int) play {
	return func(w http.ResponseWriter, _ *http.Request) { openai.NewError(openai.Overloaded, code, "no").Write(w) }
}

func event(id, delta, reason string) string {
	if reason != "null" {
		reason = `"` + reason + `"`
	}
	return fmt.Sprintf("data: {\"id\":%q,\"object\":\"chat.completion.chunk\",\"created\":%d,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":%s,\"finish_reason\":%s}]}\n\n",
		id, len(id), delta, reason)
}

func role(id string) string      { return event(id, `{"role":"assistant","content":""}`, "null") }
func say(id, text string) string { return event(id, fmt.Sprintf(`{"content":%q}`, text), "null") }
func last(id, text string) string {
	return event(id, fmt.Sprintf(`{"content":%q}`, text), "stop")
}

func usage(id string, prompt, completion int) string {
	return fmt.Sprintf("data: {\"id\":%q,\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[],\"usage\":{\"prompt_tokens\":%d,\"completion_tokens\":%d,\"total_tokens\":%d}}\n\n",
		id, prompt, completion, prompt+completion)
}

const done = "data: [DONE]\n\n"

// seen is what a caller makes of a stream.
type seen struct {
	text, reason, failure string
	ids                   map[string]bool
	roles, usages         int
	usage                 openai.Usage
	done                  bool
	comments              []string
}

func read(t *testing.T, text string) seen {
	t.Helper()
	got := seen{ids: map[string]bool{}}
	if !strings.HasSuffix(text, "\n\n") {
		t.Errorf("the stream ends within an event: %q", text)
	}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if comment, is := strings.CutPrefix(line, ": "); is {
			got.comments = append(got.comments, comment)
		}
		data, is := strings.CutPrefix(line, "data: ")
		if !is {
			continue
		}
		if got.done || got.failure != "" {
			t.Errorf("something follows the end: %q", line)
		}
		if data == "[DONE]" {
			got.done = true
			continue
		}
		var chunk openai.Chunk
		if err := json.Unmarshal([]byte(data), &chunk); err != nil {
			t.Errorf("%v: %q", err, data)
		}
		if chunk.Error != nil {
			got.failure = chunk.Error.Type
			continue
		}
		got.ids[chunk.ID+string(chunk.Created)] = true
		if chunk.Usage != nil {
			got.usages++
			got.usage = *chunk.Usage
		}
		for _, choice := range chunk.Choices {
			got.text += choice.Said()
			if choice.Delta.Role != "" {
				got.roles++
			}
			if choice.FinishReason != nil {
				got.reason += *choice.FinishReason
			}
		}
	}
	return got
}

func TestAnUnbrokenStreamComesByteForByte(t *testing.T) {
	events := []string{": hello\n\n", role("a"), say("a", "1"), "event: x\r\ndata: {}\r\n\r\n", last("a", " 2"), done}
	w := newWorld(t, streaming("us-east", nil, events...))
	answer, text, err := w.ask(chatPath, hello)
	if err != nil || text != strings.Join(events, "") {
		t.Errorf("got %q, %v", text, err)
	}
	if answer.Header.Get("X-Fleet-Cluster") != "us-east" {
		t.Errorf("got %v", answer.Header)
	}
	if w.heads[0].Get(PolicyHeader) != "" {
		t.Error("the policy must not reach the regions")
	}
	if w.bodies[0] != hello {
		t.Errorf("got %q", w.bodies[0])
	}
}

func TestACutStreamGoesOnElsewhereAsOneAnswer(t *testing.T) {
	for name, cut := range map[string]struct {
		end  play
		tail string
	}{
		"broken connection":    {broken, ""},
		"broken in an event":   {broken, `data: {"id":"a","choi`},
		"ended without [DONE]": {nil, ""},
		"engine stalled":       {hangs, string(openai.NewError(openai.EngineStalled, 503, "stalled").Event())},
		"engine told to stop":  {nil, event("a", `{"content":""}`, "abort") + done},
		"engine dead":          {hangs, string(openai.NewError("InternalServerError", 500, "dead").Event())},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t,
				streaming("us-east", cut.end, role("a"), say("a", "1"), say("a", " 2"), cut.tail),
				streaming("us-west", nil, role("bb"), say("bb", " 3"), last("bb", " <4>"), done))
			_, text, err := w.ask(chatPath, hello)
			got := read(t, text)
			if err != nil || got.text != "1 2 3 <4>" || got.reason != "stop" || got.roles != 1 || !got.done || len(got.ids) != 1 {
				t.Errorf("got %+v, %v", got, err)
			}
			if !strings.Contains(text, ": resumed us-west\n\ndata: ") || len(got.comments) != 1 {
				t.Errorf("got %q", text)
			}
			var second map[string]any
			_ = json.Unmarshal([]byte(w.bodies[1]), &second)
			same(t, second, `{"model":"m","stream":true,"max_tokens":4,"continue_final_message":true,"add_generation_prompt":false,
				"messages":[{"role":"user","content":"Hello"},{"role":"assistant","content":"1 2"}]}`)
			if logged := w.log.String(); strings.Count(logged, "\n") != 1 || strings.Contains(logged, "Hello") {
				t.Errorf("logged %q", logged)
			}
		})
	}
}

func TestAPlainCompletionGoesOn(t *testing.T) {
	part := func(id, text, reason string) string {
		return fmt.Sprintf("data: {\"id\":%q,\"object\":\"text_completion\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"text\":%q,\"finish_reason\":%s}]}\n\n", id, text, reason)
	}
	w := newWorld(t,
		streaming("us-east", broken, part("a", " upon", "null")),
		streaming("us-west", nil, part("b", " a time", `"length"`), done))
	_, text, err := w.ask(textPath, `{"prompt":"Once","stream":true,"max_tokens":3}`)
	if got := read(t, text); err != nil || got.text != " upon a time" || got.reason != "length" || len(got.ids) != 1 || !got.done {
		t.Errorf("got %+v, %v", got, err)
	}
	var second map[string]any
	_ = json.Unmarshal([]byte(w.bodies[1]), &second)
	same(t, second, `{"prompt":"Once upon","stream":true,"max_tokens":2}`)
}

func TestASilentStreamIsCut(t *testing.T) {
	w := newWorld(t,
		streaming("us-east", hangs, role("a"), say("a", "1")),
		streaming("us-west", nil, last("b", " 2"), done))
	_, text, err := w.ask(chatPath, hello, PolicyHeader, "resume=true;idle=0.05;buffer=1000")
	if got := read(t, text); err != nil || got.text != "1 2" || !got.done {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestOnlyTheRoleCameAndTheAnswerBeginsAnew(t *testing.T) {
	w := newWorld(t,
		streaming("us-east", broken, role("a")),
		streaming("us-west", nil, role("b"), say("b", "1"), last("b", " 2"), done))
	_, text, err := w.ask(chatPath, hello)
	if got := read(t, text); err != nil || got.text != "1 2" || got.roles != 1 || !got.done || len(got.ids) != 1 {
		t.Errorf("got %+v, %v", got, err)
	}
	var first, second any
	_, _ = json.Unmarshal([]byte(hello), &first), json.Unmarshal([]byte(w.bodies[1]), &second)
	if fmt.Sprint(first) != fmt.Sprint(second) {
		t.Errorf("got %v", second)
	}
}

func TestWhiteSpaceAloneIsNotSaidTwice(t *testing.T) {
	w := newWorld(t,
		streaming("us-east", broken, role("a"), say("a", "\n\n")),
		streaming("us-west", nil, role("b"), say("b", "\n\n"), last("b", " 1"), done))
	_, text, err := w.ask(chatPath, hello)
	if got := read(t, text); err != nil || got.text != "\n\n1" || !got.done {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestUsageIsThatOfTheWholeAnswer(t *testing.T) {
	body := strings.Replace(hello, `"max_tokens":6`, `"max_tokens":6,"stream_options":{"include_usage":true}`, 1)
	w := newWorld(t,
		streaming("us-east", broken, role("a"), say("a", "1"), say("a", " 2")),
		streaming("us-west", nil, role("b"), say("b", " 3"), last("b", " 4"), usage("b", 12, 2), done))
	_, text, err := w.ask(chatPath, body)
	got := read(t, text)
	if err != nil || got.usages != 1 || got.usage != (openai.Usage{Prompt: 10, Completion: 4, Total: 14}) || len(got.ids) != 1 {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestACutAfterTheLastTokenOnlyEnds(t *testing.T) {
	w := newWorld(t, streaming("us-east", broken, role("a"), say("a", "1"), last("a", " 2")))
	_, text, err := w.ask(chatPath, hello)
	if got := read(t, text); err != nil || got.text != "1 2" || got.reason != "stop" || !got.done {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestACutBeforeTheUsageAsksForTheUsageAlone(t *testing.T) {
	body := strings.Replace(hello, `"max_tokens":6`, `"stream_options":{"include_usage":true}`, 1)
	w := newWorld(t,
		streaming("us-east", broken, role("a"), say("a", "1"), last("a", " 2")),
		streaming("us-west", nil, role("b"), event("b", `{"content":" 3"}`, "length"), usage("b", 12, 1), done))
	_, text, err := w.ask(chatPath, body)
	got := read(t, text)
	if err != nil || got.text != "1 2" || got.reason != "stop" || !got.done || got.usage != (openai.Usage{Prompt: 10, Completion: 2, Total: 12}) {
		t.Errorf("got %+v, %v", got, err)
	}
	if !strings.Contains(w.bodies[1], `"max_tokens":1`) {
		t.Errorf("got %q", w.bodies[1])
	}
}

func TestWhereNoTokenIsLeftTheAnswerEndsForItsLength(t *testing.T) {
	body := strings.Replace(hello, `"max_tokens":6`, `"max_tokens":2`, 1)
	w := newWorld(t, streaming("us-east", broken, role("a"), say("a", "1"), say("a", " 2")))
	_, text, err := w.ask(chatPath, body)
	if got := read(t, text); err != nil || got.text != "1 2" || got.reason != "length" || !got.done || len(got.ids) != 1 {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestAStreamIsResumedThreeTimesAtMost(t *testing.T) {
	cuts := func(id, text string) play { return streaming("us-east", broken, role(id), say(id, text)) }
	w := newWorld(t, cuts("a", "1"), cuts("b", " 2"), cuts("c", " 3"), cuts("d", " 4"))
	_, text, err := w.ask(chatPath, hello)
	if got := read(t, text); err != nil || got.text != "1 2 3 4" || got.failure != openai.StreamCut || got.done || len(got.comments) != 3 {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestAnAnswerThatIsWholeEndsAlsoAfterTheLastResume(t *testing.T) {
	cuts := func(id, text string) play { return streaming("us-east", broken, role(id), say(id, text)) }
	w := newWorld(t, cuts("a", "1"), cuts("b", " 2"), cuts("c", " 3"), streaming("us-west", broken, last("d", " 4")))
	_, text, err := w.ask(chatPath, hello)
	if got := read(t, text); err != nil || got.text != "1 2 3 4" || got.reason != "stop" || !got.done {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestARegionThatRefusesIsAskedAgain(t *testing.T) {
	w := newWorld(t,
		streaming("us-east", broken, role("a"), say("a", "1")),
		status(503), status(429),
		streaming("us-west", nil, last("b", " 2"), done))
	_, text, err := w.ask(chatPath, hello)
	if got := read(t, text); err != nil || got.text != "1 2" || !got.done || len(got.comments) != 1 {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestACutThatCannotBeResumedEndsWithAnErrorEvent(t *testing.T) {
	first := []string{role("a"), say("a", "1")}
	for name, each := range map[string]struct {
		body    string
		headers []string
		second  []play
		first   []string
	}{
		"a request with tools":         {body: strings.Replace(hello, `"stream"`, `"tools":[{}],"stream"`, 1)},
		"the caller does not want it":  {headers: []string{ResumeHeader, "never"}},
		"resuming is off":              {headers: []string{PolicyHeader, "resume=false;idle=30;buffer=100000"}},
		"a request too large to keep":  {headers: []string{PolicyHeader, "resume=true;idle=30;buffer=20"}},
		"the next region refuses it":   {second: []play{status(400)}},
		"no region answers":            {second: []play{status(503), status(503), status(503)}},
		"the next answer is no stream": {second: []play{func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{}") }}},
		"the answer has tool calls":    {first: []string{event("a", `{"tool_calls":[{"index":0}]}`, "null")}},
		"the answer has reasoning":     {first: []string{event("a", `{"reasoning":"Hm"}`, "null")}},
		"broken within a large event":  {first: []string{say("a", "1"), "data: " + strings.Repeat("x", largestEvent+100)}},
	} {
		t.Run(name, func(t *testing.T) {
			body := each.body
			if body == "" {
				body = hello
			}
			if each.first == nil {
				each.first = first
			}
			w := newWorld(t, append([]play{streaming("us-east", broken, each.first...)}, each.second...)...)
			_, text, err := w.ask(chatPath, body, each.headers...)
			if err != nil {
				t.Fatalf("the body must end properly: %v", err)
			}
			if at := strings.LastIndex(text, "data: "); at < 0 || !strings.HasSuffix(text[:at], "\n\n") {
				t.Errorf("the error must be an event of its own")
			} else if got := read(t, text[at:]); got.failure != openai.StreamCut || got.done {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestAnEnginesOwnErrorIsKeptWhereTheStreamIsNotResumed(t *testing.T) {
	stalled := openai.NewError(openai.EngineStalled, 503, "stalled").Event()
	w := newWorld(t, streaming("us-east", nil, role("a"), say("a", "1"), string(stalled)))
	_, text, err := w.ask(chatPath, hello, ResumeHeader, "never")
	if err != nil || !strings.HasSuffix(text, string(stalled)) {
		t.Errorf("got %q, %v", text, err)
	}
}

func TestAnErrorOfTheRequestIsPassedOn(t *testing.T) {
	bad := openai.NewError("BadRequestError", 400, "bad").Event()
	w := newWorld(t, streaming("us-east", nil, role("a"), string(bad), done))
	_, text, err := w.ask(chatPath, hello)
	if err != nil || text != role("a")+string(bad)+done {
		t.Errorf("got %q, %v", text, err)
	}
}

func TestBeforeTheFirstEventTheRequestIsSentOnceMore(t *testing.T) {
	for name, first := range map[string]play{
		"no answer":            broken,
		"no event":             streaming("us-east", broken),
		"ended without events": streaming("us-east", nil),
		"an engine's error":    streaming("us-east", nil, string(openai.NewError(openai.EngineStalled, 503, "stalled").Event())),
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, first, streaming("us-west", nil, role("b"), last("b", "1"), done))
			answer, text, err := w.ask(chatPath, hello)
			if err != nil || text != role("b")+last("b", "1")+done || answer.Header.Get("X-Fleet-Cluster") != "us-west" {
				t.Errorf("got %v, %q, %v", answer.Header, text, err)
			}
			if w.bodies[1] != hello {
				t.Errorf("got %q", w.bodies[1])
			}
		})
	}
}

func TestAnAnswerThatNeverBeginsIsAnError(t *testing.T) {
	for name, each := range map[string]struct {
		play play
		code int
		kind string
	}{
		"broken":          {broken, 502, openai.RegionLost},
		"without events":  {streaming("us-east", broken), 502, openai.StreamCut},
		"stalled engines": {streaming("us-east", nil, string(openai.NewError(openai.EngineStalled, 503, "stalled").Event())), 503, openai.EngineStalled},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, each.play, each.play)
			answer, text, err := w.ask(chatPath, hello)
			var body struct{ Error openai.Error }
			if json.Unmarshal([]byte(text), &body) != nil || answer.StatusCode != each.code || body.Error.Type != each.kind || err != nil {
				t.Errorf("got %d, %q, %v", answer.StatusCode, text, err)
			}
		})
	}
}

func TestStatusHeadersAndTrailersPass(t *testing.T) {
	w := newWorld(t, func(out http.ResponseWriter, in *http.Request) {
		out.Header().Set("Retry-After", "1")
		out.Header().Set("Trailer", "X-Sum")
		out.WriteHeader(http.StatusTooManyRequests)
		_, _ = io.WriteString(out, in.Header.Get("X-Forwarded-For")+in.Host)
		out.Header().Set("X-Sum", "7")
	})
	request := w.request(chatPath, hello, "X-Forwarded-For", "10.0.0.1")
	request.Host = "front.door"
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != 429 || string(text) != "10.0.0.1front.door" || answer.Header.Get("Retry-After") != "1" || answer.Trailer.Get("X-Sum") != "7" {
		t.Errorf("got %+v, %q, %v", answer, text, err)
	}
}

func TestAnAnswerThatIsNoStreamBreaksWhereItsServerBreaks(t *testing.T) {
	for _, policy := range []string{"", watched} {
		w := newWorld(t, func(out http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(out, `{"id":`)
			_ = http.NewResponseController(out).Flush()
			panic(http.ErrAbortHandler)
		})
		if _, text, err := w.ask(chatPath, strings.Replace(hello, "true", "false", 1), PolicyHeader, policy); err == nil {
			t.Errorf("a broken answer must not look whole, got %q", text)
		}
	}
}

func TestACallerThatLeavesEndsTheComputation(t *testing.T) {
	for _, policy := range []string{"", watched} {
		left := make(chan struct{})
		w := newWorld(t, streaming("us-east", func(_ http.ResponseWriter, in *http.Request) {
			<-in.Context().Done()
			close(left)
		}, role("a"), say("a", "1")))
		ctx, leave := context.WithCancel(context.Background())
		answer, err := http.DefaultClient.Do(w.request(chatPath, hello, PolicyHeader, policy).WithContext(ctx))
		if err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(answer.Body).ReadString('\n'); err != nil || !strings.HasPrefix(line, "data: ") {
			t.Fatalf("an event must come at once, got %q, %v", line, err)
		}
		leave()
		select {
		case <-left:
		case <-time.After(10 * time.Second):
			t.Fatal("the upstream's request was not ended")
		}
		if strings.Contains(w.log.String(), "cut") {
			t.Errorf("a caller that leaves is no cut: %q", w.log)
		}
	}
}

func TestARequestTooLargeToKeepStillPasses(t *testing.T) {
	body := strings.Replace(hello, "Hello", strings.Repeat("Hello", 40_000), 1)
	for name, options := range map[string]Options{"by the policy": {Memory: 1 << 20}, "by the memory": {Memory: 1000}} {
		for _, chunked := range []bool{false, true} {
			t.Run(fmt.Sprint(name, chunked), func(t *testing.T) {
				w := newWorldOf(t, options, streaming("us-east", nil, last("a", "1"), done))
				request := w.request(chatPath, body)
				if chunked {
					request.ContentLength = -1
				}
				answer, err := http.DefaultClient.Do(request)
				if err != nil {
					t.Fatal(err)
				}
				defer answer.Body.Close()
				text, _ := io.ReadAll(answer.Body)
				if !strings.HasSuffix(string(text), done) || w.bodies[0] != body {
					t.Errorf("got %q; the upstream got %d bytes of %d", text, len(w.bodies[0]), len(body))
				}
			})
		}
	}
}

func TestMemoryIsGivenBack(t *testing.T) {
	plays := make([]play, 0, 40)
	for range 20 {
		plays = append(plays, streaming("us-east", broken, role("a"), say("a", "1")), streaming("us-west", nil, last("b", " 2"), done))
	}
	w := newWorld(t, plays...)
	for n := range 20 {
		request := w.request(chatPath, hello)
		if n%2 == 1 {
			request.ContentLength = -1
		}
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(answer.Body)
		answer.Body.Close()
		if got := read(t, string(text)); got.text != "1 2" {
			t.Fatalf("got %+v", got)
		}
	}
	deadline := time.Now().Add(10 * time.Second)
	for w.relay.Stats()["memoryLeftBytes"] != 1<<20 || w.relay.Stats()["streamsNow"] != 0 {
		if time.Now().After(deadline) {
			t.Fatalf("got %v", w.relay.Stats())
		}
		time.Sleep(time.Millisecond)
	}
}

func TestStreamsThatOutliveTheTimeAfterSIGTERMEndWithAnErrorEvent(t *testing.T) {
	w := newWorld(t, streaming("us-east", hangs, role("a"), say("a", "1")))
	base, stop := context.WithCancelCause(context.Background())
	front := httptest.NewUnstartedServer(w.relay)
	front.Config.BaseContext = func(net.Listener) context.Context { return base }
	front.Start()
	defer front.Close()
	w.url = front.URL
	answer, err := http.DefaultClient.Do(w.request(chatPath, hello))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	stop(serve.ErrStopping)
	text, err := io.ReadAll(answer.Body)
	if got := read(t, string(text)); err != nil || got.failure != openai.StreamCut {
		t.Errorf("got %+v, %v", got, err)
	}
}
