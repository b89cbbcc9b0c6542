package load

import (
	"bufio"
	"net"
	"sync"
	"syscall"
	"time"
)

// pool has the idle connections to one address. A net/http client would spend several times the computing time on each request.
type pool struct {
	address string
	lock    sync.Mutex
	idle    []*connection
}

type connection struct {
	net.Conn
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
	return &connection{Conn: opened, reader: bufio.NewReaderSize(opened, 4096)}, nil
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
	raw, err := c.Conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return false
	}
	waiting := false
	err = raw.Read(func(descriptor uintptr) bool {
		var one [1]byte
		_, failed := syscall.Read(int(descriptor), one[:])
		waiting = failed == syscall.EAGAIN || failed == syscall.EWOULDBLOCK
		return true
	})
	return err == nil && waiting
}
