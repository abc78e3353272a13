package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/log-bridge/log-bridge/sidecar/internal/checkpoint"
	"github.com/log-bridge/log-bridge/sidecar/internal/notify"
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// The scripts in testdata/script drive the real program: each is a story with a first
// line that says what must come out. One that is named after a number of the list
// of scenarios in docs shows that scenario. Beside testscript's own commands they have:
//
//	start [-as-nobody] [-nonblock] [flags] CONTAINER:PATTERN…
//	                         run `log-bridge tail --root .` until it is ready
//	launch …                 the same without waiting for it
//	[!] term [SIGNAL]        send SIGTERM or another signal, wait for the end; it must exit 0 (!: not 0)
//	[!] ended                wait for the end without a signal; it must exit 0 (!: not 0)
//	signal SIGNAL            send it
//	kill9                    send SIGKILL and wait
//	freeze, thaw             stop and continue the program, so that it does not see what happens between
//	stall, resume            stop and continue reading its output
//	stalled                  wait until the pipe is full
//	nonblock                 set O_NONBLOCK on its output, as another process that shares it may
//	hangup                   close the reading end of its output
//	delivered FILE           wait until all output so far is FILE, byte for byte
//	delivered -stderr FILE   the same for its stderr
//	delivered -sorted FILE   the same with the lines in any order
//	delivered -part FILE     at the end: what came is a beginning of FILE
//	delivered -repeats N FILE   the same, but up to N bytes of whole lines may come again
//	kept TEXT                wait until the checkpoint has an offset behind TEXT, so that kill9 repeats nothing
//	[!] said REGEXP          wait until stderr matches (!: it does not match now)
//	memory                   note how much memory the program has
//	memory KIB               it must not have grown by more since
//	append FILE LINE…        append lines, opening and closing the file
//	name [-link] DIR NAME TEXT   append the line TEXT to a file whose name has Go's escapes, or make a link of that name to TEXT
//	bytes FILE TEXT          append text with Go's escapes, without a newline
//	count FILE FROM TO [PREFIX]   append numbered lines
//	wide FILE SIZE [BYTE]    append one line of SIZE bytes and a newline
//	writer [-at-own-offset] NAME FILE   open a file for appending, and keep it open
//	write NAME TEXT          write to it, with Go's escapes
//	close NAME               close it
//	truncate FILE SIZE       truncate(2)
//	churn DIR N              make N files in a directory and delete them
//	hardlink OLD NEW         link(2)
//	fifo FILE                mkfifo(2)
//
// Output is collected over all starts of a script, in .out and .err. A line that was cut
// off by a kill or an error is taken out: the container runtime has a log of its own for
// each start, so that it does not run into the first line of the next.

// openToAll lets another user run the programs that testscript puts into PATH.
type openToAll struct{ *testing.M }

func (m openToAll) Run() int {
	bin, _, _ := strings.Cut(os.Getenv("PATH"), ":")
	if err := os.Chmod(filepath.Dir(bin), 0o755); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	// The race detector would keep each program for a second at its end.
	os.Setenv("GORACE", raceEnv)
	return m.M.Run()
}

const raceEnv = "atexit_sleep_ms=0"

func TestMain(m *testing.M) {
	// Many tests at once are not one user's usual node.
	manners = func() notify.Manners { return notify.Manners{Keep: time.Hour, Retry: time.Hour} }
	testscript.Main(openToAll{m}, map[string]func(){
		"log-bridge": main,
		"log-bridge-without-capabilities": func() {
			dropCapabilities()
			main()
		},
		"spy": spy, "idle": idle,
		"log-bridge-politely": politely, "crowded-node": crowdedNode,
		"log-bridge-without-inotify": func() {
			// In its own user namespace, the limit concerns nobody else.
			if err := os.WriteFile("/proc/sys/user/max_inotify_instances", []byte("0"), 0); err != nil {
				fmt.Fprintln(os.Stderr, "log-bridge-without-inotify:", err)
				os.Exit(2)
			}
			if id, err := strconv.Atoi(os.Getenv("DROP_TO")); err == nil {
				if err := errors.Join(syscall.Setgid(id), syscall.Setuid(id)); err != nil {
					fmt.Fprintln(os.Stderr, "log-bridge-without-inotify:", err)
					os.Exit(2)
				}
			}
			main()
		},
	})
}

