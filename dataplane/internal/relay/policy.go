package relay

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// PolicyHeader is set by the front door and taken off here. Its value: resume=true;idle=120;buffer=16777216.
const PolicyHeader = "X-Fleet-Relay"

// ResumeHeader lets a caller refuse a second computation: its value is `never`.
const ResumeHeader = "X-Fleet-Resume"

// Policy is what the front door asks for one request.
type Policy struct {
	// Go on elsewhere where the request allows it.
	Resume bool
	// A stream in which nothing comes for this long is treated as cut.
	Idle time.Duration
	// Bytes of the largest request that is kept to be sent again.
	Buffer int64
}

// ParsePolicy reads the header. Every part must be there, so that a misspelt one is no silent default.
func ParsePolicy(text string) (Policy, error) {
	var policy Policy
	missing := map[string]bool{"resume": true, "idle": true, "buffer": true}
	for part := range strings.SplitSeq(text, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		if !missing[name] {
			return policy, fmt.Errorf("%s must name resume, idle and buffer once each, got: `%s`", PolicyHeader, text)
		}
		delete(missing, name)
		var err error
		switch name {
		case "resume":
			policy.Resume, err = strconv.ParseBool(value)
		case "idle":
			var seconds float64
			if seconds, err = strconv.ParseFloat(value, 64); err == nil && !(seconds > 0 && seconds < 1e6) {
				err = strconv.ErrRange
			}
			policy.Idle = time.Duration(seconds * float64(time.Second))
		case "buffer":
			if policy.Buffer, err = strconv.ParseInt(value, 10, 64); err == nil && policy.Buffer < 0 {
				err = strconv.ErrRange
			}
		}
		if err != nil {
			return policy, fmt.Errorf("%s: %s must be %s, got: `%s`", PolicyHeader, name, expected[name], value)
		}
	}
	for name := range missing {
		return policy, fmt.Errorf("%s lacks %s, got: `%s`", PolicyHeader, name, text)
	}
	return policy, nil
}

var expected = map[string]string{"resume": "true or false", "idle": "seconds above 0", "buffer": "a number of bytes"}
