package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/sidecar/internal/checkpoint"
	"github.com/log-bridge/log-bridge/sidecar/internal/emit"
	"github.com/log-bridge/log-bridge/sidecar/internal/follow"
	"github.com/log-bridge/log-bridge/sidecar/internal/notify"
	"github.com/log-bridge/log-bridge/sidecar/internal/prepare"
	"github.com/log-bridge/log-bridge/sidecar/internal/say"
)

// tail follows until SIGTERM or SIGINT, then delivers what is left. It returns an error
// if it cannot start, if nothing reads the output any more, or if something is left
// undelivered; every other failure is reported and retried, because a sidecar that exits
// makes its pod not ready.
func tail(cfg contract.Config, stdout, stderr *os.File, words *say.Sayer) error {
	// SIGPIPE would end the program before it could say why, SIGIO comes with the
	// question whether a file has writers, and SIGHUP is not for a program without
	// a configuration file.
	signal.Ignore(syscall.SIGPIPE, syscall.SIGIO, syscall.SIGHUP)

	if cfg.Attached && !attached(os.Stdin, stdout) {
		return nil
	}
	store, records, err := begin(cfg, words)
	if err != nil {
		return err
	}
	defer store.Close()

	o := follow.Options{
		Config: cfg, Store: store, Records: records, Say: words,
		Stdout: emit.NewSink(stdout, cfg.Format), Stderr: emit.NewSink(stderr, cfg.Format),
	}
	end := awaitEnd(cfg, words, o.Stdout, o.Stderr)
	f := follow.New(o)
	defer f.Close()
	instances, first := notify.New(manners(), f.OpenDir)
	defer instances.Close()
	// Without a watcher, or while it is broken, files are polled.
	var watcher *notify.Watcher
	var events <-chan fsnotify.Event
	var faults <-chan error
	watch := func(c notify.Change) {
		if watcher != nil {
			go watcher.Close() // which may take the kernel a while
		}
		if watcher = c.Watcher; watcher == nil {
			events, faults = nil, nil
			f.Watch(nil)
			words.Once("events", "%s", withoutEvents(c.Err))
			return
		}
		events, faults = watcher.Events, watcher.Faults
		f.Watch(watcher)
		words.Forget("events")
	}
	watch(first)

	var isReady *os.File
	for {
		wait, err := f.Sweep(time.Now())
		if err != nil {
			return end.explain(err, f)
		}
		f.Tell(time.Now())
		if isReady == nil && !cfg.Attached {
			if isReady, err = announce(cfg.StatePath()); err != nil {
				words.Once("ready", "%v", err)
			} else {
				defer isReady.Close()
			}
		}
		if watcher != nil && !watcher.Writes(!wait.Flowing) {
			f.Watch(watcher)
			continue
		}
		hear := events
		if wait.Deaf {
			hear = nil
		}
		timer := time.NewTimer(wait.For)
		select {
		case <-timer.C:
			// Without a wait too, events are heard: other files may have become ready.
			select {
			case e, ok := <-events:
				if ok {
					watcher.Take(e, f.Changed)
				}
			default:
			}
		case e, ok := <-hear:
			if ok {
				watcher.Take(e, f.Changed)
			}
		case err := <-faults:
			if errors.Is(err, fsnotify.ErrEventOverflow) {
				f.Lost()
				break
			}
			watch(notify.Change{Err: err})
			instances.Lost()
		case c := <-instances.Changes:
			watch(c)
		case <-end.begun:
			timer.Stop()
			return end.explain(f.Drain(time.Now(), end.left), f)
		}
		timer.Stop()
	}
}

// attached waits until the person who attached to this container's output is there, and returns false if nobody is any more. What
// a container writes before somebody attaches to it, they never see; and to attach takes a moment. So each
// newline that comes in is answered by a NUL, which no log begins with, until the other end has seen one and says "g".
func attached(stdin io.Reader, stdout io.Writer) bool {
	for b := make([]byte, 1); ; {
		if _, err := io.ReadFull(stdin, b); err != nil {
			return false
		}
		if b[0] == contract.AttachedGo {
			return true
		}
		if _, err := stdout.Write([]byte{contract.AttachedAnswer}); err != nil {
			return false
		}
	}
}