// wait is how long a script waits for what must come: an end for a test that fails, far
// from what is measured.
const wait = 30 * time.Second

func TestScripts(t *testing.T) {
	t.Run("events", func(t *testing.T) { runScripts(t, t.TempDir(), true) })
	t.Run("polling", func(t *testing.T) { runScripts(t, t.TempDir(), false) })
	// F11: an emptyDir may be in memory.
	t.Run("tmpfs", func(t *testing.T) {
		var st unix.Statfs_t
		if unix.Statfs("/dev/shm", &st) != nil || st.Type != unix.TMPFS_MAGIC {
			t.Skip("/dev/shm is no tmpfs here")
		}
		dir, err := os.MkdirTemp("/dev/shm", "log-bridge-test-")
		if err != nil {
			t.Skip(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		runScripts(t, dir, true)
	})
}

// runScripts runs all scripts below a directory.
func runScripts(t *testing.T, dir string, inotify bool) {
	if !inotify && !canHideInotify() {
		t.Skip("user namespaces are not allowed here, so inotify cannot be taken away")
	}
	for d := dir; d != filepath.Clean(os.TempDir()) && d != "/dev/shm" && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil { // for the scripts that need another user
			t.Fatal(err)
		}
	}
	testscript.Run(t, testscript.Params{
		Dir:                "testdata/script",
		RequireUniqueNames: true,
		WorkdirRoot:        dir,
		Setup: func(e *testscript.Env) error {
			s := &stage{dir: e.WorkDir, inotify: inotify, writers: map[string]*os.File{}}
			e.Values[stageKey{}] = s
			e.Setenv("GORACE", raceEnv)
			e.Defer(s.close)
			return os.Chmod(e.WorkDir, 0o777)
		},
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "root":
				return os.Getuid() == 0, nil
			case "events":
				return inotify, nil
			}
			return false, fmt.Errorf("there is no condition %q", cond)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"start": start(true), "launch": start(false),
			"term": term, "ended": ended, "kill9": kill9,
			"freeze": command(0, (*stage).freeze), "thaw": command(0, (*stage).thaw),
			"stall": command(0, (*stage).stall), "resume": command(0, (*stage).resume),
			"stalled": command(0, (*stage).stalled), "hangup": command(0, (*stage).hangup), "nonblock": command(0, (*stage).nonblock),
			"delivered": delivered, "said": said, "kept": command(1, (*stage).kept), "memory": memory, "signal": sendSignal,
			"append": appendLines, "name": nameFile, "bytes": appendBytes, "count": count, "wide": wide,
			"writer": openWriter, "write": command(2, (*stage).write), "close": command(1, (*stage).closeWriter),
			"truncate": command(2, (*stage).truncate),
			"churn":    command(2, (*stage).churn),
			"hardlink": command(2, func(s *stage, a []string) error { return os.Link(s.path(a[0]), s.path(a[1])) }),
			"fifo":     command(1, func(s *stage, a []string) error { return unix.Mkfifo(s.path(a[0]), 0o644) }),
		},
	})
}

// canHideInotify says whether a program can be run in a user namespace of its own.
var canHideInotify = sync.OnceValue(func() bool {
	cmd := exec.Command("true")
	cmd.SysProcAttr = ownUserNamespace()
	return cmd.Run() == nil
})

func ownUserNamespace() *syscall.SysProcAttr {
	self := func(id int) []syscall.SysProcIDMap {
		return []syscall.SysProcIDMap{{ContainerID: id, HostID: id, Size: 1}}
	}
	attr := &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER, UidMappings: self(os.Getuid()), GidMappings: self(os.Getgid()),
	}
	if os.Getuid() != 0 {
		attr.AmbientCaps = []uintptr{unix.CAP_SYS_RESOURCE} // only root keeps what lowers the limit
	}
	return attr
}

