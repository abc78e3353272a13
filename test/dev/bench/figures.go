package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// A figure measures every peer in turn, in each of several rounds, so that whatever else the
// machine does befalls all of them alike. It returns samples by column and peer.
type figure struct {
	name    string // for -only
	title   string // above its table
	method  string
	columns []column
	peers   []string // whom it concerns; empty: all
	measure func(b *bench, p peer) (map[string]float64, error)
}

// column is one number of a figure.
type column struct {
	name, unit string
	goal       string // what the sidecar should reach
}

// line is one line of a log, with a number, lineSize bytes with its newline.
func line(b []byte, n int) []byte {
	at := len(b)
	b = strconv.AppendInt(b, int64(n), 10)
	b = append(b, ' ')
	for len(b)-at < lineSize-1 {
		b = append(b, "abcdefghijklmnopqrstuvwxyz0123456789"[len(b)%36])
	}
	return append(b, '\n')
}

const lineSize = 160

// backlog makes a file of size bytes, which is in the page cache then.
func backlog(name string, size int64) (int64, error) {
	f, err := os.Create(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var b []byte
	written := int64(0)
	for n := 0; written < size; {
		for b = b[:0]; len(b) < 1<<20; n++ {
			b = line(b, n)
		}
		if _, err := f.Write(b); err != nil {
			return 0, err
		}
		written += int64(len(b))
	}
	return written, nil
}

// catchUp delivers a backlog into a pipe.
func catchUp(b *bench, p peer) (map[string]float64, error) {
	s, err := newSite(b.dir, 0)
	if err != nil {
		return nil, err
	}
	defer s.remove()
	s.files = []string{filepath.Join(s.dir, "root/app/000.log")}
	if err := os.Link(b.backlog, s.files[0]); err != nil {
		return nil, err
	}
	q, err := start(p, s)
	if err != nil {
		return nil, err
	}
	err = q.read(b.backlogSize, b.buf)
	wall := time.Since(q.started)
	peak := q.memory("VmHWM")
	cpu := q.end(unix.SIGTERM)
	values := map[string]float64{"cpu": cpu.Seconds(), "wall": wall.Seconds()}
	if peak > 0 { // cat has ended by then
		values["peak"] = float64(peak) / 1024
	}
	return values, err
}

// settled starts a peer and returns when it has delivered a first line.
func settled(b *bench, p peer, files int) (*site, *process, error) {
	s, err := newSite(b.dir, files)
	if err != nil {
		return nil, nil, err
	}
	first := line(nil, 0)
	for _, name := range s.files {
		if err := os.WriteFile(name, first, 0o644); err != nil {
			s.remove()
			return nil, nil, err
		}
	}
	q, err := start(p, s)
	if err == nil {
		err = q.read(int64(len(first)*files), b.buf)
	}
	if err != nil {
		if q != nil {
			q.end(unix.SIGKILL)
		}
		s.remove()
		return nil, nil, err
	}
	return s, q, nil
}

// write appends lines at a steady pace, each with a write(2) of its own. each is called before a line is written, and may change it.
func write(name string, every time.Duration, lines int, each func([]byte) []byte) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	var b []byte
	for n, begun := 0, time.Now(); n < lines; n++ {
		if ahead := time.Until(begun.Add(time.Duration(n) * every)); ahead > 0 {
			ts := unix.NsecToTimespec(int64(ahead))
			_ = unix.Nanosleep(&ts, nil)
		}
		b = each(line(b[:0], n))
		if _, err := unix.Write(int(f.Fd()), b); err != nil {
			return err
		}
	}
	return nil
}

// steady writes 10,000 lines a second.
func steady(b *bench, p peer) (map[string]float64, error) {
	s, q, err := settled(b, p, 1)
	if err != nil {
		return nil, err
	}
	defer s.remove()
	defer q.end(unix.SIGTERM)
	const every = 100 * time.Microsecond
	lines := int(b.long / every)
	arrived := make(chan error, 1)
	go func() { arrived <- q.read(int64(lines*lineSize), b.buf) }()
	before := q.cpu()
	if err := write(s.files[0], every, lines, func(l []byte) []byte { return l }); err != nil {
		return nil, err
	}
	// Not every peer delivers everything; that is in another table.
	select {
	case err := <-arrived:
		if err != nil {
			return nil, err
		}
	case <-time.After(5 * time.Second):
	}
	return map[string]float64{"cpu": (q.cpu() - before).Seconds() / b.long.Seconds() * 100}, nil
}

