package follow_test

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestC14_nothingIsReadTwice: a log whose space is allocated ahead, as real zeros, which no file system can
// skip: what is read for each line is not all of them.
func TestC14_nothingIsReadTwice(t *testing.T) {
	s := newStage(t, true, "app:/logs/app.log")
	const size = 64 << 20
	f, err := os.OpenFile(s.path("app.log"), os.O_RDWR|os.O_CREATE, 0o644)
	must(err)
	defer f.Close()
	for zeros := make([]byte, 1<<20); ; {
		_, err := f.Write(zeros)
		must(err)
		if at, _ := f.Seek(0, 1); at >= size {
			break
		}
	}
	s.start()
	s.want(s.rest(10*time.Second), "")
	before := readBytes()
	want, at := "", int64(0)
	for i := range 50 {
		line := fmt.Sprintf("line %d\n", i)
		_, err := f.WriteAt([]byte(line), at)
		must(err)
		at += int64(len(line))
		want += line
		s.want(s.rest(0), want)
	}
	if read := readBytes() - before; read > size {
		t.Errorf("%d MiB were read for 50 lines", read>>20)
	}
	// What is written to the zeros elsewhere than at their beginning is found as well.
	far := append([]byte("far"), '\n')
	_, err = f.WriteAt(far, size/2)
	must(err)
	s.rest(time.Minute)
	if have := bytes.ReplaceAll([]byte(s.delivered()), []byte{0}, nil); string(have) != want+"far\n" {
		t.Errorf("have %q, want %q", have, want+"far\n")
	}
}

// readBytes is how much this process has read so far (proc(5), io).
func readBytes() (n int64) {
	text, err := os.ReadFile("/proc/self/io")
	must(err)
	_, err = fmt.Sscanf(string(text), "rchar: %d", &n)
	must(err)
	return n
}

// TestF4: holes and zeros count towards a file's turn: however large they are, a turn ends, and the other file's
// line comes with the first sweep.
func TestF4_turnsEndInZeros(t *testing.T) {
	for _, hole := range []bool{true, false} {
		t.Run(fmt.Sprint("hole=", hole), func(t *testing.T) {
			s := newStage(t, true, "app:/logs/a.log", "app:/logs/b.log")
			s.append("a.log", "one\n")
			size := int64(48 << 20)
			if hole {
				size = 8 << 40
				must(os.Truncate(s.path("a.log"), size))
			} else {
				s.append("a.log", string(make([]byte, size)))
			}
			s.append("a.log", "x\n")
			s.append("b.log", "two\n")
			s.start()
			before := readBytes()
			_, _, err := s.sweep()
			must(err)
			if have := s.delivered(); !strings.Contains(have, "two\n") {
				t.Errorf("have %q after one sweep", short(have))
			}
			if read := readBytes() - before; read > 8<<20 {
				t.Errorf("one sweep read %d MiB", read>>20)
			}
			s.rest(0)
			must(unix.Truncate(s.path("a.log"), 0))
		})
	}
}

// TestE4: whole lines that come between the last read and the end are whole lines, and an unfinished one is
// ended once.
func TestE4_wholeLinesWhileItEnds(t *testing.T) {
	for _, late := range []string{"two\n", "two\nthree\n", "two\nunfin"} {
		s := newStage(t, true, "app:/logs/app.log")
		s.append("app.log", "one\n")
		s.start()
		s.rest(0)
		first := true
		must(s.f.Drain(s.now, func(int64) error {
			if first {
				first = false
				s.append("app.log", late)
			}
			return nil
		}))
		s.want(s.delivered(), "one\n"+strings.TrimSuffix(late, "\n")+"\n")
	}
}