// stage is what a script plays on: one program, its reader and the files held open.
type stage struct {
	dir     string
	inotify bool

	cmd     *exec.Cmd
	exit    chan struct{} // closed when the program has ended
	outW    *os.File      // the program's end of its output, for as long as it runs
	out     *reader
	err     *reader
	writers map[string]*os.File
	memory  int // KiB, at the last `memory`
}

type stageKey struct{}

func stageOf(ts *testscript.TestScript) *stage { return ts.Value(stageKey{}).(*stage) }

// command makes a script command of a function with a fixed number of arguments.
func command[A any](n int, f func(*stage, A) error) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) != n {
			ts.Fatalf("this command takes %d arguments and no !", n)
		}
		a, _ := any(args).(A)
		ts.Check(f(stageOf(ts), a))
	}
}

func (s *stage) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(s.dir, name)
}

func (s *stage) close() {
	if s.running() {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Process.Signal(syscall.SIGCONT)
		<-s.exit
	}
	for _, r := range []*reader{s.out, s.err} {
		if r != nil {
			r.close()
		}
	}
	for _, f := range s.writers {
		f.Close()
	}
}

func (s *stage) running() bool {
	if s.cmd == nil {
		return false
	}
	select {
	case <-s.exit:
		return false
	default:
		return true
	}
}

// reader collects what comes out of a pipe in a file. It can be made to stop reading.
type reader struct {
	pipe *os.File
	file *os.File
	done chan struct{} // closed at the end of the pipe

	mu      sync.Mutex
	cond    *sync.Cond
	stopped bool          // reading is to stop
	parked  bool          // and has
	news    chan struct{} // something came, or the pipe ended
	closed  bool
}

func newReader(pipe *os.File, name string) (*reader, error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	r := &reader{pipe: pipe, file: f, done: make(chan struct{}), news: make(chan struct{}, 1)}
	r.cond = sync.NewCond(&r.mu)
	go r.run()
	return r, nil
}

func (r *reader) run() {
	defer close(r.done)
	defer r.tell()
	buf := make([]byte, 64<<10)
	for {
		r.mu.Lock()
		for r.stopped && !r.closed {
			r.parked = true
			r.cond.Broadcast()
			r.cond.Wait()
		}
		r.parked = false
		r.mu.Unlock()
		n, err := r.pipe.Read(buf)
		_, _ = r.file.Write(buf[:n])
		if n > 0 {
			r.tell()
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
	}
}

func (r *reader) tell() {
	select {
	case r.news <- struct{}{}:
	default:
	}
}

// stop returns when the reader has stopped.
func (r *reader) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopped = true
	_ = r.pipe.SetReadDeadline(time.Now())
	for !r.parked {
		r.cond.Wait()
	}
}

func (r *reader) goOn() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopped = false
	_ = r.pipe.SetReadDeadline(time.Time{})
	r.cond.Broadcast()
}

func (r *reader) close() {
	r.mu.Lock()
	r.closed = true
	r.cond.Broadcast()
	r.mu.Unlock()
	r.pipe.Close()
	<-r.done
	r.file.Close()
}

// start runs the program.
func start(untilReady bool) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		s := stageOf(ts)
		if neg || s.running() {
			ts.Fatalf("start: it runs already, or !")
		}
		fs := flag.NewFlagSet("start", flag.ContinueOnError)
		nobody := fs.Bool("as-nobody", false, "")
		nonblock := fs.Bool("nonblock", false, "")
		for len(args) > 0 && (args[0] == "-as-nobody" || args[0] == "-nonblock") {
			ts.Check(fs.Parse(args[:1]))
			args = args[1:]
		}
		ts.Check(s.start(args, *nobody, *nonblock))
		if !untilReady {
			return
		}
		ts.Check(s.ready(args))
		ts.Check(s.checkStart())
	}
}