func monotonic() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return ts.Nano()
}

// latency writes a line every 10 ms, with the time in it.
func latency(b *bench, p peer) (map[string]float64, error) {
	s, q, err := settled(b, p, 1)
	if err != nil {
		return nil, err
	}
	defer s.remove()
	const lines, digits = 1000, 19
	took := make(chan []int64, 1)
	go func() {
		runtime.LockOSThread() // and blocks in read(2), as a runtime's copying thread does
		defer runtime.UnlockOSThread()
		var all []int64
		var got []byte
		buf := make([]byte, 64<<10)
		for len(all) < lines {
			n, err := unix.Read(int(q.out.Fd()), buf)
			now := monotonic()
			if n <= 0 && err != unix.EINTR {
				break
			}
			got = append(got, buf[:max(n, 0)]...)
			for i := bytes.IndexByte(got, '\n'); i >= 0; i = bytes.IndexByte(got, '\n') {
				at, _ := strconv.ParseInt(string(got[:digits]), 10, 64)
				all = append(all, now-at)
				got = got[i+1:]
			}
		}
		took <- all
	}()
	err = write(s.files[0], 10*time.Millisecond, lines, func(l []byte) []byte {
		return append(fmt.Appendf(l[:0], "%0*d", digits, monotonic()), '\n')
	})
	if err != nil {
		return nil, err
	}
	var all []int64
	select {
	case all = <-took:
	case <-time.After(30 * time.Second):
		err = fmt.Errorf("not all lines came")
	}
	q.end(unix.SIGTERM)
	if err != nil || len(all) < lines {
		return nil, fmt.Errorf("%d of %d lines came: %w", len(all), lines, err)
	}
	slices.Sort(all)
	return map[string]float64{"median": float64(all[len(all)/2]) / 1e6, "p99": float64(all[len(all)*99/100]) / 1e6}, nil
}

// settling is the time before idling is measured: what a peer does in the first seconds after a line
// is not idling.
const settling = 10 * time.Second

// idle lets a peer follow files in which nothing happens.
func idle(files int) func(*bench, peer) (map[string]float64, error) {
	return func(b *bench, p peer) (map[string]float64, error) {
		s, q, err := settled(b, p, files)
		if err != nil {
			return nil, err
		}
		defer s.remove()
		defer q.end(unix.SIGTERM)
		time.Sleep(settling)
		before := q.cpu()
		time.Sleep(b.idle)
		return map[string]float64{
			"cpu": (q.cpu() - before).Seconds() / b.idle.Seconds() * 100,
			"rss": float64(q.memory("Rss")) / 1024,
		}, nil
	}
}

// many lets 200 of a peer idle, each with a file of its own.
func many(b *bench, p peer) (map[string]float64, error) {
	const n = 200
	var all []*process
	defer func() {
		for _, q := range all {
			q.end(unix.SIGTERM)
		}
	}()
	for range n {
		s, q, err := settled(b, p, 1)
		if err != nil {
			return nil, err
		}
		defer s.remove()
		all = append(all, q)
	}
	time.Sleep(settling)
	sum := func(of func(*process) float64) (sum float64) {
		for _, q := range all {
			sum += of(q)
		}
		return sum
	}
	cpu := func(q *process) float64 { return q.cpu().Seconds() }
	before := sum(cpu)
	time.Sleep(b.idle)
	after := sum(cpu)
	return map[string]float64{
		"cpu": (after - before) / b.idle.Seconds() * 100,
		"pss": sum(func(q *process) float64 { return float64(q.memory("Pss")) / 1024 }),
	}, nil
}

// ready takes the time from the start of the sidecar to the end of `log-bridge ready`, its
// postStart hook, which the kubelet starts right behind it.
func ready(b *bench, p peer) (map[string]float64, error) {
	s, err := newSite(b.dir, 1)
	if err != nil {
		return nil, err
	}
	defer s.remove()
	q, err := start(p, s)
	if err != nil {
		return nil, err
	}
	defer q.end(unix.SIGTERM)
	hook := peer{name: "ready", argv: func(*site) []string { return []string{p.argv(s)[0], "ready", "--state", filepath.Join(s.dir, "state")} }, env: p.env}
	r, err := start(hook, s)
	if err != nil {
		return nil, err
	}
	if err := r.cmd.Wait(); err != nil {
		return nil, err
	}
	took := time.Since(q.started)
	r.out.Close()
	return map[string]float64{"time": float64(took.Microseconds()) / 1000}, nil
}
