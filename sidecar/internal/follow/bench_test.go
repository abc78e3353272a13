package follow_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/sidecar/internal/checkpoint"
	"github.com/log-bridge/log-bridge/sidecar/internal/emit"
	"github.com/log-bridge/log-bridge/sidecar/internal/follow"
	"github.com/log-bridge/log-bridge/sidecar/internal/say"
)

// quietWatcher gives every watch that is asked for, and tells nothing.
type quietWatcher struct{}

func (quietWatcher) Add(string) error    { return nil }
func (quietWatcher) Remove(string) error { return nil }

// benched is a Follower of n files that writes to /dev/null.
func benched(b *testing.B, n int, format contract.Format) (f *follow.Follower, files []*os.File) {
	b.Helper()
	dir := b.TempDir()
	must(os.MkdirAll(filepath.Join(dir, "app"), 0o755))
	for i := range n {
		file, err := os.OpenFile(filepath.Join(dir, "app", fmt.Sprintf("%03d.log", i)), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644)
		must(err)
		b.Cleanup(func() { file.Close() })
		files = append(files, file)
	}
	out, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	must(err)
	b.Cleanup(func() { out.Close() })
	entry, err := contract.ParseEntry("app:/*.log")
	must(err)
	store, records, err := checkpoint.Open(dir)
	must(err)
	b.Cleanup(func() { store.Close() })
	sink := emit.NewSink(out, format)
	f = follow.New(follow.Options{
		Config: contract.Config{Roots: []string{dir}, State: dir, Format: format, Stdout: []contract.Entry{entry}},
		Store:  store, Records: records, Say: say.New(os.Stderr, false), Stdout: sink, Stderr: sink, Watcher: quietWatcher{},
	})
	b.Cleanup(f.Close)
	return f, files
}

// deliver sweeps until there is nothing more.
func deliver(b *testing.B, f *follow.Follower, now time.Time) {
	for {
		wait, err := f.Sweep(now)
		if err != nil {
			b.Fatal(err)
		}
		if wait.For > 0 {
			return
		}
	}
}

// BenchmarkCatchUp delivers 16 MiB of lines of 160 bytes.
func BenchmarkCatchUp(b *testing.B) {
	for _, format := range []contract.Format{contract.Raw, contract.Prefixed, contract.JSON} {
		b.Run(string(format), func(b *testing.B) {
			f, files := benched(b, 1, format)
			text := bytes.Repeat(append(bytes.Repeat([]byte("x"), 159), '\n'), 16<<20/160)
			now := time.Unix(1e9, 0)
			deliver(b, f, now)
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				must(files[0].Truncate(0))
				now = now.Add(time.Hour)
				deliver(b, f, now)
				_, err := files[0].Write(text)
				must(err)
				f.Changed(files[0].Name(), false)
				b.StartTimer()
				deliver(b, f, now)
			}
		})
	}
}

// BenchmarkWakeUp delivers one line of one of n files.
func BenchmarkWakeUp(b *testing.B) {
	for _, n := range []int{1, 300} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			f, files := benched(b, n, contract.Raw)
			now := time.Unix(1e9, 0)
			deliver(b, f, now)
			line := append(bytes.Repeat([]byte("x"), 159), '\n')
			b.ReportAllocs()
			for b.Loop() {
				_, err := files[0].Write(line)
				must(err)
				now = now.Add(10 * time.Millisecond)
				f.Changed(files[0].Name(), false)
				deliver(b, f, now)
			}
		})
	}
}

// BenchmarkLook looks for 300 files, all of which are known, as after a change.
func BenchmarkLook(b *testing.B) {
	f, _ := benched(b, 300, contract.Raw)
	now := time.Unix(1e9, 0)
	deliver(b, f, now)
	b.ReportAllocs()
	for b.Loop() {
		f.Lost()
		now = now.Add(time.Hour)
		deliver(b, f, now)
	}
}

// BenchmarkIdle looks and checks while nothing happens to 300 files.
func BenchmarkIdle(b *testing.B) {
	f, _ := benched(b, 300, contract.Raw)
	now := time.Unix(1e9, 0)
	deliver(b, f, now)
	time.Sleep(follow.StampAge) // until the clock for file times has moved on
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(5 * time.Second)
		deliver(b, f, now)
	}
}