func (s *stage) start(args []string, nobody, nonblock bool) error {
	outW, err := collect(&s.out, s.path(".out"))
	if err != nil {
		return err
	}
	errW, err := collect(&s.err, s.path(".err"))
	if err != nil {
		outW.Close()
		return err
	}
	defer errW.Close()
	if nonblock {
		if err := setNonblock(outW); err != nil {
			outW.Close()
			return err
		}
	}
	name, env := "log-bridge", os.Environ()
	attr := &syscall.SysProcAttr{}
	if !s.inotify {
		name += "-without-inotify"
		attr = ownUserNamespace()
	}
	if nobody && os.Getuid() == 0 {
		if s.inotify {
			attr.Credential = &syscall.Credential{Uid: nobodyID, Gid: nobodyID}
		} else {
			one := syscall.SysProcIDMap{ContainerID: nobodyID, HostID: nobodyID, Size: 1}
			attr.UidMappings, attr.GidMappings = append(attr.UidMappings, one), append(attr.GidMappings, one)
			env = append(env, fmt.Sprintf("DROP_TO=%d", nobodyID))
		}
	}
	cmd := exec.Command(name, append([]string{"tail", "--root", "."}, args...)...)
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.SysProcAttr, cmd.Env = s.dir, outW, errW, attr, env
	if err := cmd.Start(); err != nil {
		outW.Close()
		return err
	}
	s.cmd, s.exit, s.outW = cmd, make(chan struct{}), outW
	go func() {
		_ = cmd.Wait()
		outW.Close()
		close(s.exit)
	}()
	return nil
}

const nobodyID = 65534

// collect makes a pipe and reads it into a file; the writing end is returned.
func collect(r **reader, name string) (*os.File, error) {
	if *r != nil {
		(*r).close()
	}
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return nil, err
	}
	// Our end can be told to stop reading. The other end stays blocking, as a runtime
	// makes it.
	if err := unix.SetNonblock(p[0], true); err != nil {
		return nil, err
	}
	w := os.NewFile(uintptr(p[1]), "output")
	var err error
	if *r, err = newReader(os.NewFile(uintptr(p[0]), "output"), name); err != nil {
		w.Close()
	}
	return w, err
}

// ready waits until the program follows its files.
func (s *stage) ready(args []string) error {
	state := ".log-bridge"
	if i := slices.Index(args, "--state"); i >= 0 {
		state = args[i+1]
	}
	cmd := exec.Command("log-bridge", "ready", "--state", state, "--timeout", wait.String())
	cmd.Dir = s.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		words, _ := os.ReadFile(s.path(".err"))
		return fmt.Errorf("ready: %w\n%s\nstderr of tail:\n%s", err, out, words)
	}
	return nil
}

// checkStart checks that inotify is used, or that it is not.
func (s *stage) checkStart() error {
	dir := fmt.Sprintf("/proc/%d/fd", s.cmd.Process.Pid)
	fds, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrPermission) {
		return nil // only root may look
	}
	if err != nil {
		return fmt.Errorf("tail has ended: %w", err)
	}
	uses := false
	for _, fd := range fds {
		to, _ := os.Readlink(filepath.Join(dir, fd.Name()))
		uses = uses || strings.Contains(to, "inotify")
	}
	if uses != s.inotify {
		return fmt.Errorf("inotify is used: have %v, want %v", uses, s.inotify)
	}
	return nil
}

// end waits for the end of the program and of its output.
func (s *stage) end() (*os.ProcessState, error) {
	select {
	case <-s.exit:
	case <-time.After(wait):
		return nil, fmt.Errorf("the program has not ended after %v", wait)
	}
	for _, r := range []*reader{s.out, s.err} {
		r.goOn()
		select {
		case <-r.done:
		case <-time.After(wait):
			return nil, fmt.Errorf("the output has not ended after %v", wait)
		}
	}
	if !s.cmd.ProcessState.Success() {
		out, err := os.ReadFile(s.path(".out"))
		if err != nil {
			return nil, err
		}
		if err := os.Truncate(s.path(".out"), int64(bytes.LastIndexByte(out, '\n')+1)); err != nil {
			return nil, err
		}
	}
	return s.cmd.ProcessState, nil
}

