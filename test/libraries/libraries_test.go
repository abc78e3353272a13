// Package libraries runs real logging libraries, which rotate as they do it, against the real
// sidecar, with each way of sharing a file. docs/rotation.md has the results.
//
// Those of Go and Python run with all tests. LIBRARIES=all, or make libraries, adds those of Java
// (Debian's packages) and of Node.js (npm).
package libraries

import (
	"bytes"
	"context"
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
)

// count is how many lines of about 1,000 bytes a library logs: enough for three rotations at 1 MB.
const count = 4000

const patience = 2 * time.Minute

// way is how the file is shared. For the sidecar a volume and a directory are the same.
type way string

const (
	directory way = "directory"
	file      way = "file"
)

// outcome is what becomes of the lines.
type outcome string

const (
	// all: each line is delivered once, in order.
	all outcome = "all"
	// each: each line is delivered once; lines of two files may change places.
	each outcome = "each"
	// ownLoss: the library itself drops lines, since it cannot rotate. What it wrote is delivered once.
	ownLoss outcome = "own loss"
	// firstFile: the library continues in files with other names, which are not shared.
	firstFile outcome = "first file"
	// unreadLoss: the library copies the file where the sidecar does not see it, and truncates it. What was not read by then is lost.
	unreadLoss outcome = "unread loss"
)

// cases are the rows of the table in docs/rotation.md.
var cases = []struct {
	library string
	// pattern are the entries of the annotation, in the directory of the file app.log.
	pattern string
	way     way
	want    outcome
	// single: the library does not rotate.
	single bool
	// drops: on a busy machine the library drops lines while it changes its file. What it wrote counts.
	drops bool
}{
	{library: "RotatingFileHandler", pattern: "app.log", way: directory, want: all},
	{library: "RotatingFileHandler", pattern: "app.log", way: file, want: ownLoss, single: true},
	{library: "TimedRotatingFileHandler", pattern: "app.log", way: directory, want: all},
	{library: "TimedRotatingFileHandler", pattern: "app.log", way: file, want: ownLoss, single: true},
	{library: "WatchedFileHandler", pattern: "app.log", way: directory, want: all},
	{library: "lumberjack", pattern: "app*.log", way: directory, want: each},
	{library: "lumberjack", pattern: "app.log", way: file, want: ownLoss, single: true},
	{library: "zap", pattern: "app*.log", way: directory, want: each},
	{library: "log4j2", pattern: "app.log", way: directory, want: all},
	{library: "log4j2", pattern: "app.log", way: file, want: unreadLoss},
	{library: "log4j2-dash", pattern: "app*.log", way: directory, want: each},
	{library: "logback-fixed-window", pattern: "app.log", way: directory, want: all},
	{library: "logback-fixed-window", pattern: "app.log", way: file, want: all, single: true},
	{library: "logback-time-based", pattern: "app.log", way: directory, want: all},
	{library: "java.util.logging", pattern: "app.log*", way: directory, want: each},
	{library: "java.util.logging", pattern: "app.log", way: file, want: firstFile},
	{library: "winston", pattern: "app*.log", way: directory, want: each, drops: true},
	{library: "winston", pattern: "app.log", way: file, want: firstFile, drops: true},
	{library: "winston-tailable", pattern: "app*.log", way: directory, want: each, drops: true},
	{library: "winston-daily-rotate-file", pattern: "app-*", way: directory, want: each, drops: true},
	{library: "pino-roll", pattern: "app.*.log", way: directory, want: each},
	{library: "svlogd", pattern: "current @*", way: directory, want: each},
	{library: "multilog", pattern: "current @*", way: directory, want: each},
	{library: "s6-log", pattern: "current @*", way: directory, want: each},
	{library: "rotatelogs-n", pattern: "app.log*", way: directory, want: each},
	{library: "rotatelogs-t", pattern: "app.log", way: directory, want: unreadLoss, single: true},
	{library: "rotatelogs-L", pattern: "app.log", way: directory, want: all},
	{library: "cronolog", pattern: "app-*.log", way: directory, want: each},
	{library: "supervisor", pattern: "app.log", way: directory, want: all},
	{library: "supervisor-0", pattern: "app.log", way: directory, want: unreadLoss, single: true},
}

