// Package load sends requests at the times at which they are due, whatever became of others, and tells what each came to.
package load

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"time"

	"inference-fleet/dataplane/internal/openai"
)

// Target is where requests go: a model at one front door.
type Target struct {
	Door string `json:"door"`
	URL  string `json:"url"`
}

// Plan is one stream of requests at a steady rate.
type Plan struct {
	// Taken in turn.
	Targets  []Target `json:"targets"`
	Requests int      `json:"requests"`
	// Per second. Request n, counted from 0, is due at n/Rate.
	Rate      float64 `json:"rate"`
	Stream    bool    `json:"stream"`
	Model     string  `json:"model"`
	MaxTokens int     `json:"maxTokens"`
	Prompt    string  `json:"prompt"`
	// From when it is sent until it must be answered in full.
	TimeoutSeconds float64 `json:"timeoutSeconds"`
	// A request that its door did not begin to answer goes to the next target at once.
	SwitchDoors bool   `json:"switchDoors"`
	Label       string `json:"label"`
	// What front doors ask for; sent as `Authorization: Bearer`.
	Token string `json:"token"`

	doors []door
}

// door is a target made ready: what is sent to it is the same every time.
type door struct {
	name    string
	pool    *pool
	message []byte
}

func (p *Plan) timeout() time.Duration { return time.Duration(p.TimeoutSeconds * float64(time.Second)) }

// ReadPlans reads one plan or an array of them. Its error tells all that is wrong, a line each.
func ReadPlans(source io.Reader) ([]*Plan, error) {
	text, err := io.ReadAll(source)
	if err != nil {
		return nil, err
	}
	var raw []json.RawMessage
	array := bytes.HasPrefix(bytes.TrimSpace(text), []byte("["))
	if array {
		if err := json.Unmarshal(text, &raw); err != nil {
			return nil, fmt.Errorf("the plan must be JSON: %w", err)
		}
	} else {
		raw = []json.RawMessage{text}
	}
	if len(raw) == 0 {
		return nil, errors.New("there must be a plan, got: `[]`")
	}
	var wrong []error
	plans := make([]*Plan, len(raw))
	labels := map[string]bool{}
	pools := map[string]*pool{}
	for at, each := range raw {
		prefix := ""
		if array {
			prefix = fmt.Sprintf("[%d].", at)
		}
		plan := &Plan{MaxTokens: 8, Prompt: "Hello", TimeoutSeconds: 20, Label: "main"}
		plans[at] = plan
		decoder := json.NewDecoder(bytes.NewReader(each))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(plan); err != nil {
			wrong = append(wrong, fmt.Errorf("%splan: %s", prefix, strings.TrimPrefix(err.Error(), "json: ")))
			continue
		}
		if decoder.More() {
			wrong = append(wrong, fmt.Errorf("%splan: must be one JSON object", prefix))
		}
		for _, message := range plan.check() {
			wrong = append(wrong, errors.New(prefix+message))
		}
		if labels[plan.Label] {
			wrong = append(wrong, fmt.Errorf("%slabel: must be another than the other plans', got: `%s`", prefix, plan.Label))
		}
		labels[plan.Label] = true
		for number, target := range plan.Targets {
			if err := plan.addDoor(target, pools); err != nil {
				wrong = append(wrong, fmt.Errorf("%stargets[%d].%w", prefix, number, err))
			}
		}
	}
	return plans, errors.Join(wrong...)
}

func (p *Plan) check() []string {
	var wrong []string
	must := func(holds bool, field, rule string, got any) {
		if !holds {
			wrong = append(wrong, fmt.Sprintf("%s: must %s, got: `%v`", field, rule, got))
		}
	}
	must(len(p.Targets) > 0, "targets", "name a door at least", "[]")
	must(p.Requests > 0, "requests", "be 1 or more", p.Requests)
	must(p.Rate > 0 && p.Rate <= 1e6, "rate", "be above 0 and at most 1000000", p.Rate)
	must(p.Model != "", "model", "be a name", p.Model)
	must(p.MaxTokens > 0, "maxTokens", "be 1 or more", p.MaxTokens)
	must(p.Prompt != "", "prompt", "not be empty", p.Prompt)
	if strings.ContainsAny(p.Token, " \r\n") {
		wrong = append(wrong, "token: must have neither blanks nor line ends")
	}
	must(p.TimeoutSeconds > 0 && p.TimeoutSeconds <= 1e6, "timeoutSeconds", "be above 0", p.TimeoutSeconds)
	return wrong
}

func (p *Plan) addDoor(target Target, pools map[string]*pool) error {
	at, err := url.Parse(target.URL)
	if err != nil || (at.Scheme != "http" && at.Scheme != "https") || at.Host == "" {
		return fmt.Errorf("url: must be http://HOST:PORT/PATH or https://…, got: `%s`", target.URL)
	}
	body := map[string]any{"model": p.Model, "max_tokens": p.MaxTokens, "stream": p.Stream}
	switch {
	case strings.HasSuffix(at.Path, "/chat/completions"):
		body["messages"] = []map[string]string{{"role": "user", "content": p.Prompt}}
	case strings.HasSuffix(at.Path, "/completions"):
		body["prompt"] = p.Prompt
	default:
		return fmt.Errorf("url: must end in /chat/completions or /completions, got: `%s`", target.URL)
	}
	if target.Door == "" {
		return errors.New("door: must be a name, got: ``")
	}
	payload, err := openai.Marshal(body)
	if err != nil {
		return err
	}
	port := "80"
	var secured *tls.Config
	if at.Scheme == "https" {
		port = "443"
		// Read now: it takes longer than a request.
		roots, err := x509.SystemCertPool()
		if err != nil {
			return fmt.Errorf("url: certificates of this machine's authorities cannot be read: %w", err)
		}
		secured = &tls.Config{ServerName: at.Hostname(), RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	address := at.Host
	if at.Port() == "" {
		address = net.JoinHostPort(at.Hostname(), port)
	}
	origin := at.Scheme + "://" + address
	if pools[origin] == nil {
		pools[origin] = &pool{address: address, secured: secured}
	}
	authorization := ""
	if p.Token != "" {
		authorization = "Authorization: Bearer " + p.Token + "\r\n"
	}
	head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: fleet-load\r\n%sContent-Type: application/json\r\nContent-Length: %d\r\n\r\n",
		at.RequestURI(), at.Host, authorization, len(payload))
	p.doors = append(p.doors, door{name: target.Door, pool: pools[origin], message: append([]byte(head), payload...)})
	return nil
}