func (s *stage) signal(sig syscall.Signal) error {
	if !s.running() {
		return errors.New("the program does not run")
	}
	// A program that is stopped gets it when it is continued.
	if err := s.cmd.Process.Signal(sig); err != nil {
		return err
	}
	if err := s.thaw(struct{}{}); !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

func term(ts *testscript.TestScript, neg bool, args []string) {
	sig := syscall.SIGTERM
	if len(args) == 1 {
		sig = unix.SignalNum("SIG" + args[0])
	}
	ts.Check(stageOf(ts).signal(sig))
	ended(ts, neg, nil)
}

func ended(ts *testscript.TestScript, neg bool, args []string) {
	st, err := stageOf(ts).end()
	ts.Check(err)
	if st.Success() == neg || st.ExitCode() < 0 {
		ts.Fatalf("it ended with %v; stderr:\n%s", st, ts.ReadFile(".err"))
	}
}

func kill9(ts *testscript.TestScript, neg bool, args []string) {
	s := stageOf(ts)
	ts.Check(s.signal(syscall.SIGKILL))
	_, err := s.end()
	ts.Check(err)
}

func (s *stage) freeze(struct{}) error {
	if err := s.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	return poll(func() (bool, error) {
		st, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
		i := bytes.LastIndexByte(st, ')')
		return err == nil && i > 0 && st[i+2] == 'T', err
	})
}

func (s *stage) thaw(struct{}) error { return s.cmd.Process.Signal(syscall.SIGCONT) }

func (s *stage) stall(struct{}) error  { s.out.stop(); return nil }
func (s *stage) resume(struct{}) error { s.out.goOn(); return nil }
func (s *stage) hangup(struct{}) error { return closeForAll(s.out.pipe) }

func (s *stage) nonblock(struct{}) error { return setNonblock(s.outW) }

// setNonblock is not by Fd, which would change the mode itself.
func setNonblock(f *os.File) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	cerr := conn.Control(func(fd uintptr) { err = unix.SetNonblock(int(fd), true) })
	return errors.Join(err, cerr)
}

// stalled waits until the output's pipe is so full that a block waits for the reader.
func (s *stage) stalled(struct{}) error {
	conn, err := s.out.pipe.SyscallConn()
	if err != nil {
		return err
	}
	var size, held, before int
	err = poll(func() (bool, error) {
		var err error
		cerr := conn.Control(func(fd uintptr) {
			if size, err = unix.FcntlInt(fd, unix.F_GETPIPE_SZ, 0); err == nil {
				held, err = unix.IoctlGetInt(int(fd), unix.TIOCINQ)
			}
		})
		// Pages of the pipe need not be filled to their ends.
		full := held > size/16*15 && held == before
		before = held
		return full, errors.Join(err, cerr)
	})
	if err != nil {
		return fmt.Errorf("%w: the pipe holds %d of %d bytes", err, held, size)
	}
	return nil
}

func memory(ts *testscript.TestScript, neg bool, args []string) {
	s := stageOf(ts)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	ts.Check(err)
	m := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(status)
	have, err := strconv.Atoi(string(m[1]))
	ts.Check(err)
	if len(args) == 0 {
		s.memory = have
		return
	}
	allowed, err := strconv.Atoi(args[0])
	ts.Check(err)
	if have > s.memory+allowed {
		ts.Fatalf("memory: have %d KiB, want at most %d more than %d", have, allowed, s.memory)
	}
}

func sendSignal(ts *testscript.TestScript, neg bool, args []string) {
	ts.Check(stageOf(ts).signal(unix.SignalNum("SIG" + args[0])))
}

func (s *stage) churn(args []string) error {
	n, err := strconv.Atoi(args[1])
	for i := 0; i < n && err == nil; i++ {
		var f *os.File
		if f, err = os.Create(filepath.Join(s.path(args[0]), fmt.Sprintf("churn%d", i))); err == nil {
			err = errors.Join(f.Close(), os.Remove(f.Name()))
		}
	}
	return err
}

