package sse

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func pieces(t *testing.T, source io.Reader, limit int) ([]string, error) {
	t.Helper()
	reader := NewReader(source, limit)
	var all []string
	for {
		piece, err := reader.Next()
		if err != nil {
			return all, err
		}
		if piece.First && piece.Last {
			all = append(all, string(piece.Bytes))
		} else {
			all = append(all, "part:"+string(piece.Bytes))
		}
	}
}

func TestEventsAreWholeWhereverTheStreamIsDivided(t *testing.T) {
	events := []string{"data: a\n\n", ": comment\r\n\r\n", "event: x\ndata: b\n\n", "data: {\"c\": \"\\n\"}\r\r", "data: d\n\n"}
	text := strings.Join(events, "")
	for size := 1; size <= len(text); size++ {
		got, err := pieces(t, iotest.HalfReader(&slow{text, size}), 1<<20)
		if err != io.EOF {
			t.Fatalf("divided by %d: %v", size, err)
		}
		if joined := strings.Join(got, ""); joined != text {
			t.Fatalf("divided by %d: got %q", size, joined)
		}
		// The second byte of a line end may come after its event was handed out.
		if len(got) != len(events) {
			t.Fatalf("divided by %d: got %d events: %q", size, len(got), got)
		}
	}
}

type slow struct {
	text string
	size int
}

func (s *slow) Read(p []byte) (int, error) {
	if s.text == "" {
		return 0, io.EOF
	}
	count := copy(p[:min(len(p), s.size)], s.text)
	s.text = s.text[count:]
	return count, nil
}

func TestAnEventThatIsNotFinishedIsNotHandedOut(t *testing.T) {
	broken := errors.New("broken")
	source := io.MultiReader(strings.NewReader("data: a\n\ndata: b\n"), iotest.ErrReader(broken))
	reader := NewReader(source, 1<<20)
	if piece, err := reader.Next(); err != nil || string(piece.Bytes) != "data: a\n\n" {
		t.Fatalf("got %q, %v", piece.Bytes, err)
	}
	if _, err := reader.Next(); err != broken {
		t.Fatalf("got %v", err)
	}
	if string(reader.Rest()) != "data: b\n" {
		t.Fatalf("got %q", reader.Rest())
	}
}

func TestALargeEventComesInParts(t *testing.T) {
	large := "data: " + strings.Repeat("x", 20_000) + "\n\n"
	got, err := pieces(t, strings.NewReader("data: a\n\n"+large+"data: b\n\n"), 8*1024)
	if err != io.EOF {
		t.Fatal(err)
	}
	if got[0] != "data: a\n\n" || got[len(got)-1] != "data: b\n\n" {
		t.Fatalf("got %d pieces, the first %q, the last %q", len(got), got[0], got[len(got)-1])
	}
	if joined := strings.ReplaceAll(strings.Join(got[1:len(got)-1], ""), "part:", ""); joined != large {
		t.Fatalf("got %d bytes", len(joined))
	}
}

func TestReadyDoesNotWait(t *testing.T) {
	source, sink := io.Pipe()
	reader := NewReader(source, 1<<20)
	go func() { _, _ = sink.Write([]byte("data: a\n\ndata: b\n\ndata: c")) }()
	for _, ready := range []bool{true, false} {
		if _, err := reader.Next(); err != nil || reader.Ready() != ready {
			t.Fatalf("got %v, %v", reader.Ready(), err)
		}
	}
}

func TestDataAndCommentsOfAnEvent(t *testing.T) {
	for event, want := range map[string]string{
		"data: a\n\n": "a", "data:a\n\n": "a", "data:  a\n\n": " a", "id: 1\ndata: a\r\ndata: b\r\n\r\n": "a\nb", "data\n\n": "",
	} {
		if data, is := Data([]byte(event)); !is || string(data) != want {
			t.Errorf("%q: got %q, %v", event, data, is)
		}
	}
	for _, event := range []string{": data: a\n\n", "event: ping\n\n", "database: a\n\n", "\n"} {
		if data, is := Data([]byte(event)); is {
			t.Errorf("%q: got %q", event, data)
		}
	}
	if text, is := Comment([]byte("data: a\n: resumed us-west\n\n")); !is || text != "resumed us-west" {
		t.Errorf("got %q, %v", text, is)
	}
}

func FuzzNothingIsLostOrChanged(f *testing.F) {
	f.Add([]byte("data: a\n\ndata: b\r\n\r\n\rdata"), 3, 16)
	f.Fuzz(func(t *testing.T, text []byte, size, limit int) {
		if size < 1 || limit < 1 {
			t.Skip()
		}
		reader := NewReader(&slow{string(text), size}, limit)
		var got []byte
		for {
			piece, err := reader.Next()
			if err != nil {
				break
			}
			got = append(got, piece.Bytes...)
		}
		if got = append(got, reader.Rest()...); !bytes.Equal(got, text) {
			t.Fatalf("got %q", got)
		}
	})
}
