package relay

import (
	"io"
	"sync/atomic"
)

// budget bounds the memory of all requests that are kept to be sent again.
type budget struct {
	left atomic.Int64
}

func (b *budget) take(bytes int64) bool {
	if b.left.Add(-bytes) < 0 {
		b.left.Add(bytes)
		return false
	}
	return true
}

// held is a request's body, kept to be sent again.
type held struct {
	budget *budget
	taken  int64
	bytes  []byte
}

// release gives the memory back. The body cannot be sent again then.
func (h *held) release() {
	if h != nil {
		h.budget.left.Add(h.taken)
		h.taken, h.bytes = 0, nil
	}
}

// hold reads a body of length bytes, -1 where that is unknown. Where it is larger than limit, or there is no room for it,
// it is not whole: what was read comes first, and the rest is still in body.
func (b *budget) hold(body io.Reader, length, limit int64) (kept *held, whole bool, err error) {
	kept = &held{budget: b}
	if length > limit {
		return kept, false, nil
	}
	room := length
	if length < 0 {
		room = 16 * 1024
	}
	for {
		// One byte more, in which the end shows itself where the length is unknown.
		room = min(room, limit+1)
		if !b.take(room - kept.taken) {
			return kept, false, nil
		}
		kept.taken = room
		grown := make([]byte, len(kept.bytes), room)
		copy(grown, kept.bytes)
		read, err := io.ReadFull(body, grown[len(grown):room])
		kept.bytes = grown[:len(grown)+read]
		switch {
		case length >= 0:
			return kept, err == nil, err
		case err == io.EOF || err == io.ErrUnexpectedEOF:
			return kept, true, nil
		case err != nil:
			return kept, false, err
		case room > limit:
			return kept, false, nil
		}
		room *= 2
	}
}
