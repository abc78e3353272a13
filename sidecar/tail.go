package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/sidecar/internal/checkpoint"
	"github.com/log-bridge/log-bridge/sidecar/internal/emit"
	"github.com/log-bridge/log-bridge/sidecar/internal/follow"
	"github.com/log-bridge/log-bridge/sidecar/internal/prepare"
	"github.com/log-bridge/log-bridge/sidecar/internal/say"
)

// tail follows until SIGTERM or SIGINT, then delivers what is left. It returns an error
// if it cannot begin, if nobody reads the output any more, or if something is left
// undelivered; every other fault is said and tried again, since a sidecar that ends
// makes its pod not ready.
func tail(cfg contract.Config, stdout, stderr *os.File) error {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	// SIGPIPE would end the program before it could say why, SIGIO comes with the
	// question whether a file has writers, and SIGHUP is not for a program without
	// a configuration file.
	signal.Ignore(syscall.SIGPIPE, syscall.SIGIO, syscall.SIGHUP)

	words := say.New(stderr, cfg.Format == contract.JSON)
	if err := prepare.Make(cfg); err != nil {
		return err
	}
	store, records, err := checkpoint.Open(cfg.StatePath())
	if errors.Is(err, checkpoint.ErrLocked) {
		return err
	}
	if err != nil {
		words.Say("%v; lines go on, but a restart of the sidecar would repeat them", err)
		store, records = checkpoint.Nowhere(), nil
	}
	defer store.Close()

	o := follow.Options{
		Config: cfg, Store: store, Records: records, Say: words,
		Stdout: emit.NewSink(stdout, cfg.Format), Stderr: emit.NewSink(stderr, cfg.Format),
	}
	var events chan fsnotify.Event
	var faults chan error
	if w, err := fsnotify.NewWatcher(); err == nil {
		defer w.Close()
		o.Watcher, events, faults = w, w.Events, w.Errors
	}
	f := follow.New(o)
	defer f.Close()

	var isReady *os.File
	for {
		wait, err := f.Sweep(time.Now())
		if err != nil {
			return err
		}
		if isReady == nil {
			if isReady, err = announce(cfg.StatePath()); err != nil {
				words.Once("ready", "%v", err)
			} else {
				defer isReady.Close()
			}
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
			case e := <-events:
				changed(f, e)
			default:
			}
		case e := <-hear:
			changed(f, e)
		case err := <-faults:
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				words.Once("events", "watching for changes: %v; files are still checked every few seconds", err)
			}
			f.Lost()
		case s := <-signals:
			timer.Stop()
			return drain(f, cfg, o, words, s, signals)
		}
		timer.Stop()
	}
}

func changed(f *follow.Follower, e fsnotify.Event) {
	f.Changed(e.Name, e.Op&^fsnotify.Write != 0)
}

// drain delivers what is left after a signal. It ends at the deadline, or at a second
// signal, and then says how much is not delivered.
func drain(f *follow.Follower, cfg contract.Config, o follow.Options, words *say.Sayer, s os.Signal, again <-chan os.Signal) error {
	begun := time.Now()
	var late <-chan time.Time
	if cfg.Grace > 0 {
		timer := time.NewTimer(cfg.Grace)
		defer timer.Stop()
		late = timer.C
	}
	done := make(chan struct{})
	defer close(done)
	var why atomic.Value
	go func() {
		select {
		case <-done:
			return
		case <-late:
			why.Store(fmt.Sprintf("not done %v after %v", cfg.Grace, s))
		case s := <-again:
			why.Store(fmt.Sprintf("told a second time to stop (%v)", s))
		}
		// The next write that would wait for the reader fails.
		o.Stdout.SetDeadline(time.Now())
		o.Stderr.SetDeadline(time.Now())
	}()
	told := begun
	err := f.Drain(begun, func(left int64) error {
		if w := why.Load(); w != nil {
			return errors.New("stopped")
		}
		if now := time.Now(); left > 0 && now.Sub(told) > time.Second {
			told = now
			words.Say("stopping: %s to deliver", emit.Size(left))
		}
		return nil
	})
	if w := why.Load(); w != nil && err != nil {
		return fmt.Errorf("%v; %s are not delivered", w, emit.Size(f.Left()))
	}
	return err
}
