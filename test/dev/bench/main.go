// Command bench measures the sidecar against the other ways to follow a file, side by side in
// one run, and writes the tables of docs/performance.md.
//
// Nothing here decides whether anything is right: that is for the tests.
package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// bench is what all figures share.
type bench struct {
	dir         string // for files
	rounds      int
	long        time.Duration // of steady writing
	idle        time.Duration // of idling
	backlog     string
	backlogSize int64
	buf         []byte // the reader's
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() error {
	b := &bench{buf: make([]byte, 1<<20)}
	flag.IntVar(&b.rounds, "rounds", 5, "how often each figure is taken")
	flag.DurationVar(&b.long, "long", 30*time.Second, "how long steady writing lasts")
	flag.DurationVar(&b.idle, "idle", 15*time.Second, "how long idling lasts")
	size := flag.Int64("backlog", 1<<30, "`BYTES` to catch up with")
	only := flag.String("only", "", "`REGEXP` of the figures to take")
	with := flag.String("with", "", "`REGEXP` of the peers to measure")
	sidecar := flag.String("sidecar", "", "the sidecar's `PROGRAM`")
	busybox := flag.String("busybox", "", "a busybox `PROGRAM`")
	nxadm := flag.String("nxadm", "", "the `PROGRAM` in nxadm")
	also := flag.String("also", "", "a Markdown `FILE` with further tables")
	goText := flag.String("go", "", "a `FILE` that go test -bench has printed")
	page := flag.String("page", "", "the Markdown `FILE` whose tables to write")
	flag.Parse()
	figures := figures(b.long, b.idle)
	which, err := regexp.Compile("^(" + cmp.Or(*only, ".*") + ")$")
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	who, err := regexp.Compile("^(" + cmp.Or(*with, ".*") + ")")
	if err != nil {
		return fmt.Errorf("-with: %w", err)
	}
	figures = slices.DeleteFunc(figures, func(f figure) bool { return !which.MatchString(f.name) })

	if b.dir, err = os.MkdirTemp("", "log-bridge-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	if err := os.Chmod(b.dir, 0o755); err != nil {
		return err
	}
	for _, program := range []*string{sidecar, busybox, nxadm} {
		// Where any user may run it.
		data, err := os.ReadFile(*program)
		if err != nil {
			return err
		}
		*program = filepath.Join(b.dir, filepath.Base(*program))
		if err := os.WriteFile(*program, data, 0o755); err != nil {
			return err
		}
	}
	peers := peers(*sidecar, *busybox, *nxadm)
	peers = slices.DeleteFunc(peers, func(p peer) bool { return !who.MatchString(p.name) })
	if slices.ContainsFunc(figures, func(f figure) bool { return f.name == "catch-up" }) {
		b.backlog = filepath.Join(b.dir, "backlog")
		if b.backlogSize, err = backlog(b.backlog, *size); err != nil {
			return err
		}
	}
	var text strings.Builder
	var trouble []error
	for _, f := range figures {
		all := samples{}
		for round := range b.rounds {
			for _, p := range peers {
				if len(f.peers) > 0 && !slices.Contains(f.peers, p.name) {
					continue
				}
				fmt.Fprintf(os.Stderr, "%s, round %d of %d: %s\n", f.name, round+1, b.rounds, p.name)
				values, err := f.measure(b, p)
				if err != nil {
					trouble = append(trouble, fmt.Errorf("%s: %s: %w", f.name, p.name, err))
					continue
				}
				all.add(p.name, values)
			}
		}
		table := f.table(peers, all)
		fmt.Print(table)
		text.WriteString(table)
	}
	if which.MatchString("losses") {
		table, err := b.losses(slices.DeleteFunc(slices.Clone(peers), func(p peer) bool { return !slices.Contains(followers, p.name) }), os.Stderr)
		trouble = append(trouble, err)
		fmt.Print(table)
		text.WriteString(table)
	}
	if *also != "" {
		more, err := os.ReadFile(*also)
		trouble = append(trouble, err)
		text.Write(more)
	}
	if *goText != "" {
		out, err := os.ReadFile(*goText)
		trouble = append(trouble, err)
		text.WriteString("### Hot loops, as `go test -bench` prints them\n\n```\n" + string(out) + "```\n\n")
	}
	if *page != "" {
		trouble = append(trouble, rewrite(*page, machine()+text.String()))
	}
	return errors.Join(trouble...)
}

// The sidecar, as the tables call it.
const ours = "log-bridge"

func peers(sidecar, busybox, nxadm string) []peer {
	return []peer{
		{ours, func(s *site) []string {
			return []string{sidecar, "tail", "--root", filepath.Join(s.dir, "root"), "--state", filepath.Join(s.dir, "state"), "app:/*.log"}
		}, []string{"GOMAXPROCS=1"}}, // as in its image
		{"cat", func(s *site) []string { return append([]string{"cat"}, s.files...) }, nil},
		{"tail, busybox", func(s *site) []string { return append([]string{busybox, "tail", "-q", "-n", "+1", "-F"}, s.files...) }, nil},
		{"tail, GNU", func(s *site) []string { return append([]string{"tail", "-q", "-n", "+1", "-F"}, s.files...) }, nil},
		{"nxadm/tail", func(s *site) []string { return append([]string{nxadm}, s.files...) }, nil},
		{ours + " without inotify", func(s *site) []string {
			return []string{"unshare", "--user", "--map-root-user", "sh", "-c", `echo 0 > /proc/sys/user/max_inotify_instances && exec "$@"`, "sh",
				sidecar, "tail", "--root", filepath.Join(s.dir, "root"), "--state", filepath.Join(s.dir, "state"), "app:/*.log"}
		}, []string{"GOMAXPROCS=1"}},
	}
}

// followers are the peers that keep following as a file grows.
var followers = []string{ours, "tail, busybox", "tail, GNU", "nxadm/tail"}

func figures(long, idling time.Duration) []figure {
	return []figure{
		{"catch-up", "Catching up with 1 GiB", "A file of 160-byte lines in the page cache, delivered into a pipe whose reader only counts.",
			[]column{{"cpu", "s", "at most busybox's"}, {"wall", "s", "at most busybox's"}, {"peak", "MiB", "at most 4"}},
			append(slices.Clone(followers), "cat"), catchUp},
		{"steady", "10,000 lines a second", "Lines of 160 bytes, each with a write(2) of its own, for " + long.String() + ". CPU in percent of one core.",
			[]column{{"cpu", "%", "at most a quarter of GNU tail's"}}, followers, steady},
		{"latency", "One line every 10 ms", "The time from the write to the reader, of 1,000 lines.",
			[]column{{"median", "ms", "at most 0.3"}, {"p99", "ms", "at most 2"}}, followers, latency},
		{"idle", "Idle, one file", "Memory, and CPU in percent of one core over " + idling.String() + ", " + settling.String() + " after a first line.",
			[]column{{"rss", "MiB", "at most 3.5"}, {"cpu", "%", ""}}, append(slices.Clone(followers), ours+" without inotify"), idle(1)},
		{"idle-300", "Idle, 300 files", "The same with 300 files. nxadm/tail follows one file a process, so it is not in this table.",
			[]column{{"rss", "MiB", "at most 4"}, {"cpu", "%", "under 0.1, without inotify 1.5"}}, []string{ours, "tail, busybox", "tail, GNU", ours + " without inotify"}, idle(300)},
		{"many", "200 idle followers on one machine", "Each with one file: the proportional share of memory (PSS) of all together, and their CPU in percent of one core.",
			[]column{{"pss", "MiB", "at most 250"}, {"cpu", "%", "under 2"}}, []string{ours, "tail, busybox", "tail, GNU"}, many},
		{"ready", "From start to ready", "From the start of the sidecar's process to the end of its postStart hook.",
			[]column{{"time", "ms", "at most 15"}}, []string{ours}, ready},
	}
}

// machine says where the figures are from.
func machine() string {
	model := "unknown"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if m := regexp.MustCompile(`model name\s*: (.*)`).FindSubmatch(b); m != nil {
			model = string(m[1])
		}
	}
	version := func(name string, args ...string) string {
		out, err := exec.Command(name, args...).Output()
		first, _, _ := strings.Cut(string(out), "\n")
		if err != nil {
			return "?"
		}
		return strings.TrimSpace(first)
	}
	return fmt.Sprintf("Measured on %s: %s, %s processors, Linux %s, %s, %s.\n\n", time.Now().Format("2006-01-02"), model, version("nproc"), version("uname", "-r"), version("go", "version"), version("tail", "--version"))
}
