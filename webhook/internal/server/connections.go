package server

import (
	"container/list"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
)

// connections bounds how many are open. One too many closes another that has no request:
// the oldest of those that never had one, else the one that has been idle longest.
type connections struct {
	mu  sync.Mutex
	max int
	// open are all; the element is where the connection is in fresh or idle, nil while
	// it has a request.
	open        map[net.Conn]*list.Element
	fresh, idle list.List
}

func newConnections(most int) *connections {
	return &connections{max: most, open: map[net.Conn]*list.Element{}}
}

// changed is for http.Server.ConnState.
func (c *connections) changed(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, known := c.open[conn]; known {
		c.forget(conn)
	} else if state != http.StateNew {
		return // closed here, and its last words come now
	}
	switch state {
	case http.StateNew:
		c.open[conn] = c.fresh.PushBack(conn)
		if len(c.open) > c.max {
			c.makeRoom(conn)
		}
	case http.StateActive:
		c.open[conn] = nil
	case http.StateIdle:
		c.open[conn] = c.idle.PushBack(conn)
	case http.StateClosed, http.StateHijacked:
	}
}

func (c *connections) forget(conn net.Conn) {
	// Remove does nothing in the list that the element is not of.
	if at := c.open[conn]; at != nil {
		c.fresh.Remove(at)
		c.idle.Remove(at)
	}
	delete(c.open, conn)
}

// makeRoom closes one connection, if all others have a request then the newest.
func (c *connections) makeRoom(newest net.Conn) {
	victim := newest
	if first := c.fresh.Front().Value.(net.Conn); first != newest {
		victim = first
	} else if c.idle.Len() > 0 {
		victim = c.idle.Front().Value.(net.Conn)
	}
	c.forget(victim)
	// The close of TLS takes leave of the client first, and would wait for one that does
	// not read.
	if encrypted, ok := victim.(*tls.Conn); ok {
		victim = encrypted.NetConn()
	}
	_ = victim.Close()
}
