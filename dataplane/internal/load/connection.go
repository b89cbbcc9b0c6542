package load

import (
	"bufio"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// pool has the idle connections to one address. A net/http client would spend several times the computing time on each request.
type pool struct {
	address string
	// None for HTTP without TLS.
	secured *tls.Config
	lock    sync.Mutex
	idle    []*connection
}

type connection struct {
	net.Conn
	// Below TLS, where there is any.
	socket net.Conn
	reader *bufio.Reader
}

// take gives a connection on which nothing is under way, kept or new.
func (p *pool) take(deadline time.Time) (*connection, error) {
	for {
		p.lock.Lock()
		count := len(p.idle)
		if count == 0 {
			p.lock.Unlock()
			break
		}
		kept := p.idle[count-1]
		p.idle = p.idle[:count-1]
		p.lock.Unlock()
		if kept.open() {
			return kept, nil
		}
		_ = kept.Close()
	}
	dialer := net.Dialer{Deadline: deadline, KeepAlive: -1}
	opened, err := dialer.Dial("tcp", p.address)
	if err != nil {
		return nil, err
	}
	made := &connection{Conn: opened, socket: opened}
	if p.secured != nil {
		secured := tls.Client(opened, p.secured)
		if err := errors.Join(opened.SetDeadline(deadline), secured.Handshake()); err != nil {
			_ = opened.Close()
			return nil, err
		}
		made.Conn = secured
	}
	made.reader = bufio.NewReaderSize(made.Conn, 4096)
	return made, nil
}

func (p *pool) keep(idle *connection) {
	p.lock.Lock()
	p.idle = append(p.idle, idle)
	p.lock.Unlock()
}

// open tells whether the server has not closed the connection while it was idle, as every client looks before it sends.
func (c *connection) open() bool {
	// Without the deadline of the request before, which may have passed.
	if c.reader.Buffered() > 0 || c.SetDeadline(time.Time{}) != nil {
		return false
	}
	raw, err := c.socket.(syscall.Conn).SyscallConn()
	if err != nil {
		return false
	}
	quiet, ended := false, false
	err = raw.Read(func(descriptor uintptr) bool {
		var one [1]byte
		count, _, failed := syscall.Recvfrom(int(descriptor), one[:], syscall.MSG_PEEK)
		quiet = failed == syscall.EAGAIN || failed == syscall.EWOULDBLOCK
		ended = !quiet && count <= 0
		return true
	})
	if err != nil || ended || quiet || c.Conn == c.socket {
		return err == nil && quiet
	}
	// What waits may be no more than a session ticket.
	if c.SetReadDeadline(time.Now().Add(time.Millisecond)) != nil {
		return false
	}
	_, err = c.reader.Peek(1)
	return errors.Is(err, os.ErrDeadlineExceeded)
}
