// Package relay is a reverse proxy that watches over streamed completions: one that is cut is gone on with elsewhere, or ends
// with an error that its caller can see. Which region is asked is not its part: its upstream retries and chooses.
package relay

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"inference-fleet/dataplane/internal/openai"
)

const (
	// More connections to the upstream are kept than there are streams in a region.
	idleConnections = 4096
	idleConnection  = 5 * time.Minute
	copyBuffer      = 8 * 1024
)

// Relay is the handler. Counters are read by Stats.
type Relay struct {
	proxy    *httputil.ReverseProxy
	upstream http.RoundTripper
	budget   budget
	log      *log.Logger

	streams, watched, resent, resumed, cut atomic.Int64
}

// Options of a relay. Memory bounds, in bytes, what all requests together keep to be sent again.
type Options struct {
	Upstream *url.URL
	Memory   int64
	Log      *log.Logger
}

// New makes a relay before one upstream.
func New(options Options) *Relay {
	r := &Relay{log: options.Log}
	r.budget.left.Store(options.Memory)
	dialer := net.Dialer{Timeout: 5 * time.Second}
	r.upstream = &http.Transport{
		DialContext:         dialer.DialContext,
		MaxIdleConns:        idleConnections,
		MaxIdleConnsPerHost: idleConnections,
		IdleConnTimeout:     idleConnection,
		// What the caller gets is what the upstream sent.
		DisableCompression: true,
	}
	r.proxy = &httputil.ReverseProxy{
		Rewrite:       func(each *httputil.ProxyRequest) { pass(each, options.Upstream) },
		Transport:     roundTripper(r.roundTrip),
		FlushInterval: -1,
		ErrorLog:      options.Log,
		BufferPool:    &buffers{},
		ErrorHandler:  r.fail,
	}
	return r
}

// Stats are the numbers of this process since it started, and now.
func (r *Relay) Stats() map[string]int64 {
	return map[string]int64{
		"streams":         r.watched.Load(),
		"streamsNow":      r.streams.Load(),
		"resent":          r.resent.Load(),
		"resumed":         r.resumed.Load(),
		"cut":             r.cut.Load(),
		"memoryLeftBytes": r.budget.left.Load(),
	}
}

// pass sends a request on as it came: the front door has set what a proxy sets.
func pass(each *httputil.ProxyRequest, upstream *url.URL) {
	each.Out.URL.Scheme, each.Out.URL.Host = upstream.Scheme, upstream.Host
	each.Out.URL.RawQuery = each.In.URL.RawQuery
	each.Out.Host = each.In.Host
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
		if values, is := each.In.Header[name]; is {
			each.Out.Header[name] = values
		}
	}
}

// guarded is what is kept for a request whose answer is watched over, in its context.
type guarded struct {
	policy Policy
	body   *held // Not whole where the request is sent only once.
	whole  bool
}

type guardedKey struct{}

func (r *Relay) ServeHTTP(w http.ResponseWriter, in *http.Request) {
	text := in.Header.Get(PolicyHeader)
	in.Header.Del(PolicyHeader)
	if text == "" || in.Method != http.MethodPost || !completion(in.URL.Path) {
		r.proxy.ServeHTTP(w, in)
		return
	}
	policy, err := ParsePolicy(text)
	if err != nil {
		r.log.Printf("unwatched path=%s: %v", in.URL.Path, err)
		r.proxy.ServeHTTP(w, in)
		return
	}
	body, whole, err := r.budget.hold(in.Body, in.ContentLength, policy.Buffer)
	guard := &guarded{policy: policy, body: body, whole: whole}
	defer guard.body.release()
	if err != nil {
		// The caller left before it had asked.
		panic(http.ErrAbortHandler)
	}
	in = in.WithContext(context.WithValue(in.Context(), guardedKey{}, guard))
	if whole {
		in.Body = io.NopCloser(bytes.NewReader(body.bytes))
		in.ContentLength, in.TransferEncoding = int64(len(body.bytes)), nil
		in.Header.Del("Expect")
	} else {
		in.Body = rejoined{io.MultiReader(bytes.NewReader(body.bytes), in.Body), in.Body}
	}
	// A compressed stream could not be looked into.
	in.Header.Set("Accept-Encoding", "identity")
	r.proxy.ServeHTTP(w, in)
}

