package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestD3: SIGKILL again and again under load: no line is lost, and a kill repeats at most one
// block of 64 KiB.
func TestD3_killedAgainAndAgain(t *testing.T) {
	kills := 40
	if os.Getenv("TORTURE") != "" {
		kills = 1000
	}
	s := &stage{dir: t.TempDir(), inotify: true, writers: map[string]*os.File{}}
	t.Cleanup(s.close)
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(os.MkdirAll(s.path("app/logs"), 0o755))
	f, err := os.OpenFile(s.path("app/logs/app.log"), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	check(err)
	defer f.Close()
	random := rand.New(rand.NewPCG(3, 3)) // the moments of the kills are random anyway
	var want bytes.Buffer
	number := 0
	for range kills {
		check(s.start([]string{"app:/logs/app.log"}, false, false))
		before, err := os.Stat(s.path(".out"))
		check(err)
		// Some lines are there before the kill, some come during it.
		var batch []byte
		for range 1000 + random.IntN(4000) {
			number++
			batch = fmt.Appendf(batch, "line %07d of many\n", number)
		}
		want.Write(batch)
		written := make(chan error)
		go func() {
			for part := range bytes.Lines(batch) {
				if _, err := f.Write(part); err != nil {
					written <- err
					return
				}
			}
			close(written)
		}()
		until := before.Size() + int64(random.IntN(len(batch)))
		_, ok := s.out.until(s.path(".out"), func(have []byte) verdict { return rightIf(int64(len(have)) >= until) })
		if !ok {
			t.Fatal("nothing comes any more")
		}
		check(s.signal(unix.SIGKILL))
		_, err = s.end()
		check(err)
		check(<-written)
	}
	check(s.start([]string{"app:/logs/app.log"}, false, false))
	repeated := 0
	have, ok := s.out.until(s.path(".out"), func(have []byte) verdict {
		if len(have) < want.Len() {
			return notYet
		}
		have, repeated = withoutRepeats(have)
		return rightIf(bytes.Equal(have, want.Bytes()))
	})
	have, repeated = withoutRepeats(have)
	if !ok || repeated > kills*64<<10 {
		t.Fatalf("%d bytes repeated by %d kills\n%s", repeated, kills, difference(have, want.Bytes()))
	}
	t.Logf("%d kills repeated %d bytes of %d", kills, repeated, want.Len())
	check(s.signal(unix.SIGTERM))
	if st, err := s.end(); err != nil || !st.Success() {
		t.Errorf("the end: %v, %v", st, err)
	}
}
