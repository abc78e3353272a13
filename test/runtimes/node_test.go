package runtimes

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/log-bridge/log-bridge/test/helpers/testbed"
)

// daemons are the programs that run inside the node. They end with it.
var daemons sync.Map

// daemon starts a program inside the node, once, and returns when it is ready. Its output goes to log(name), its process id
// to pidFile(name). The unit is the systemd unit to which journald should attribute it, or nothing.
func daemon(t *testing.T, name, unit string, ready func() bool, args ...string) {
	t.Helper()
	need(t)
	if _, started := daemons.LoadOrStore(name, true); started {
		return
	}
	script := "echo $$ > " + pidFile(name) + ` && exec "$@"`
	if unit != "" {
		// journald goes by the name of the cgroup that systemd would have made.
		script = "root=/sys/fs/cgroup; [ -e $root/cgroup.procs ] || root=$root/systemd; dir=$root/system.slice/" + unit +
			"; mkdir -p $dir && echo $$ > $dir/cgroup.procs && " + script
	}
	// In the background of a shell that ends: the node's first process becomes its parent, and collects it.
	background := `setsid sh -c '` + script + `' sh "$@" </dev/null >/var/log/` + name + ".log 2>&1 &"
	bed.Run(t, append([]string{"sh", "-c", background, "sh"}, args...)...)
	testbed.Eventually(t, name+" to be ready", func() (bool, string) {
		if ready() {
			return true, ""
		}
		text, _ := os.ReadFile(log(name))
		if bed.Inside("sh", "-c", "[ ! -e "+pidFile(name)+" ] || kill -0 $(cat "+pidFile(name)+")").Run() != nil {
			t.Fatalf("%s has ended:\n%s", name, text)
		}
		return false, string(text)
	})
}

// pidFile is the node's file with the process id of a daemon or of a container's first process.
func pidFile(name string) string { return "/run/pid-of-" + name }

// log is the file with a daemon's output.
func log(name string) string { return filepath.Join(bed.Log, name+".log") }

// exists reports whether the node has a file.
func exists(path string) func() bool {
	return func() bool { return bed.Inside("test", "-e", path).Run() == nil }
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// stop keeps a process from running until goOn or the end of the test.
func stop(t *testing.T, name string) {
	t.Helper()
	t.Cleanup(func() { goOn(t, name) })
	signal(t, "STOP", name)
}

func goOn(t *testing.T, name string) {
	t.Helper()
	signal(t, "CONT", name)
}

func signal(t *testing.T, signal, name string) {
	t.Helper()
	bed.Run(t, "sh", "-c", "kill -"+signal+" $(cat "+pidFile(name)+")")
}

// A folder is a directory that an application and log-bridge share without Kubernetes, and the format of what
// log-bridge delivers from it.
type folder struct{ path, format string }

// newFolder creates one that the node sees too; log-bridge finds /app.log of the container "app" in it.
func newFolder(t *testing.T) folder {
	t.Helper()
	dir, err := os.MkdirTemp(bed.Dir, "folder")
	if err == nil {
		err = os.Mkdir(filepath.Join(dir, "app"), 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	return folder{dir, "raw"}
}

// write appends to the application's log.
func (f folder) write(t *testing.T, text string) {
	t.Helper()
	file, err := os.OpenFile(filepath.Join(f.path, "app/app.log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteString(text); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
}

// bridge runs our image with a container program of Docker's command line, such as docker itself. It follows a directory
// until the test ends.
func (f folder) bridge(t *testing.T, program []string, name string, options ...string) {
	t.Helper()
	run := []string{"run", "--detach", "--name", name, "--network", "none", "--user", "0:0", "--volume", f.path + ":/log-bridge"}
	bed.Run(t, slices.Concat(program, run, options, []string{bridgeImage, "tail", "--format", f.format, "app:/app.log"})...)
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := testbed.Output(bed.Inside(slices.Concat(program, []string{"logs", name})...))
			t.Logf("logs of %s:\n%.2000q", name, out)
		}
		if _, err := testbed.Output(bed.Inside(slices.Concat(program, []string{"rm", "--force", name})...)); err != nil {
			t.Error(err)
		}
	})
}

// awaitWritten waits until a container with the sidecar has written so many bytes. A pipe holds
// 64 KiB; after that, who does not take them off makes it wait.
func awaitWritten(t *testing.T, container string, bytes int) {
	t.Helper()
	testbed.Eventually(t, fmt.Sprintf("the sidecar to have written %d bytes", bytes), func() (bool, string) {
		state := bed.Run(t, "sh", "-c", `cat /proc/$(cat `+pidFile(container)+`)/io`)
		_, wchar, _ := strings.Cut(state, "wchar: ")
		var n int
		_, err := fmt.Sscan(wchar, &n)
		return err == nil && n >= bytes, state
	})
}

// fullPipe is nearly 64 KiB.
const fullPipe = 60 << 10
