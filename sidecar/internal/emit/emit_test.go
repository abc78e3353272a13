package emit_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/sidecar/internal/emit"
	"golang.org/x/sys/unix"
)

// sink makes a sink on a file; read returns what is in the file.
func sink(t testing.TB, format contract.Format) (s *emit.Sink, read func() string) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return emit.NewSink(f, format), func() string {
		b, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
}

func TestFormats(t *testing.T) {
	const lines = "one\n\ntab\t\"quote\" \\ \r\n\x1b[31m\x7f\x00\né \xff\xe2\x82\n"
	for format, want := range map[contract.Format]string{
		contract.Raw: lines,
		contract.Prefixed: "app:\"/a b.log\" one\napp:\"/a b.log\" \napp:\"/a b.log\" tab\t\"quote\" \\ \r\n" +
			"app:\"/a b.log\" \x1b[31m\x7f\x00\napp:\"/a b.log\" é \xff\xe2\x82\n",
		contract.JSON: `{"container":"app","file":"/a b.log","line":"one"}` + "\n" +
			`{"container":"app","file":"/a b.log","line":""}` + "\n" +
			`{"container":"app","file":"/a b.log","line":"tab\t\"quote\" \\ \r"}` + "\n" +
			`{"container":"app","file":"/a b.log","line":"\u001b[31m\u007f\u0000"}` + "\n" +
			`{"container":"app","file":"/a b.log","line":"é \ufffd\ufffd\ufffd"}` + "\n",
	} {
		s, read := sink(t, format)
		n, err := s.Lines("app", "/a b.log", []byte(lines))
		if err != nil || n != len(lines) {
			t.Errorf("%s: Lines: have %d, %v, want %d", format, n, err, len(lines))
		}
		if have := read(); have != want {
			t.Errorf("%s:\nhave %q\nwant %q", format, have, want)
		}
	}
}