// truncates are the programs that begin their only file again: what it held is nowhere else.
var truncates = map[string]bool{"rotatelogs-t": true, "supervisor-0": true}

var bridge string // the sidecar's program

func TestMain(m *testing.M) {
	if args := os.Args[1:]; len(args) == 3 && goWriters[args[0]] != nil {
		if err := beWriter(args); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "log-bridge-libraries-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	bridge = filepath.Join(dir, "log-bridge")
	if out, err := exec.Command("go", "build", "-C", "../..", "-o", bridge, "./sidecar").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%s\n", out)
		return 1
	}
	return m.Run()
}

func TestLibraries(t *testing.T) {
	for _, c := range cases {
		t.Run(c.library+"/"+string(c.way), func(t *testing.T) {
			if c.way == file && os.Getuid() != 0 {
				t.Skip("only root can mount a file")
			}
			t.Parallel()
			top := t.TempDir()
			logs := filepath.Join(top, "app", "app")
			if err := os.MkdirAll(logs, 0o755); err != nil {
				t.Fatal(err)
			}
			args := []string{"tail", "--root", top}
			if c.way == file {
				args = append(args, "--file", "app:/app/app.log")
			}
			patterns := strings.Fields(c.pattern)
			for _, p := range patterns {
				args = append(args, "app:/app/"+p)
			}
			s := startSidecar(t, top, args)
			seen := logs // by the library
			var mounted string
			if c.way == file {
				seen, mounted = filepath.Join(top, "image"), filepath.Join(logs, "app.log")
				if err := os.Mkdir(seen, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			// The file is known before it rotates, so that nothing here depends on how fast the sidecar finds it.
			greet(t, filepath.Join(logs, strings.ReplaceAll(patterns[0], "*", "")), s)
			complaints := write(t, c.library, filepath.Join(seen, "app.log"), mounted)
			got := s.end(t)

			shared, files := linesOf(t, logs)
			written := shared
			if c.way == file {
				var others int
				written, others = linesOf(t, seen)
				written = slices.Compact(slices.Sorted(slices.Values(append(written, shared...))))
				files += others
			}
			if rotated := files > 1; rotated == c.single {
				t.Errorf("there are %d files; want more than one: %v", files, !c.single)
			}
			if complete := len(written) == count; complete == (c.want == ownLoss) && !c.drops && !truncates[c.library] {
				t.Errorf("%d of %d lines are in the files; the library said:\n%s", len(written), count, complaints)
			}
			switch c.want {
			case all, ownLoss:
				equal(t, got, written)
			case each:
				equal(t, slices.Sorted(slices.Values(got)), written)
			case firstFile:
				equal(t, got, shared)
			case unreadLoss:
				equal(t, got, slices.Compact(slices.Sorted(slices.Values(got))))
				for _, line := range shared {
					if !slices.Contains(got, line) {
						t.Fatalf("line %d is in the file and did not come", line)
					}
				}
			}
			if len(got) != count {
				t.Logf("%d of %d lines came; the library said:\n%.600s", len(got), count, complaints)
			}
		})
	}
}

// equal fails unless have is want.
func equal(t *testing.T, have, want []int) {
	t.Helper()
	for i := range max(len(have), len(want)) {
		h, w := 0, 0
		if i < len(have) {
			h = have[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if h != w {
			t.Fatalf("%d lines came, want %d; number %d of them: have line %d, want line %d", len(have), len(want), i+1, h, w)
		}
	}
}

var lineNumber = regexp.MustCompile(`line (\d+) \d+`)

func numbers(text string) []int {
	var all []int
	for _, found := range lineNumber.FindAllStringSubmatch(text, -1) {
		n, _ := strconv.Atoi(found[1])
		all = append(all, n)
	}
	return all
}

// linesOf are the numbers of the lines in the files of a directory, sorted, each once: copies hold them again.
func linesOf(t *testing.T, dir string) (lines []int, files int) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if n := numbers(string(text)); len(n) > 0 {
			lines = append(lines, n...)
			files++
		}
	}
	slices.Sort(lines)
	return slices.Compact(lines), files
}

// sidecar is a running log-bridge.
type sidecar struct {
	cmd *exec.Cmd
	out output
	err output
}

// output is what a program has written so far.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// startSidecar returns when it follows its files.
func startSidecar(t *testing.T, top string, args []string) *sidecar {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	s := &sidecar{cmd: exec.CommandContext(ctx, bridge, args...)}
	s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.err
	if err := s.cmd.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = s.cmd.Wait()
	})
	if out, err := exec.CommandContext(ctx, bridge, "ready", "--state", filepath.Join(top, ".log-bridge")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return s
}

// greet writes a first line and waits until it is delivered.
func greet(t *testing.T, at string, s *sidecar) {
	t.Helper()
	f, err := os.OpenFile(at, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err == nil {
		_, err = f.WriteString("hello\n")
		f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(patience); s.out.String() != "hello\n"; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the first line did not come; the sidecar said: %s", s.err.String())
		}
	}
}

// end lets the sidecar deliver what is left and returns the numbers of the lines.
func (s *sidecar) end(t *testing.T) []int {
	t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Wait(); err != nil {
		t.Fatalf("the sidecar: %v\n%s", err, s.err.String())
	}
	if said := s.err.String(); said != "" {
		t.Logf("the sidecar said: %s", said)
	}
	return numbers(s.out.String())
}

// write lets a library log to the file at, and returns what it said. Where mounted is a file, that one is
// mounted there, as a container has it: in mounts of its own.
func write(t *testing.T, library, at, mounted string) string {
	t.Helper()
	args := command(t, library, at)
	if mounted != "" {
		args = append([]string{"unshare", "--mount", "sh", "-c", `: > "$1" && mount --bind "$0" "$1" && shift && exec "$@"`, mounted, at}, args...)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", library, err, said.String())
	}
	return said.String()
}

// command is the command line of a library's program.
func command(t *testing.T, library, at string) []string {
	t.Helper()
	data, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	n := strconv.Itoa(count)
	if library == "java.util.logging" {
		need(t, "/usr/bin/java")
		return []string{"java", filepath.Join(data, "java/Jul.java"), at, n}
	}
	java := func(program string, jars []string, settings ...string) []string {
		var classpath []string
		for _, jar := range jars {
			path := "/usr/share/java/" + jar + ".jar"
			need(t, path)
			classpath = append(classpath, path)
		}
		args := append([]string{"java", "-cp", strings.Join(classpath, ":")}, settings...)
		return append(args, filepath.Join(data, "java", program+".java"), n)
	}
	log4j2 := func(pattern string) []string {
		return java("Log4j2", []string{"log4j-api", "log4j-core"},
			"-Dlog4j2.configurationFile="+filepath.Join(data, "java/log4j2.xml"), "-Dfile="+at, "-Dpattern="+pattern)
	}
	logback := func(config, pattern string) []string {
		return java("Logback", []string{"logback-classic", "logback-core", "slf4j-api"},
			"-Dlogback.configurationFile="+filepath.Join(data, "java", config), "-Dfile="+at, "-Dpattern="+pattern)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if c := logger(t, library, self, at, n); c != nil {
		return c
	}
	switch library {
	case "lumberjack", "zap":
		return []string{self, library, at, n}
	case "log4j2":
		return log4j2(at + ".%i")
	case "log4j2-dash":
		return log4j2(strings.TrimSuffix(at, ".log") + "-%i.log")
	case "logback-fixed-window":
		return logback("fixed-window.xml", at+".%i")
	case "logback-time-based":
		return logback("time-based.xml", at+".%d{yyyy-MM-dd}.%i")
	case "winston", "winston-tailable", "winston-daily-rotate-file", "pino-roll":
		need(t, filepath.Join(data, "node/node_modules"))
		return []string{"node", filepath.Join(data, "node/log.js"), library, at, n}
	}
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("there is no python3")
	}
	return []string{python, filepath.Join(data, "log.py"), library, at, n}
}

// need skips a library that is not installed; make libraries installs all.
func need(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Stat(path); err == nil {
		return
	}
	if os.Getenv("LIBRARIES") == "all" {
		t.Fatalf("%s is missing", path)
	}
	t.Skipf("%s is missing; make libraries installs it", path)
}
