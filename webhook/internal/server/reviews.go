package server

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// MaxBody is the largest body that is read, in bytes. An API server takes requests of at most
// 3 MiB, and etcd, which has to store the pod, objects of 1.5 MiB. In a review the pod
// is JSON, with its defaults and managed fields, and some characters take six bytes there; a
// review has no more than one pod, since there is none before a CREATE. 7 MiB is also
// what controller-runtime reads, for the same reasons. A pod whose review is larger is one
// that hardly anybody could store; it is a failed call.
const MaxBody = 7 << 20

const (
	// leastWeight is what a small body counts as, for what each request takes besides.
	leastWeight = 64 << 10
	// grace is how long a client may keep the server waiting although others wait for
	// room.
	grace = time.Second
)

// Reasons of a review that is turned away, the label `reason` of TurnedAway.
const (
	busy  = "busy"  // too many at once: 429
	slow  = "slow"  // its body did not come in time: 408
	large = "large" // its body is above MaxBody: 413
)

// TurnedAway counts reviews that were not decided.
func TurnedAway() *prometheus.CounterVec {
	count := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "log_bridge_reviews_turned_away_total",
		Help: "Reviews that the webhook did not decide, by reason: busy (too many at once), slow (the body did not come in time), large (the body was too large).",
	}, []string{"reason"})
	for _, reason := range []string{busy, slow, large} {
		// A counter that begins with its first event would not rise by it, for an alert.
		count.WithLabelValues(reason)
	}
	return count
}

// Reviews is a handler that bounds the bodies in memory, and with them the work in
// progress. It reads a body to its end before next gets it, so that next never waits
// for a client, and gives it a context that ends after Timeout.
type Reviews struct {
	next    http.Handler
	timeout time.Duration
	count   *prometheus.CounterVec

	mu sync.Mutex
	// free is how many bytes of bodies there is room for.
	free int64
	// changed is closed, and made new, when there is more room.
	changed chan struct{}
	// keepers are requests that have room and wait for their client, the one that has
	// waited longest first.
	keepers []*keeper
}

// keeper is a request that the server reads from a client, or answers to one.
type keeper struct {
	since time.Time
	end   func()
}

// NewReviews makes a handler with room for bodies of the given number of bytes in sum, and
// for one of MaxBody at least.
func NewReviews(next http.Handler, room int64, timeout time.Duration, count *prometheus.CounterVec) *Reviews {
	return &Reviews{next: next, timeout: timeout, count: count, free: max(room, MaxBody), changed: make(chan struct{})}
}

func (s *Reviews) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	begun := time.Now()
	ctx, cancel := context.WithTimeout(r.Context(), s.timeout)
	defer cancel()
	control := http.NewResponseController(w)
	// The one of the connection counts from the first byte of the headers. A connection
	// without deadlines, as in a test, keeps to the context.
	_ = control.SetReadDeadline(begun.Add(s.timeout))

	size := r.ContentLength
	if size > MaxBody {
		s.turnAway(w, large, http.StatusRequestEntityTooLarge, "this review has %d bytes, more than the limit of %d", size, int64(MaxBody))
		return
	}
	if size < 0 {
		size = MaxBody // it does not say
	}
	weight := max(size, leastWeight)
	// Half of the time is left to read and to decide.
	if !s.enter(ctx, weight, s.timeout/2) {
		w.Header().Set("Retry-After", "1")
		s.turnAway(w, busy, http.StatusTooManyRequests, "too many reviews at once; unless this is an attack, raise webhook.replicas or webhook.resources.limits.memory")
		return
	}
	defer s.leave(weight)

	k := &keeper{end: func() {
		past := time.Unix(1, 0)
		_ = control.SetReadDeadline(past)
		_ = control.SetWriteDeadline(past)
	}}
	s.await(k)
	body, err := read(r.Body, r.ContentLength)
	s.proceed(k)
	switch {
	case err != nil:
		s.turnAway(w, slow, http.StatusRequestTimeout, "the body of this review did not arrive in time: %v", err)
		return
	case len(body) > MaxBody:
		s.turnAway(w, large, http.StatusRequestEntityTooLarge, "this review has more bytes than the limit of %d", int64(MaxBody))
		return
	}
	r = r.WithContext(ctx)
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	s.next.ServeHTTP(&answer{w, s, k}, r)
}

// read returns the whole body, or one byte more than MaxBody of it.
func read(body io.Reader, size int64) ([]byte, error) {
	if size < 0 {
		return io.ReadAll(io.LimitReader(body, MaxBody+1))
	}
	all := make([]byte, size)
	_, err := io.ReadFull(body, all)
	return all, err
}

// turnAway answers with a status and a sentence. The connection ends with it, since part
// of the body may still be on its way, unless the client is to come back at once.
func (s *Reviews) turnAway(w http.ResponseWriter, reason string, status int, format string, args ...any) {
	s.count.WithLabelValues(reason).Inc()
	if reason != busy {
		w.Header().Set("Connection", "close")
	}
	http.Error(w, "log-bridge-webhook: "+fmt.Sprintf(format, args...), status)
}

// enter waits until there is room for a weight, at most for patience.
func (s *Reviews) enter(ctx context.Context, weight int64, patience time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		s.mu.Lock()
		if weight <= s.free {
			s.free -= weight
			s.mu.Unlock()
			return true
		}
		changed, wait := s.changed, s.makeRoom(time.Now())
		s.mu.Unlock()
		timer := time.NewTimer(wait)
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return false
		}
		timer.Stop()
	}
}

// makeRoom ends the request whose client has kept it waiting longest, if that is longer
// than the grace, and returns after what time it is worth trying again. The caller
// holds the lock.
func (s *Reviews) makeRoom(now time.Time) time.Duration {
	if len(s.keepers) == 0 {
		return grace
	}
	oldest := s.keepers[0]
	if left := grace - now.Sub(oldest.since); left > 0 {
		return left
	}
	s.keepers = s.keepers[1:]
	oldest.end()
	return grace
}

func (s *Reviews) leave(weight int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free += weight
	close(s.changed)
	s.changed = make(chan struct{})
}

// await marks a request as waiting for its client, until proceed.
func (s *Reviews) await(k *keeper) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k.since = time.Now()
	s.keepers = append(s.keepers, k)
}

func (s *Reviews) proceed(k *keeper) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keepers = slices.DeleteFunc(s.keepers, func(other *keeper) bool { return other == k })
}

// answer is the ResponseWriter of a request that has room: while it writes, it waits
// for its client.
type answer struct {
	http.ResponseWriter
	of     *Reviews
	keeper *keeper
}

func (a *answer) Write(text []byte) (int, error) {
	a.of.await(a.keeper)
	defer a.of.proceed(a.keeper)
	return a.ResponseWriter.Write(text)
}
