// Package sse cuts a stream of server-sent events into whole events, byte for byte as they came.
package sse

import (
	"bytes"
	"io"
)

const chunk = 4 * 1024

// Piece is one event, or a part of one that is larger than the reader holds.
type Piece struct {
	// The bytes as they came, with the empty line that ends an event. Valid until the next call of Next.
	Bytes []byte
	// It begins an event, and it ends one. Both for every event that fits.
	First, Last bool
}

// Reader reads pieces from a source. An event that the source does not finish is never handed out whole.
type Reader struct {
	source io.Reader
	limit  int
	// buffer[start:end] was read and not handed out; buffer[start:scanned] was looked at.
	buffer              []byte
	start, scanned, end int
	failed              error

	at        int  // Where the event under way ends; -1 while that is not known.
	lineStart bool // The last line was ended and the next has no byte yet.
	afterCR   bool // The last line was ended by a CR: an LF now belongs to it.
	split     bool // The event under way was handed out in part.
}

// NewReader reads from source. Events of more than limit bytes come in several pieces.
func NewReader(source io.Reader, limit int) *Reader {
	return &Reader{source: source, limit: limit, at: -1, lineStart: true}
}

// Next waits for the next piece. Its error is the source's: io.EOF where that ended, also in the middle of an event.
func (r *Reader) Next() (Piece, error) {
	for {
		if at := r.boundary(); at >= 0 {
			return r.hand(at, true), nil
		}
		if r.end-r.start >= r.limit {
			return r.hand(r.end, false), nil
		}
		if r.failed != nil {
			return Piece{}, r.failed
		}
		r.fill()
	}
}

// Ready tells whether Next would return without waiting for the source.
func (r *Reader) Ready() bool {
	return r.boundary() >= 0 || r.end-r.start >= r.limit || r.failed != nil
}

// Rest is what came of an event that the source did not finish. After an error of Next only.
func (r *Reader) Rest() []byte { return r.buffer[r.start:r.end] }

// boundary looks on for the end of the event under way; -1 where it did not come yet.
func (r *Reader) boundary() int {
	for ; r.at < 0 && r.scanned < r.end; r.scanned++ {
		switch c := r.buffer[r.scanned]; {
		case c == '\n' && r.afterCR:
			r.afterCR = false
		case c == '\n' || c == '\r':
			if r.lineStart {
				r.at = r.scanned + 1
			}
			r.lineStart, r.afterCR = true, c == '\r'
		default:
			r.lineStart, r.afterCR = false, false
		}
	}
	if r.at >= 0 && r.afterCR && r.at < r.end && r.buffer[r.at] == '\n' {
		r.at, r.scanned, r.afterCR = r.at+1, r.at+1, false
	}
	return r.at
}

func (r *Reader) hand(to int, last bool) Piece {
	piece := Piece{Bytes: r.buffer[r.start:to], First: !r.split, Last: last}
	r.start, r.split, r.at = to, !last, -1
	return piece
}

func (r *Reader) fill() {
	if r.start > 0 {
		copy(r.buffer, r.buffer[r.start:r.end])
		r.end -= r.start
		r.scanned -= r.start
		r.start = 0
	}
	if len(r.buffer) == r.end {
		grown := make([]byte, max(chunk, 2*len(r.buffer)))
		copy(grown, r.buffer[:r.end])
		r.buffer = grown
	}
	count, err := r.source.Read(r.buffer[r.end:])
	r.end += count
	r.failed = err
}

// Data is what the `data` lines of an event hold, joined by LF; false where it has none, as a comment.
func Data(event []byte) ([]byte, bool) {
	var data []byte
	found := false
	for len(event) > 0 {
		line := event
		if at := bytes.IndexAny(event, "\r\n"); at >= 0 {
			line, event = event[:at], event[at+1:]
		} else {
			event = nil
		}
		value, is := bytes.CutPrefix(line, []byte("data"))
		if !is || (len(value) > 0 && value[0] != ':') {
			continue
		}
		value = bytes.TrimPrefix(bytes.TrimPrefix(value, []byte(":")), []byte(" "))
		if found {
			data = append(append(bytes.Clone(data), '\n'), value...)
		} else {
			data, found = value, true
		}
	}
	return data, found
}

// Comment is the text of the event's first comment; false where it has none.
func Comment(event []byte) (string, bool) {
	for line := range bytes.FieldsFuncSeq(event, func(c rune) bool { return c == '\r' || c == '\n' }) {
		if text, is := bytes.CutPrefix(line, []byte(":")); is {
			return string(bytes.TrimSpace(text)), true
		}
	}
	return "", false
}