// kept looks for text just before an offset in the checkpoint, whose layout package
// checkpoint describes.
func (s *stage) kept(args []string) error {
	return poll(func() (bool, error) {
		b, err := os.ReadFile(s.path(".log-bridge/checkpoint"))
		le := binary.LittleEndian
		for ; len(b) >= checkpoint.SlotSize; b = b[checkpoint.SlotSize:] {
			anchor := 60 + int(b[53]) + int(le.Uint16(b[54:])) + int(le.Uint16(b[56:]))
			end := anchor + int(le.Uint16(b[58:]))
			if end <= checkpoint.SlotSize && bytes.HasSuffix(b[anchor:end], []byte(args[0]+"\n")) {
				return true, nil
			}
		}
		return false, err
	})
}

// poll calls ok until it says so.
func poll(ok func() (bool, error)) error {
	for end := time.Now().Add(wait); ; time.Sleep(time.Millisecond) {
		done, err := ok()
		if done || err != nil {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("it has not come after %v", wait)
		}
	}
}

// verdict is what is thought of all that came so far.
type verdict int

const (
	notYet verdict = iota
	right
	never
)

func rightIf(ok bool) verdict {
	if ok {
		return right
	}
	return notYet
}

// until waits until judge has a verdict about all that came, each time that something
// comes.
func (r *reader) until(name string, judge func([]byte) verdict) ([]byte, bool) {
	end := time.After(wait)
	for {
		ended := false
		select {
		case <-r.done:
			ended = true
		default:
		}
		have, err := os.ReadFile(name)
		if err != nil {
			return nil, false
		}
		if v := judge(have); v != notYet || ended {
			return have, v == right
		}
		select {
		case <-r.news:
		case <-r.done:
		case <-end:
			return have, false
		}
	}
}

func delivered(ts *testscript.TestScript, neg bool, args []string) {
	s := stageOf(ts)
	fs := flag.NewFlagSet("delivered", flag.ContinueOnError)
	stderr := fs.Bool("stderr", false, "")
	repeats := fs.Int("repeats", 0, "")
	inAnyOrder := fs.Bool("sorted", false, "")
	part := fs.Bool("part", false, "")
	ts.Check(fs.Parse(args))
	if neg || fs.NArg() != 1 || s.out == nil {
		ts.Fatalf("usage: delivered [-stderr] [-repeats N] FILE, after start")
	}
	want, err := os.ReadFile(s.path(fs.Arg(0)))
	ts.Check(err)
	if *inAnyOrder {
		want = sortLines(want)
	}
	r, name := s.out, ".out"
	if *stderr {
		r, name = s.err, ".err"
	}
	repeated := 0
	have, ok := r.until(s.path(name), func(have []byte) verdict {
		have = s.withoutPolling(have)
		if *repeats > 0 {
			have, repeated = withoutRepeats(have)
		}
		if *inAnyOrder {
			have = sortLines(have)
			return rightIf(bytes.Equal(have, want))
		}
		if !bytes.HasPrefix(want, have) {
			return never
		}
		return rightIf(len(have) == len(want) || *part && len(have) > 0)
	})
	have = s.withoutPolling(have)
	if *repeats > 0 {
		have, repeated = withoutRepeats(have)
	}
	if *inAnyOrder {
		have = sortLines(have)
	}
	if !ok || repeated > *repeats {
		ts.Fatalf("have is not want; %d bytes repeated (%d allowed)\n%s\nstderr:\n%s", repeated, *repeats, difference(have, want), ts.ReadFile(".err"))
	}
}

// withoutPolling removes the message with which each start begins if inotify is unavailable.
func (s *stage) withoutPolling(have []byte) []byte {
	if s.inotify {
		return have
	}
	var rest []byte
	for line := range bytes.Lines(have) {
		if !bytes.Contains(line, []byte("polling files instead")) {
			rest = append(rest, line...)
		}
	}
	return rest
}

func sortLines(text []byte) []byte {
	lines := slices.Collect(bytes.Lines(text))
	slices.SortFunc(lines, bytes.Compare)
	return bytes.Join(lines, nil)
}