// FuzzNames: whatever a file is called, each line is one line of its own, from which its path and text can be
// read back.
func FuzzNames(f *testing.F) {
	f.Add("/logs/a.log", "/logs/b.log", "text")
	f.Add("/logs/x\nlog-bridge: the checkpoint is writable again \x1b[2J.log", "/a b", " x")
	f.Add("/logs/x\" y\\.log", "/\u202egol\u009b", "\"")
	f.Add("/logs/\xff\xfe", "/日誌 \"x\"", "\u200b\U000e0041")
	f.Fuzz(func(t *testing.T, path, other, text string) {
		path, other = "/"+path, "/"+other
		text = strings.ReplaceAll(text, "\n", "")
		for _, format := range []contract.Format{contract.Prefixed, contract.JSON} {
			s, read := sink(t, format)
			want := []string{path, other, path}
			for i, p := range want {
				var err error
				if i == 1 {
					err = s.Piece("app", p, []byte(text+"\n"), true, true)
				} else {
					_, err = s.Lines("app", p, []byte(text+"\n"))
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			lines := slices.Collect(strings.Lines(read()))
			if len(lines) != len(want) {
				t.Fatalf("%s: have %d lines, want %d: %q", format, len(lines), len(want), lines)
			}
			for i, line := range lines {
				container, name, rest := "", "", ""
				if format == contract.JSON {
					o := objects(t, line)[0]
					container, name, rest = o.Container, o.File, o.Line
					want[i] = valid([]byte(want[i]))
					if rest != valid([]byte(text)) {
						t.Errorf("json: have %q, want %q", rest, text)
					}
					if strings.ContainsFunc(strings.TrimSuffix(line, "\n"), contract.Deceives) || !utf8.ValidString(line) {
						t.Errorf("json: %q deceives", line)
					}
				} else {
					container, name, rest = splitPrefix(t, strings.TrimSuffix(line, "\n"))
					if rest != text {
						t.Errorf("prefix: have %q, want %q", rest, text)
					}
					if prefix := strings.TrimSuffix(line, text+"\n"); strings.ContainsFunc(prefix, contract.Deceives) || !utf8.ValidString(prefix) {
						t.Errorf("prefix: %q deceives", prefix)
					}
				}
				if container != "app" || name != want[i] {
					t.Errorf("%s: have %s and %q, want %q", format, container, name, want[i])
				}
			}
		}
	})
}

// splitPrefix reads a line of the format prefix as docs/annotations.md says.
func splitPrefix(t *testing.T, line string) (container, path, text string) {
	t.Helper()
	container, rest, _ := strings.Cut(line, ":")
	if !strings.HasPrefix(rest, `"`) {
		path, text, _ = strings.Cut(rest, " ")
		return container, path, text
	}
	quoted, err := strconv.QuotedPrefix(rest)
	if err == nil {
		path, err = strconv.Unquote(quoted)
	}
	if err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	return container, path, strings.TrimPrefix(rest[len(quoted):], " ")
}

func TestMoreThanOneWrite(t *testing.T) {
	// Formatted lines go out in several writes; none is missing, none is torn.
	lines := strings.Repeat(strings.Repeat("x", 99)+"\n", 5000)
	s, read := sink(t, contract.Prefixed)
	if n, err := s.Lines("app", "/x", []byte(lines)); n != len(lines) || err != nil {
		t.Fatalf("Lines: have %d, %v", n, err)
	}
	want := strings.Repeat("app:/x "+strings.Repeat("x", 99)+"\n", 5000)
	if have := read(); have != want {
		t.Errorf("have %d bytes, want %d", len(have), len(want))
	}
}

func TestPieces(t *testing.T) {
	for _, test := range []struct {
		format contract.Format
		want   string
	}{
		{contract.Raw, "one two\nnext\n"},
		{contract.Prefixed, "app:/x one two\napp:/x next\n"},
		{contract.JSON, `{"container":"app","file":"/x","line":"one","cut":true}` + "\n" +
			`{"container":"app","file":"/x","line":" two"}` + "\n" +
			`{"container":"app","file":"/x","line":"next"}` + "\n"},
	} {
		s, read := sink(t, test.format)
		err := errors.Join(
			s.Piece("app", "/x", []byte("one"), true, false),
			s.Piece("app", "/x", []byte(" two\n"), false, true),
			s.Piece("app", "/x", []byte("next\n"), true, true),
		)
		if have := read(); have != test.want || err != nil {
			t.Errorf("%s: %v\nhave %q\nwant %q", test.format, err, have, test.want)
		}
	}
}

// object is a line as the JSON format writes it.
type object struct {
	Container, File, Line string
	Cut                   bool
}

func objects(t *testing.T, out string) (all []object) {
	t.Helper()
	for line := range strings.Lines(out) {
		var o object
		d := json.NewDecoder(strings.NewReader(line))
		d.DisallowUnknownFields()
		if err := d.Decode(&o); err != nil || d.More() {
			t.Fatalf("not one JSON object: %q: %v", line, err)
		}
		all = append(all, o)
	}
	return all
}

// valid is what JSON can carry of p: each byte that is not UTF-8 becomes U+FFFD.
func valid(p []byte) string {
	var b strings.Builder
	for len(p) > 0 {
		r, n := utf8.DecodeRune(p)
		b.WriteRune(r)
		p = p[n:]
	}
	return b.String()
}

func FuzzEscapeJSON(f *testing.F) {
	for _, s := range []string{"", "plain", "\"\\\b\f\n\r\t\x00\x1f\x7f", "é€😀", "\xff\xc3\xe2\x82\xf0\x9f\x98", "\u2028\u2029</script>", "\xed\xa0\x80"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		quoted := append(emit.EscapeJSON([]byte{'"'}, p), '"')
		var have string
		if err := json.Unmarshal(quoted, &have); err != nil {
			t.Fatalf("%q is no JSON string: %v", quoted, err)
		}
		if want := valid(p); have != want {
			t.Errorf("have %q, want %q", have, want)
		}
		if bytes.ContainsAny(quoted, "\n\r") {
			t.Errorf("%q is more than one line", quoted)
		}
	})
}

// FuzzPieces: a long line in pieces, cut anywhere, is the line.
func FuzzPieces(f *testing.F) {
	f.Add([]byte("é€😀é€😀\xff\xe2\x82"), uint8(1))
	f.Add([]byte("abc"), uint8(2))
	f.Add([]byte("\xf0\x9f\x98\xf0\x9f\x98\x80"), uint8(3))
	f.Fuzz(func(t *testing.T, line []byte, size uint8) {
		line = bytes.ReplaceAll(line, []byte("\n"), nil)
		if size == 0 {
			return
		}
		s, read := sink(t, contract.JSON)
		whole := append(bytes.Clone(line), '\n')
		for at := 0; at < len(whole); {
			end := min(at+int(size), len(whole))
			// The Follower's pieces are cut from one buffer that is used again.
			piece := bytes.Clone(whole[at:end])
			if err := s.Piece("c", "/f", piece, at == 0, end == len(whole)); err != nil {
				t.Fatal(err)
			}
			clear(piece)
			at = end
		}
		var have strings.Builder
		all := objects(t, read())
		for i, o := range all {
			have.WriteString(o.Line)
			if last := i == len(all)-1; o.Cut == last || o.Container != "c" || o.File != "/f" {
				t.Errorf("object %d of %d: %+v", i, len(all), o)
			}
		}
		if want := valid(line); have.String() != want {
			t.Errorf("have %q, want %q", have.String(), want)
		}
	})
}

// full makes a pipe, or a pair of sockets, that nothing reads, and a sink on it.
func full(t *testing.T, socket bool) (s *emit.Sink, reader int) {
	t.Helper()
	var p [2]int
	var err error
	if socket {
		p, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	} else {
		err = unix.Pipe2(p[:], unix.O_CLOEXEC)
	}
	if err != nil {
		t.Fatal(err)
	}
	w := os.NewFile(uintptr(p[1]), "output")
	t.Cleanup(func() { w.Close() })
	return emit.NewSink(w, contract.Raw), p[0]
}

func TestDeadlineEndsAWrite(t *testing.T) {
	for _, socket := range []bool{false, true} {
		s, reader := full(t, socket)
		defer unix.Close(reader)
		lines := bytes.Repeat([]byte("0123456\n"), 1<<20)
		type result struct {
			n   int
			err error
		}
		done := make(chan result, 1)
		go func() {
			n, err := s.Lines("app", "/x", lines)
			done <- result{n, err}
		}()
		// Before and while it waits are the same to it.
		s.SetDeadline(time.Now())
		select {
		case r := <-done:
			if !errors.Is(r.err, emit.ErrLate) || r.n == len(lines) {
				t.Errorf("socket %v: have %d, %v, want %v", socket, r.n, r.err, emit.ErrLate)
			}
			// What it says is out is what the reader gets, and no more.
			held, err := unix.IoctlGetInt(reader, unix.TIOCINQ)
			if err != nil || held != r.n {
				t.Errorf("socket %v: %d bytes can be read, %v; it said %d", socket, held, err, r.n)
			}
		case <-time.After(30 * time.Second):
			t.Fatal("the write does not end")
		}
	}
}

func TestNobodyReads(t *testing.T) {
	for _, socket := range []bool{false, true} {
		s, reader := full(t, socket)
		unix.Close(reader)
		if _, err := s.Lines("app", "/x", []byte("one\n")); !errors.Is(err, emit.ErrClosed) {
			t.Errorf("socket %v: have %v, want %v", socket, err, emit.ErrClosed)
		}
	}
}

// TestE7: the descriptor is shared with other processes, to which it stays a blocking one; and what the
// pipe may hold when we end is little.
func TestE7_sharedPipe(t *testing.T) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	w := os.NewFile(uintptr(p[1]), "output")
	defer w.Close()
	defer unix.Close(p[0])
	s := emit.NewSink(w, contract.Raw)
	if _, err := s.Lines("app", "/x", []byte("one\n")); err != nil {
		t.Fatal(err)
	}
	flags, err := unix.FcntlInt(uintptr(p[1]), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_NONBLOCK != 0 {
		t.Errorf("flags %#x, %v: O_NONBLOCK is set for all who share the pipe", flags, err)
	}
	// E7: what is in the pipe when we end is the runtime's to drain, in ten seconds.
	if now, _ := unix.FcntlInt(uintptr(p[0]), unix.F_GETPIPE_SZ, 0); now > 256<<10 {
		t.Errorf("the pipe has %d bytes, want at most 256 KiB", now)
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 bytes", 1023: "1023 bytes", 1024: "1.0 KiB", 3565158: "3.4 MiB", 5 << 30: "5.0 GiB", 1 << 50: "1024.0 TiB"} {
		if have := emit.Size(n); have != want {
			t.Errorf("Size(%d): have %s, want %s", n, have, want)
		}
	}
}
