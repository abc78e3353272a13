// Package say writes the sidecar's own messages: rare ones on stderr, each starting
// with "log-bridge: ", or as one JSON object a line where the lines of the
// application are JSON too, since kubectl logs merges stdout and stderr.
//
// Messages contain names that strangers chose. This is the only place that writes them, and
// it makes sure that a message stays one line and shows what it contains (contract.Line), so that no file
// name can forge another message.
package say

import (
	"fmt"
	"hash/maphash"
	"io"
	"sync"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/sidecar/internal/emit"
)

// Sayer writes messages. Say may be called from any goroutine, the rest from one.
type Sayer struct {
	mu   sync.Mutex
	w    io.Writer
	json bool
	seed maphash.Seed
	once map[uint64]uint64 // what was said last of a thing: sums, since names may be long
}

// New makes a Sayer.
func New(w io.Writer, json bool) *Sayer {
	return &Sayer{w: w, json: json, seed: maphash.MakeSeed(), once: map[uint64]uint64{}}
}

// AsJSON makes each message a JSON object from now on.
func (s *Sayer) AsJSON() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.json = true
}

// Say writes a message. A failure of stderr cannot be reported anywhere.
func (s *Sayer) Say(format string, args ...any) {
	line := contract.Line(fmt.Sprintf(format, args...))
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.json {
		b := append([]byte(`{"log-bridge":"`), emit.EscapeJSON(nil, []byte(line))...)
		_, _ = s.w.Write(append(b, "\"}\n"...))
		return
	}
	_, _ = fmt.Fprintf(s.w, "log-bridge: %s\n", line)
}

// maxOnce limits what Once remembers, in things; beyond it, messages may be repeated.
const maxOnce = 10000

// Once writes a message about a thing unless it was the last one about that thing.
func (s *Sayer) Once(about, format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	thing, sum := maphash.String(s.seed, about), maphash.String(s.seed, line)
	if s.once[thing] == sum {
		return
	}
	if len(s.once) >= maxOnce {
		clear(s.once)
	}
	s.once[thing] = sum
	s.Say("%s", line)
}

// Forget ends what was said about a thing, so that it is said again if it comes back.
func (s *Sayer) Forget(about string) { delete(s.once, maphash.String(s.seed, about)) }
