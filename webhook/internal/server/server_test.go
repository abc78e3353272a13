package server

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// patience is the longest wait of a test; only one that fails waits for it.
const patience = time.Minute

// start runs a server of the options on a free port of the loopback device, and returns its address.
func start(t *testing.T, o Options) (*Server, string) {
	t.Helper()
	return startWatched(t, o, func(http.ConnState) {})
}

// startWatched also reports each change of a connection, after the server has taken note of it.
func startWatched(t *testing.T, o Options, changed func(http.ConnState)) (*Server, string) {
	t.Helper()
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := New(o)
	takeNote := s.http.ConnState
	s.http.ConnState = func(conn net.Conn, state http.ConnState) {
		takeNote(conn, state)
		changed(state)
	}
	test := httptest.NewUnstartedServer(nil)
	test.Config = s.http
	if o.TLS != nil {
		test.EnableHTTP2 = o.HTTP2
		test.StartTLS()
	} else {
		test.Start()
	}
	t.Cleanup(func() {
		s.http.Close()
		test.Close()
	})
	return s, test.Listener.Addr().String()
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// ask sends one request on a connection and returns the status of the answer.
func ask(t *testing.T, conn net.Conn) int {
	t.Helper()
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	return status(t, conn)
}

func status(t *testing.T, conn net.Conn) int {
	t.Helper()
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Error(err)
		return 0
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, response.Body)
	return response.StatusCode
}

func ok(http.ResponseWriter, *http.Request) {}

// A thousand connections without a request close each other, and not the one that is in use.
func TestIdleConnections(t *testing.T) {
	const most = 20
	_, address := start(t, Options{Handler: http.HandlerFunc(ok), Connections: most, Timeout: patience})
	used := dial(t, address)
	if code := ask(t, used); code != http.StatusOK {
		t.Fatal(code)
	}
	var all []net.Conn
	for range 1000 {
		all = append(all, dial(t, address))
	}
	// The oldest are closed from the server's side.
	for _, conn := range all[:1000-most] {
		if _, err := conn.Read(make([]byte, 1)); err == nil || isTimeout(err) {
			t.Fatalf("an old connection without a request is still open: %v", err)
		}
	}
	if code := ask(t, used); code != http.StatusOK {
		t.Errorf("the connection in use: %d", code)
	}
	if code := ask(t, dial(t, address)); code != http.StatusOK {
		t.Errorf("a new connection: %d", code)
	}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// Where all connections have a request, it is the newest that is closed; those that are idle
// go before it, the one that is idle longest first.
func TestBusyConnections(t *testing.T) {
	reached, release := make(chan bool), make(chan bool)
	handler := func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			reached <- true
			<-release
		}
	}
	idle := make(chan bool, 100)
	_, address := startWatched(t, Options{Handler: http.HandlerFunc(handler), Connections: 3, Timeout: patience}, func(state http.ConnState) {
		if state == http.StateIdle {
			idle <- true
		}
	})
	await := func(what string, c <-chan bool) {
		t.Helper()
		select {
		case <-c:
		case <-time.After(patience):
			close(release)
			t.Fatalf("waited %v for %s", patience, what)
		}
	}
	// The server counts a connection as idle a moment after its answer has come.
	use := func(conn net.Conn) {
		t.Helper()
		ask(t, conn)
		await("the connection to be idle", idle)
	}
	closed := func(conn net.Conn) {
		t.Helper()
		if _, err := conn.Read(make([]byte, 1)); err == nil || isTimeout(err) {
			t.Errorf("the connection is still open: %v", err)
		}
	}
	first, second := dial(t, address), dial(t, address)
	use(first)
	use(second)
	use(first) // second is idle longer now
	var busy []net.Conn
	for range 2 {
		conn := dial(t, address)
		fmt.Fprint(conn, "GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
		await("the request", reached)
		busy = append(busy, conn)
	}
	closed(second)
	third := dial(t, address)
	closed(first)
	fmt.Fprint(third, "GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
	await("the request", reached)
	closed(dial(t, address))
	close(release)
	for _, conn := range append(busy, third) {
		if code := status(t, conn); code != http.StatusOK {
			t.Errorf("a request that was being answered: %d", code)
		}
	}
}

// HTTP/2 is spoken only where it is asked for.
func TestHTTP2(t *testing.T) {
	for _, allowed := range []bool{false, true} {
		_, address := start(t, Options{Handler: http.HandlerFunc(ok), TLS: &tls.Config{MinVersion: tls.VersionTLS12}, HTTP2: allowed, Connections: 3, Timeout: patience})
		conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}})
		if err != nil {
			t.Fatal(err)
		}
		if spoken := conn.ConnectionState().NegotiatedProtocol; (spoken == "h2") != allowed {
			t.Errorf("HTTP/2 allowed %v: spoken is %q", allowed, spoken)
		}
		conn.Close()
	}
}