// withoutRepeats leaves out the lines that came before, and counts their bytes.
func withoutRepeats(have []byte) (first []byte, repeated int) {
	seen := map[string]bool{}
	for line := range bytes.Lines(have) {
		if seen[string(line)] {
			repeated += len(line)
			continue
		}
		seen[string(line)] = true
		first = append(first, line...)
	}
	return first, repeated
}

// difference shows a person how two texts differ: what is missing, what is too much, and
// where the first difference is.
func difference(have, want []byte) string {
	h, w := bytes.SplitAfter(have, []byte("\n")), bytes.SplitAfter(want, []byte("\n"))
	var b strings.Builder
	fmt.Fprintf(&b, "have %d bytes in %d lines, want %d in %d\n", len(have), bytes.Count(have, []byte("\n")), len(want), bytes.Count(want, []byte("\n")))
	for i := range max(len(h), len(w)) {
		if i < len(h) && i < len(w) && bytes.Equal(h[i], w[i]) {
			continue
		}
		fmt.Fprintf(&b, "first difference at line %d\n", i+1)
		for j := i; j < min(i+3, len(h)); j++ {
			fmt.Fprintf(&b, "  have %s\n", short(h[j]))
		}
		for j := i; j < min(i+3, len(w)); j++ {
			fmt.Fprintf(&b, "  want %s\n", short(w[j]))
		}
		break
	}
	surplus := map[string]int{}
	for _, l := range h {
		surplus[string(l)]++
	}
	for _, l := range w {
		surplus[string(l)]--
	}
	tell := func(word string, lines [][]byte, sign int) {
		n := 0
		for _, l := range lines {
			if surplus[string(l)]*sign > 0 {
				surplus[string(l)] -= sign
				if n++; n <= 5 {
					fmt.Fprintf(&b, "  %s %s\n", word, short(l))
				}
			}
		}
		if n > 5 {
			fmt.Fprintf(&b, "  %s %d lines in all\n", word, n)
		}
	}
	tell("missing", w, -1)
	tell("too much", h, 1)
	return b.String()
}

func short(line []byte) string {
	if len(line) > 100 {
		return fmt.Sprintf("%q… (%d bytes)", line[:100], len(line))
	}
	return strconv.Quote(string(line))
}

func said(ts *testscript.TestScript, neg bool, args []string) {
	s := stageOf(ts)
	if len(args) != 1 || s.err == nil {
		ts.Fatalf("usage: [!] said REGEXP, after start")
	}
	re, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	if neg {
		if have := ts.ReadFile(".err"); re.MatchString(have) {
			ts.Fatalf("stderr matches %s:\n%s", args[0], have)
		}
		return
	}
	if have, ok := s.err.until(s.path(".err"), func(have []byte) verdict { return rightIf(re.Match(have)) }); !ok {
		ts.Fatalf("stderr does not match %s:\n%s", args[0], have)
	}
}

func appendTo(ts *testscript.TestScript, name string, data []byte) {
	f, err := os.OpenFile(stageOf(ts).path(name), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	ts.Check(err)
	_, err = f.Write(data)
	ts.Check(errors.Join(err, closeForAll(f)))
}

func unescape(text string) ([]byte, error) {
	s, err := strconv.Unquote(`"` + strings.ReplaceAll(text, `"`, `\"`) + `"`)
	return []byte(s), err
}

func appendLines(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: append FILE LINE…")
	}
	appendTo(ts, args[0], []byte(strings.Join(args[1:], "\n")+"\n"))
}

func nameFile(ts *testscript.TestScript, neg bool, args []string) {
	link := len(args) > 0 && args[0] == "-link"
	if link {
		args = args[1:]
	}
	if neg || len(args) != 3 {
		ts.Fatalf("usage: name [-link] DIR NAME TEXT")
	}
	name, err := unescape(args[1])
	ts.Check(err)
	path := filepath.Join(args[0], string(name))
	if link {
		ts.Check(os.Symlink(args[2], stageOf(ts).path(path)))
		return
	}
	appendTo(ts, path, []byte(args[2]+"\n"))
}

