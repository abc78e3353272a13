package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A scene is something that happens to a log of numbered lines. A follower should deliver
// each line once.
type scene struct {
	what string
	play func(a *act)
}

// look is longer than any of the followers waits between two looks.
const look = 1500 * time.Millisecond

var scenes = []scene{
	{"renamed every 500 lines, 40 times", func(a *act) {
		for range 40 {
			a.write(500)
			a.rename()
			a.create()
		}
	}},
	{"the writer goes on in the renamed file, 20 times", func(a *act) {
		for range 20 {
			a.write(500)
			a.rename()
			a.write(500)
			a.create()
		}
	}},
	{"copied, truncated and written again while the follower does not run, 10 times", func(a *act) {
		for range 10 {
			a.signal(syscall.SIGSTOP)
			a.write(1000)
			a.copy()
			a.truncate()
			a.write(500)
			a.signal(syscall.SIGCONT)
			time.Sleep(look)
		}
	}},
	{"truncated, and grown beyond where it was, while the follower does not run, 5 times", func(a *act) {
		for i := range 5 {
			a.signal(syscall.SIGSTOP)
			a.truncate()
			a.write(500 * (i + 1))
			a.signal(syscall.SIGCONT)
			time.Sleep(look)
		}
	}},
	{"deleted after 50 ms and created again, 10 times", func(a *act) {
		for range 10 {
			a.write(500)
			time.Sleep(50 * time.Millisecond)
			a.must(os.Remove(a.s.files[0]))
			a.create()
		}
	}},
	{"stopped right after the last of 20,000 lines", func(a *act) {
		a.write(20_000)
		a.end(syscall.SIGTERM)
	}},
	{"ended and started again, with lines in between", func(a *act) {
		a.write(5000)
		time.Sleep(look)
		a.end(syscall.SIGTERM)
		a.write(5000)
		a.start()
		a.write(5000)
	}},
	{"killed and started again 5 times while lines are written", func(a *act) {
		for range 5 {
			a.write(2000)
			a.end(syscall.SIGKILL)
			a.write(2000)
			a.start()
		}
	}},
}

// act is a scene that is being played.
type act struct {
	p       peer
	s       *site
	q       *process
	f       *os.File
	written int
	rotated int
	out     bytes.Buffer
	reading sync.WaitGroup
	mu      sync.Mutex
	last    time.Time // when something came
	err     error
}

func (a *act) must(err error) {
	if err != nil && a.err == nil {
		a.err = err
	}
}

func (a *act) start() {
	var err error
	a.q, err = start(a.p, a.s)
	a.must(err)
	if err != nil {
		return
	}
	out := a.q.out
	a.reading.Go(func() {
		buf := make([]byte, 1<<16)
		for {
			n, err := unix.Read(int(out.Fd()), buf)
			if n <= 0 && err != unix.EINTR {
				break
			}
			a.mu.Lock()
			a.out.Write(buf[:max(n, 0)])
			a.last = time.Now()
			a.mu.Unlock()
		}
		// A line that a kill cut off must not run into the next one.
		a.mu.Lock()
		a.out.WriteByte('\n')
		a.mu.Unlock()
	})
}

func (a *act) end(signal syscall.Signal) {
	if a.q == nil {
		return
	}
	a.q.wait(signal)
	a.reading.Wait()
	a.q.out.Close()
	a.q = nil
}

func (a *act) signal(s syscall.Signal) { a.must(a.q.cmd.Process.Signal(s)) }

func (a *act) create() {
	if a.f != nil {
		a.f.Close()
	}
	f, err := os.OpenFile(a.s.files[0], os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	a.must(err)
	a.f = f
}

func (a *act) write(lines int) {
	var b []byte
	for range lines {
		b = line(b[:0], a.written)
		_, err := a.f.Write(b)
		a.must(err)
		a.written++
	}
}

func (a *act) rename() {
	a.rotated++
	a.must(os.Rename(a.s.files[0], a.s.files[0]+"."+strconv.Itoa(a.rotated)))
}

func (a *act) copy() {
	a.rotated++
	b, err := os.ReadFile(a.s.files[0])
	a.must(err)
	a.must(os.WriteFile(a.s.files[0]+"."+strconv.Itoa(a.rotated), b, 0o644))
}

func (a *act) truncate() { a.must(os.Truncate(a.s.files[0], 0)) }

// quiet waits until nothing came for a while.
func (a *act) quiet() {
	for begun := time.Now(); time.Since(begun) < time.Minute; time.Sleep(100 * time.Millisecond) {
		a.mu.Lock()
		quiet := time.Since(a.last) > 2*look && time.Since(begun) > 2*look
		a.mu.Unlock()
		if quiet {
			return
		}
	}
}

// play plays a scene and counts the lines that never came, and those that came again.
func (b *bench) play(sc scene, p peer) (lost, repeated int, err error) {
	s, err := newSite(b.dir, 1)
	if err != nil {
		return 0, 0, err
	}
	defer s.remove()
	a := &act{p: p, s: s}
	a.create()
	a.start()
	if a.err != nil {
		return 0, 0, a.err
	}
	a.write(1) // so that all have seen the file
	time.Sleep(look)
	sc.play(a)
	if a.q != nil {
		a.quiet()
		a.end(syscall.SIGTERM)
	}
	a.f.Close()
	came := make([]int, a.written)
	for l := range bytes.Lines(a.out.Bytes()) {
		first, _, _ := bytes.Cut(l, []byte(" "))
		if n, err := strconv.Atoi(string(first)); err == nil && n < len(came) && bytes.Equal(l, line(nil, n)) {
			came[n]++
		}
	}
	for _, n := range came {
		if n == 0 {
			lost++
		} else {
			repeated += n - 1
		}
	}
	return lost, repeated, a.err
}

// losses plays all scenes with all peers.
func (b *bench) losses(peers []peer, progress io.Writer) (string, error) {
	var t strings.Builder
	t.WriteString("### Lost and repeated lines\n\nThe same writer for all; lines of 160 bytes, each with a write(2) of its own. Lost / repeated, of the lines written.\n\n| |")
	for _, p := range peers {
		t.WriteString(" " + p.name + " |")
	}
	t.WriteString("\n|---|" + strings.Repeat("---|", len(peers)) + "\n")
	for _, sc := range scenes {
		t.WriteString("| " + sc.what + " |")
		for _, p := range peers {
			fmt.Fprintf(progress, "losses: %s: %s\n", sc.what, p.name)
			lost, repeated, err := b.play(sc, p)
			if err != nil {
				return "", fmt.Errorf("%s: %s: %w", sc.what, p.name, err)
			}
			fmt.Fprintf(&t, " %d / %d |", lost, repeated)
		}
		t.WriteString("\n")
	}
	return t.String() + "\n", nil
}