func TestLongHeaders(t *testing.T) {
	_, address := start(t, Options{Handler: http.HandlerFunc(ok), Connections: 3, Timeout: patience})
	conn := dial(t, address)
	go func() {
		fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\nLong: %s\r\n\r\n", strings.Repeat("x", 2*headerBytes))
	}()
	if code := status(t, conn); code != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("headers of %d bytes: %d", 2*headerBytes, code)
	}
}

// What clients do wrong is logged a few times a second, with the number of the rest.
func TestSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		s := &seldom{log: slog.New(slog.NewTextHandler(&out, nil)), now: time.Now}
		for range 1000 {
			fmt.Fprintln(s, "http: TLS handshake error")
		}
		time.Sleep(time.Second)
		fmt.Fprintln(s, "http: TLS handshake error")
		if lines := strings.Count(out.String(), "\n"); lines != 11 || !strings.Contains(out.String(), "skipped=990") {
			t.Errorf("%d lines:\n%s", lines, &out)
		}
	})
}

// A server that is stopped answers what has come, and then ends without an error; a port
// that is taken is an error.
func TestRun(t *testing.T) {
	taken, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	port := taken.Addr().(*net.TCPAddr).Port
	reached, release := make(chan bool), make(chan bool)
	options := Options{Name: "this", Port: port, Connections: 3, Timeout: patience, Log: slog.New(slog.DiscardHandler),
		Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached <- true; <-release })}
	if err := New(options).Run(t.Context()); err == nil || !strings.Contains(err.Error(), "this: ") || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("a port that is taken: %v", err)
	}
	taken.Close()

	s := New(options)
	if s.Listening() == nil {
		t.Error("it listens before it runs")
	}
	ctx, end := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- s.Run(ctx) }()
	<-s.listening
	conn := dial(t, fmt.Sprintf("localhost:%d", port))
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	<-reached
	end()
	close(release)
	if code := status(t, conn); code != http.StatusOK {
		t.Errorf("the last request: %d", code)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// reviews are a server of Reviews with room for one body of MaxBody.
type reviews struct {
	t       *testing.T
	address string
	count   *prometheus.CounterVec
}

func newReviews(t *testing.T, timeout time.Duration, next http.HandlerFunc) *reviews {
	r := &reviews{t: t, count: TurnedAway()}
	// WriteTimeout of the server is not what is tried here.
	_, r.address = start(t, Options{Handler: NewReviews(next, 0, timeout, r.count), Connections: 100, Timeout: 10 * patience})
	return r
}

// send begins a request that says it has size bytes, and sends body of it.
func (r *reviews) send(size int, body string) net.Conn {
	r.t.Helper()
	conn := dial(r.t, r.address)
	fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", size, body)
	return conn
}

// counted is how many reviews were turned away for a reason.
func (r *reviews) counted(reason string) int {
	r.t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(r.count)
	families, err := registry.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, m := range families[0].GetMetric() {
		if m.GetLabel()[0].GetValue() == reason {
			return int(m.GetCounter().GetValue())
		}
	}
	return -1
}

// A client that stalls within its body makes room for one that does not, however much time it would
// have.
func TestStalledBody(t *testing.T) {
	r := newReviews(t, 10*patience, ok)
	var stalled []net.Conn
	for range 15 {
		stalled = append(stalled, r.send(MaxBody, "{"))
	}
	if code := status(t, r.send(MaxBody, strings.Repeat("x", MaxBody))); code != http.StatusOK {
		t.Errorf("a whole body beside %d that stall: %d", len(stalled), code)
	}
	// One at least has made room.
	if n := r.counted(slow); n == 0 {
		t.Error("none of those that stall was ended")
	}
}

// So does one that does not read its answer.
func TestUnreadAnswer(t *testing.T) {
	text := bytes.Repeat([]byte("x"), 64<<20)
	r := newReviews(t, 10*patience, func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength > 2 {
			_, _ = w.Write(text)
		}
	})
	r.send(MaxBody, strings.Repeat("x", MaxBody))
	if code := status(t, r.send(2, "{}")); code != http.StatusOK {
		t.Errorf("beside one that does not read its answer: %d", code)
	}
}