func appendBytes(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: bytes FILE TEXT")
	}
	b, err := unescape(args[1])
	ts.Check(err)
	appendTo(ts, args[0], b)
}

func count(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: count FILE FROM TO [PREFIX]")
	}
	from, err := strconv.Atoi(args[1])
	ts.Check(err)
	to, err := strconv.Atoi(args[2])
	ts.Check(err)
	prefix := strings.Join(args[3:], " ")
	var b []byte
	for i := from; i <= to; i++ {
		b = fmt.Appendf(b, "%s%07d\n", prefix, i)
	}
	appendTo(ts, args[0], b)
}

func wide(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: wide FILE SIZE [BYTE]")
	}
	size, err := strconv.Atoi(args[1])
	ts.Check(err)
	fill := byte('x')
	if len(args) > 2 {
		fill = args[2][0]
	}
	appendTo(ts, args[0], append(bytes.Repeat([]byte{fill}, size), '\n'))
}

func openWriter(ts *testscript.TestScript, neg bool, args []string) {
	flags := os.O_WRONLY | os.O_CREATE | os.O_APPEND
	if len(args) == 3 && args[0] == "-at-own-offset" {
		flags, args = os.O_WRONLY|os.O_CREATE, args[1:]
	}
	if neg || len(args) != 2 {
		ts.Fatalf("usage: writer [-at-own-offset] NAME FILE")
	}
	s := stageOf(ts)
	f, err := os.OpenFile(s.path(args[1]), flags, 0o644)
	ts.Check(err)
	s.writers[args[0]] = f
}

func (s *stage) write(args []string) error {
	b, err := unescape(args[1])
	if err != nil {
		return err
	}
	_, err = s.writers[args[0]].Write(b)
	return err
}

func (s *stage) closeWriter(args []string) error {
	f := s.writers[args[0]]
	delete(s.writers, args[0])
	return closeForAll(f)
}

// closeForAll closes a file, and waits until no child that another script starts just now has it open: a child has all
// files of this process until it runs its program, and the sidecar would see a writer, or a reader of its output.
func closeForAll(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var link, mode string
	if e := raw.Control(func(fd uintptr) { link, mode, err = openAs("self", fmt.Sprint(fd)) }); e != nil || err != nil {
		return errors.Join(e, err)
	}
	if err := f.Close(); err != nil {
		return err
	}
	return poll(func() (bool, error) {
		held, err := childHas(link, mode)
		return !held, err
	})
}

// openAs says what a process's descriptor leads to, and whether it is for reading, writing or both.
func openAs(pid, fd string) (link, mode string, err error) {
	if link, err = os.Readlink("/proc/" + pid + "/fd/" + fd); err != nil {
		return "", "", err
	}
	info, err := os.ReadFile("/proc/" + pid + "/fdinfo/" + fd)
	if err != nil {
		return "", "", err
	}
	_, flags, _ := strings.Cut(string(info), "flags:")
	flags, _, _ = strings.Cut(strings.TrimSpace(flags), "\n")
	return link, flags[max(len(flags)-1, 0):], nil // the last octal digit has the access mode
}

// childHas says whether a child of this process has something open in this mode.
func childHas(link, mode string) (bool, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return false, err
	}
	for _, name := range stats {
		stat, err := os.ReadFile(name)
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if err != nil || len(fields) < 2 || fields[1] != strconv.Itoa(os.Getpid()) {
			continue // another's, or it has ended
		}
		pid := filepath.Base(filepath.Dir(name))
		fds, err := os.ReadDir("/proc/" + pid + "/fd")
		if err != nil {
			continue
		}
		for _, fd := range fds {
			if to, as, err := openAs(pid, fd.Name()); err == nil && to == link && as == mode {
				return true, nil
			}
		}
	}
	return false, nil
}

func (s *stage) truncate(args []string) error {
	n, err := strconv.ParseInt(args[1], 0, 64)
	if err != nil {
		return err
	}
	return os.Truncate(s.path(args[0]), n)
}
