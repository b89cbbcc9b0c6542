package relay

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
)

const (
	chatPath = "/tiny-chat/v1/chat/completions"
	textPath = "/tiny-chat/v1/completions"
)

func TestWhatCannotBeGoneOnWithIsRefused(t *testing.T) {
	user := `"messages":[{"role":"user","content":"Hello"}]`
	for body, why := range map[string]string{
		`{` + user + `,"n":2}`:                                          "n of the request is not 1",
		`{` + user + `,"tools":[{"type":"function"}]}`:                  "tools",
		`{` + user + `,"tool_choice":"auto"}`:                           "tool_choice",
		`{` + user + `,"functions":[{}]}`:                               "functions",
		`{` + user + `,"response_format":{"type":"json_object"}}`:       "response_format",
		`{` + user + `,"structured_outputs":{"regex":"a"}}`:             "structured_outputs",
		`{` + user + `,"guided_json":{"type":"object"}}`:                "guided_json",
		`{` + user + `,"logprobs":true}`:                                "logprobs",
		`{` + user + `,"echo":true}`:                                    "echo",
		`{` + user + `,"continue_final_message":true}`:                  "continue_final_message",
		`{` + user + `,"add_generation_prompt":false}`:                  "add_generation_prompt",
		`{"messages":[{"role":"assistant","content":"I"}]}`:             "the last message is the assistant's",
		`{"messages":[]}`:                                               "no messages",
		`{"stream":true`:                                                "not a JSON object",
		`["stream"]`:                                                    "not a JSON object",
		`{` + user + `,"prompt_logprobs":0}`:                            "prompt_logprobs",
		`{` + user + `,"response_format":{"type":"json_schema"},"n":1}`: "response_format",
	} {
		if _, err := parseRequest(chatPath, []byte(body)); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: got %v", body, err)
		}
	}
	for body, why := range map[string]string{
		`{"prompt":["a","b"]}`:              "not one text",
		`{"prompt":[1,2]}`:                  "not one text",
		`{}`:                                "not one text",
		`{"prompt":"a","best_of":2}`:        "best_of",
		`{"prompt":"a","logprobs":0}`:       "logprobs",
		`{"prompt":"a","suffix":"b"}`:       "suffix",
		`{"prompt":"a","echo":true}`:        "echo",
		`{"prompt":"a","guided_regex":"a"}`: "guided_regex",
	} {
		if _, err := parseRequest(textPath, []byte(body)); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: got %v", body, err)
		}
	}
}

func TestFieldsThatSayNothingAreNoReasonToRefuse(t *testing.T) {
	body := `{"messages":[{"role":"user","content":"Hello"}],"n":1,"tools":null,"tool_choice":"none","functions":[],
		"response_format":{"type":"text"},"logprobs":false,"top_logprobs":0,"echo":false,"guided_json":null,"stop":["x"],"seed":1,
		"add_generation_prompt":true,"temperature":0}`
	if _, err := parseRequest(chatPath, []byte(body)); err != nil {
		t.Error(err)
	}
}

func resumedFields(t *testing.T, path, body, text string, sent int) map[string]any {
	t.Helper()
	r, err := parseRequest(path, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	left := -1
	if r.limit >= 0 {
		left = r.limit - sent
	}
	changed, err := r.resumed(text, sent, left)
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(changed, &fields); err != nil {
		t.Fatal(err)
	}
	return fields
}

func same(t *testing.T, got any, want string) {
	t.Helper()
	var wanted any
	if err := json.Unmarshal([]byte(want), &wanted); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, wanted) {
		t.Errorf("got %v, want %v", got, wanted)
	}
}

func TestAChatGoesOnFromWhatWasSaid(t *testing.T) {
	body := `{"model":"m","messages":[ {"role":"user","content":[{"type":"text","text":"<Hi>"}]} ],"stream":true,
		"max_tokens":10,"max_completion_tokens":8,"min_tokens":5,"metadata":{"a":[1]}}`
	same(t, any(resumedFields(t, chatPath, body, "Hello \"you\"\n", 3)), `{"model":"m","stream":true,"metadata":{"a":[1]},
		"messages":[{"role":"user","content":[{"type":"text","text":"<Hi>"}]},{"role":"assistant","content":"Hello \"you\"\n"}],
		"continue_final_message":true,"add_generation_prompt":false,"max_tokens":5,"max_completion_tokens":5,"min_tokens":2}`)
}

func TestACompletionGoesOnFromPromptAndText(t *testing.T) {
	same(t, any(resumedFields(t, textPath, `{"prompt":"Once","max_tokens":9}`, " upon", 1)), `{"prompt":"Once upon","max_tokens":8}`)
	// What engines take for an absent limit.
	same(t, any(resumedFields(t, textPath, `{"prompt":"Once"}`, " upon", 1)), `{"prompt":"Once upon","max_tokens":15}`)
}

func TestWhereNothingWasSaidTheRequestIsSentAsItWas(t *testing.T) {
	body := `{"messages":[{"role":"user","content":"Hello"}],"stream":true}`
	same(t, any(resumedFields(t, chatPath, body, "", 0)), body)
}

func TestAPolicyIsRead(t *testing.T) {
	got, err := ParsePolicy("resume=true; idle=0.5;buffer=16777216")
	if err != nil || got != (Policy{Resume: true, Idle: 500 * time.Millisecond, Buffer: 16 << 20}) {
		t.Errorf("got %+v, %v", got, err)
	}
	for text, why := range map[string]string{
		"resume=yes;idle=1;buffer=1":          "resume must be true or false, got: `yes`",
		"resume=true;idle=0;buffer=1":         "idle must be seconds above 0, got: `0`",
		"resume=true;idle=1;buffer=-1":        "buffer must be a number of bytes, got: `-1`",
		"resume=true;idle=1":                  "lacks buffer",
		"resume=true;idle=1;buffer=1;retry=2": "must name resume, idle and buffer once each",
		"resume=true;resume=true;idle=1":      "must name resume, idle and buffer once each",
	} {
		if _, err := ParsePolicy(text); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: got %v", text, err)
		}
	}
}