// Where all room is taken by work, a review waits, and then the client has to come back.
func TestBusy(t *testing.T) {
	reached, release := make(chan bool), make(chan bool)
	r := newReviews(t, 2*time.Second, func(_ http.ResponseWriter, r *http.Request) {
		if r.ContentLength == MaxBody {
			reached <- true
			<-release
		}
	})
	big := r.send(MaxBody, strings.Repeat("x", MaxBody))
	<-reached
	small := r.send(2, "{}")
	response, err := http.ReadResponse(bufio.NewReader(small), nil)
	if err != nil {
		t.Fatal(err)
	}
	text, _ := io.ReadAll(response.Body)
	// An API server tries again after the time in Retry-After, as long as its own timeout lasts.
	if response.StatusCode != http.StatusTooManyRequests || response.Header.Get("Retry-After") != "1" || !strings.Contains(string(text), "too many reviews at once") {
		t.Errorf("%d, Retry-After %q: %s", response.StatusCode, response.Header.Get("Retry-After"), text)
	}
	if n := r.counted(busy); n != 1 {
		t.Errorf("counted %d", n)
	}
	close(release)
	if code := status(t, big); code != http.StatusOK {
		t.Errorf("the one in work: %d", code)
	}
	if code := status(t, r.send(2, "{}")); code != http.StatusOK {
		t.Errorf("after it: %d", code)
	}
}

// Many more than there is room for at once are all answered, one after the other.
func TestReviewsTakeTurns(t *testing.T) {
	var mu sync.Mutex
	now, most := 0, 0
	r := newReviews(t, 10*patience, func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		now++
		most = max(most, now)
		mu.Unlock()
		_, _ = io.Copy(io.Discard, r.Body)
		mu.Lock()
		now--
		mu.Unlock()
	})
	const size = MaxBody / 3
	body := strings.Repeat("x", size)
	var all sync.WaitGroup
	for range 20 {
		conn := r.send(size, "")
		all.Go(func() {
			_, _ = io.WriteString(conn, body)
			if code := status(t, conn); code != http.StatusOK {
				t.Error(code)
			}
		})
	}
	all.Wait()
	if most > 3 {
		t.Errorf("%d at once, where there is room for 3", most)
	}
}

// A body must arrive, and within the timeout; the work has no longer, either.
func TestTimeout(t *testing.T) {
	r := newReviews(t, time.Second, func(w http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		http.Error(w, context.Cause(r.Context()).Error(), http.StatusGatewayTimeout)
	})
	if code := status(t, r.send(10, "{")); code != http.StatusRequestTimeout {
		t.Errorf("a body that does not come: %d", code)
	}
	if n := r.counted(slow); n != 1 {
		t.Errorf("counted %d", n)
	}
	if code := status(t, r.send(2, "{}")); code != http.StatusGatewayTimeout {
		t.Errorf("work without an end: %d", code)
	}
}

func TestLarge(t *testing.T) {
	got := 0
	r := newReviews(t, patience, func(_ http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		got = int(n)
	})
	if code := status(t, r.send(MaxBody+1, "")); code != http.StatusRequestEntityTooLarge {
		t.Errorf("one that says that it is too large: %d", code)
	}
	chunked := func(size int) int {
		conn := dial(t, r.address)
		go fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", size, strings.Repeat("x", size))
		return status(t, conn)
	}
	if code := chunked(MaxBody + 1); code != http.StatusRequestEntityTooLarge {
		t.Errorf("one that only turns out to be too large: %d", code)
	}
	if n := r.counted(large); n != 2 {
		t.Errorf("counted %d", n)
	}
	if code := chunked(MaxBody); code != http.StatusOK || got != MaxBody {
		t.Errorf("one of just the size: %d, %d bytes", code, got)
	}
}