type rejoined struct {
	io.Reader
	io.Closer
}

func completion(path string) bool {
	return strings.HasSuffix(path, "/chat/completions") || strings.HasSuffix(path, "/completions")
}

// roundTrip asks the upstream. An answer that is a watched stream comes with its first event already there.
func (r *Relay) roundTrip(out *http.Request) (*http.Response, error) {
	guard, _ := out.Context().Value(guardedKey{}).(*guarded)
	if guard == nil {
		return r.upstream.RoundTrip(out)
	}
	for first := true; ; first = false {
		answer, err := r.ask(out, guard)
		if err == nil || !first || !guard.whole || out.Context().Err() != nil {
			return answer, err
		}
		// Nothing reached the caller.
		r.resent.Add(1)
		r.log.Printf("sent again path=%s cause=%q", out.URL.Path, err)
	}
}

func (r *Relay) ask(out *http.Request, guard *guarded) (*http.Response, error) {
	var body []byte
	if guard.whole {
		body = guard.body.bytes
	}
	attempt, err := r.open(out, body, guard.policy.Idle)
	if err != nil {
		return nil, err
	}
	answer := attempt.answer
	if !isStream(answer) {
		// It cannot be cut unseen: it has a length, or breaks.
		answer.Body = attempt
		return answer, nil
	}
	watched := newStream(r, out, guard, attempt)
	if err := watched.begin(); err != nil {
		_ = attempt.Close()
		return nil, err
	}
	answer.Body = watched
	answer.ContentLength = -1
	answer.Header.Del("Content-Length")
	return answer, nil
}

// open sends a request whose answer can be given up on its own, with this body or, where that is nil, its own.
func (r *Relay) open(out *http.Request, body []byte, idle time.Duration) (*attempt, error) {
	ctx, cancel := context.WithCancelCause(out.Context())
	sent := out.WithContext(ctx)
	if body != nil {
		sent.ContentLength = int64(len(body))
		sent.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
		sent.Body, _ = sent.GetBody()
	}
	answer, err := r.upstream.RoundTrip(sent)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	return newAttempt(ctx, cancel, answer, idle), nil
}

func isStream(answer *http.Response) bool {
	kind, _, _ := strings.Cut(answer.Header.Get("Content-Type"), ";")
	return answer.StatusCode == http.StatusOK && strings.EqualFold(strings.TrimSpace(kind), "text/event-stream") &&
		answer.Header.Get("Content-Encoding") == ""
}

// fail answers where the upstream did not, or broke off before it had said anything.
func (r *Relay) fail(w http.ResponseWriter, out *http.Request, err error) {
	if errors.Is(context.Cause(out.Context()), context.Canceled) {
		// The caller left.
		panic(http.ErrAbortHandler)
	}
	var failure *openai.Error
	if !errors.As(err, &failure) {
		failure = openai.NewError(openai.RegionLost, http.StatusBadGateway, "no answer began: "+reason(err))
	}
	r.log.Printf("failed path=%s cause=%q", out.URL.Path, failure.Message)
	failure.Write(w)
}

// reason words an error for callers and the log, without addresses.
func reason(err error) string {
	var network *net.OpError
	switch {
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return "the connection broke"
	case errors.As(err, &network):
		return fmt.Sprintf("%s: %v", network.Op, network.Err)
	}
	return err.Error()
}

// ServeStats answers with Stats as JSON.
func (r *Relay) ServeStats(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(r.Stats())
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(out *http.Request) (*http.Response, error) { return f(out) }

// buffers are those with which answers are copied.
type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte {
	if buffer, is := b.pool.Get().(*[copyBuffer]byte); is {
		return buffer[:]
	}
	return make([]byte, copyBuffer)
}

func (b *buffers) Put(buffer []byte) { b.pool.Put((*[copyBuffer]byte)(buffer)) }
