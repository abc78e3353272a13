package say_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/sidecar/internal/say"
)

// TestWordsCannotBeForged: whatever strangers name their files, each message is one line that begins with
// log-bridge: and shows what it holds, and as JSON one object.
func TestWordsCannotBeForged(t *testing.T) {
	pieces := []string{
		"app.log", " ", "/", "\n", "\r", "\t", "\x00", "\x1b[2J", "\x7f", "\u009b31m", "\u0085", "\u2028", "\u202e", "\u2066", "\u200b", "\ufeff", "\U000e0041",
		"\xff", "\xc2", "\xed\xa0\x80", `"`, `\`, `"}`, "\nlog-bridge: the checkpoint is writable again", "日誌", "%s", "%!(EXTRA",
	}
	random := rand.New(rand.NewPCG(1, 1))
	name := func() string {
		var b strings.Builder
		for range 1 + random.IntN(6) {
			b.WriteString(pieces[random.IntN(len(pieces))])
		}
		return b.String()
	}
	for _, asJSON := range []bool{false, true} {
		for range 5000 {
			var out bytes.Buffer
			s := say.New(&out, false)
			if asJSON {
				s.AsJSON()
			}
			n := name()
			for _, speak := range []func(){
				func() { s.Say("%s is a directory", n) },
				func() { s.Say("%v", &fs.PathError{Op: "open", Path: n, Err: errors.New(name())}) },
				func() { s.Once(n, "%s is a directory", n) },
				func() { s.Once(n+"x", "%v", errors.New(n)) },
			} {
				out.Reset()
				speak()
				have := out.String()
				line, ended := strings.CutSuffix(have, "\n")
				if !ended || !utf8.ValidString(line) || strings.ContainsFunc(line, contract.Deceives) {
					t.Fatalf("of %q comes %q", n, have)
				}
				if asJSON {
					var object map[string]string
					if err := json.Unmarshal(out.Bytes(), &object); err != nil || len(object) != 1 || object["log-bridge"] == "" || strings.ContainsFunc(object["log-bridge"], contract.Deceives) {
						t.Fatalf("of %q comes %q: %v", n, have, err)
					}
				} else if !strings.HasPrefix(line, "log-bridge: ") {
					t.Fatalf("of %q comes %q", n, have)
				}
			}
		}
	}
}

func TestOnce(t *testing.T) {
	var out bytes.Buffer
	s := say.New(&out, false)
	s.Once("a", "%s", "one")
	s.Once("a", "%s", "one")
	s.Once("a", "%s", "two")
	s.Forget("a")
	s.Once("a", "%s", "two")
	if have, want := out.String(), "log-bridge: one\nlog-bridge: two\nlog-bridge: two\n"; have != want {
		t.Errorf("have %q, want %q", have, want)
	}
}