// begin makes what other containers will mount, and opens the checkpoint.
func begin(cfg contract.Config, words *say.Sayer) (*checkpoint.Store, map[int]checkpoint.Record, error) {
	if cfg.Attached {
		return checkpoint.Once(), nil, nil
	}
	if err := prepare.Make(cfg, words.Say); err != nil {
		return nil, nil, err
	}
	store, records, err := checkpoint.Open(cfg.StatePath())
	if errors.Is(err, checkpoint.ErrLocked) {
		return nil, nil, err
	}
	if err != nil {
		words.Say("%v; lines are still delivered, but a restart of the sidecar would repeat them", err)
		return checkpoint.Nowhere(), nil, nil
	}
	return store, records, nil
}

// manners are how tail shares inotify instances; tests have their own.
var manners = notify.Usual

// withoutEvents is the message that says why there is no watcher.
func withoutEvents(err error) string {
	const remedy = "polling files instead, so lines arrive up to a second later. The node's sysctl fs.inotify.max_user_instances sets the limit for each user"
	switch {
	case errors.Is(err, notify.ErrReserve):
		return fmt.Sprintf("the last inotify instances of user %d on this node are left to the application; %s", os.Getuid(), remedy)
	case errors.Is(err, syscall.EMFILE):
		return fmt.Sprintf("user %d has no inotify instances left on this node; %s", os.Getuid(), remedy)
	}
	return fmt.Sprintf("cannot watch files for changes (%v); polling them instead, so lines arrive up to a second later", err)
}

// ending is the end of the program as signals ask for it.
type ending struct {
	begun  chan struct{} // closed by the first SIGTERM or SIGINT
	hurry  atomic.Pointer[string]
	undone atomic.Int64 // bytes to deliver, -1 while unknown
}

// awaitEnd takes the signals, or the end of standard input as the first one. After the first one, what is left is delivered; the grace, or a
// second one, ends that. It does so from a goroutine of its own, since the program may
// be waiting for the reader of its output.
func awaitEnd(cfg contract.Config, words *say.Sayer, sinks ...*emit.Sink) *ending {
	e := &ending{begun: make(chan struct{})}
	e.undone.Store(-1)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	if cfg.Attached {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin) // an error ends it, too
			signals <- syscall.SIGTERM
		}()
	}
	hurry := func(why string) {
		e.hurry.Store(&why)
		for _, s := range sinks {
			s.SetDeadline(time.Now())
		}
	}
	go func() {
		first := <-signals
		close(e.begun)
		var late <-chan time.Time
		if cfg.Grace > 0 {
			late = time.After(cfg.Grace)
		}
		slow := time.NewTicker(time.Second)
		for {
			select {
			case <-late:
				hurry(fmt.Sprintf("not finished %v after %v", cfg.Grace, first))
			case second := <-signals:
				hurry(fmt.Sprintf("received a second signal (%v)", second))
			case <-slow.C:
				// Rare: a pod's end seldom takes so long. If the sidecar is killed then, it
				// leaves this as its last message.
				slow.Reset(10 * time.Second)
				switch n := e.undone.Load(); {
				case n >= 0:
					words.Say("stopping: %s left to deliver", emit.Size(n))
				case slices.ContainsFunc(sinks, (*emit.Sink).Writing):
					words.Say("stopping: undelivered lines remain, but nothing is reading stdout")
				default:
					words.Say("stopping: searching for undelivered lines")
				}
			}
		}
	}()
	return e
}

// left is called with the bytes to deliver. It ends delivery if the program must hurry.
func (e *ending) left(n int64) error {
	e.undone.Store(n)
	if e.hurry.Load() != nil {
		return emit.ErrLate
	}
	return nil
}

// explain is the message for an end in a hurry.
func (e *ending) explain(err error, f *follow.Follower) error {
	if why := e.hurry.Load(); errors.Is(err, emit.ErrLate) && why != nil {
		return fmt.Errorf("%s; %s not delivered", *why, emit.Size(f.Left()))
	}
	return err
}
