// Package server serves HTTP to clients that may all be hostile: every client that reaches
// a port of the webhook can open connections, send half a request, or send a thousand at once.
//
// A handler and bounds go in; a running server comes out. Its memory does
// not grow with the number of clients or with what they send: connections are
// counted, and headers, bodies and answers end in time. What is too much is refused with
// a status that the API server takes for a failed call, so that failurePolicy decides.
// If a bound is reached, the client that has kept the server waiting longest is closed: an
// API server sends what it has at once, so it is closed last.
package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// headerTimeout is how long a client may take for the headers of a request, and how
	// long a new connection may stay without one. An API server opens connections in
	// advance, so it is longer than headers need.
	headerTimeout = 30 * time.Second
	// idleTimeout is how long a connection may wait for its next request. An API server
	// gives up idle connections after 90 seconds (net/http's default); if the webhook did
	// so first, a request might just be on its way, and would fail.
	idleTimeout = 2 * time.Minute
	// headerBytes bounds the headers of a request; those of an API server take less
	// than 1 KiB.
	headerBytes = 16 << 10
	// answerTimeout is how much longer an answer may take than the request. A write that runs
	// out of time breaks the connection.
	answerTimeout = 5 * time.Second
	// farewell is how long the last requests may take once the server is stopping.
	farewell = time.Minute
)

// Options describe a Server.
type Options struct {
	// Name is what the server is called in errors.
	Name string
	// Port to listen on, on all addresses.
	Port    int
	Handler http.Handler
	// TLS is nil for plain HTTP. Its NextProtos are set here.
	TLS *tls.Config
	// HTTP2 allows HTTP/2 where there is TLS. API servers call webhooks by HTTP/1.1.
	HTTP2 bool
	// Connections is how many may be open at once.
	Connections int
	// Timeout is how long a request may take from the end of its headers to the beginning
	// of the answer, which may take five seconds more.
	Timeout time.Duration
	// Log gets what clients do wrong, at most ten lines a second.
	Log *slog.Logger
}

// Server is a server that has not been started yet, runs, or has ended.
type Server struct {
	options Options
	http    *http.Server

	listening chan struct{}
}

// New makes a Server. It does not listen before Run.
func New(o Options) *Server {
	s := &Server{options: o, listening: make(chan struct{})}
	s.http = &http.Server{
		Handler:           o.Handler,
		TLSConfig:         o.TLS,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       headerTimeout + o.Timeout,
		WriteTimeout:      o.Timeout + answerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    headerBytes,
		ConnState:         newConnections(o.Connections).changed,
		ErrorLog:          log.New(&seldom{log: o.Log, now: time.Now}, "", 0),
		Protocols:         new(http.Protocols),
		// Without these, a connection of HTTP/2 may buffer a MiB and hold 250 requests.
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 16, MaxReceiveBufferPerConnection: 64 << 10, MaxReceiveBufferPerStream: 64 << 10},
	}
	s.http.Protocols.SetHTTP1(true)
	s.http.Protocols.SetHTTP2(o.HTTP2 && o.TLS != nil)
	return s
}

// Run serves until ctx is done, and then until the requests that have come are answered.
// It returns nil then, and an error where the port cannot be had.
func (s *Server) Run(ctx context.Context) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", ":"+strconv.Itoa(s.options.Port))
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("%s: %w", s.options.Name, err)
	}
	if err != nil {
		return nil //nolint:nilerr // it was stopped before it began
	}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
		defer cancel()
		if s.http.Shutdown(ctx) != nil {
			s.http.Close()
		}
	})
	close(s.listening)
	if s.options.TLS != nil {
		err = s.http.ServeTLS(listener, "", "")
	} else {
		err = s.http.Serve(listener)
	}
	if stop() || !errors.Is(err, http.ErrServerClosed) {
		s.http.Close()
		return fmt.Errorf("%s: %w", s.options.Name, err)
	}
	<-ended
	return nil
}

// Listening is nil once the port is open, otherwise a sentence.
func (s *Server) Listening() error {
	select {
	case <-s.listening:
		return nil
	default:
		return fmt.Errorf("port %d is not open yet", s.options.Port)
	}
}

// seldom passes on what net/http has to say about clients, mostly failed handshakes. A
// client can make as many as it likes, so most are only counted.
type seldom struct {
	log *slog.Logger
	now func() time.Time

	mu            sync.Mutex
	since         time.Time // of this second
	told, skipped int
}

// aSecond is how many lines are logged per second.
const aSecond = 10

func (s *seldom) Write(line []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if now.Sub(s.since) >= time.Second {
		s.since, s.told = now, 0
	}
	if s.told++; s.told > aSecond {
		s.skipped++
		return len(line), nil
	}
	s.log.Warn("http", "error", strings.TrimSpace(string(line)), "skipped", s.skipped)
	s.skipped = 0
	return len(line), nil
}
