package runtimes

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/log-bridge/log-bridge/test/helpers/testbed"
)

// Without the capability SYS_RESOURCE, Podman's own limits of processes and files cannot be set.
const podmanConfig = `[containers]
default_ulimits = []
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
`

var podmanReady sync.Once

// podman returns the command with an OCI runtime, with our image in its storage.
func podman(t *testing.T, runtime string) []string {
	t.Helper()
	need(t)
	config := filepath.Join(bed.Dir, "containers.conf")
	command := []string{"env", "CONTAINERS_CONF=" + config, "podman", "--runtime", runtime}
	podmanReady.Do(func() {
		if err := os.WriteFile(config, []byte(podmanConfig), 0o644); err != nil {
			t.Fatal(err)
		}
		bed.Run(t, slices.Concat(command, []string{"load", "--input", bed.Archive(bridgeImage)})...)
	})
	return command
}

// CRI-O writes by conmon what Podman writes by conmon with its driver k8s-file: the file that the kubelet reads.
func TestConmonFile(t *testing.T) {
	for _, runtime := range []string{"crun", "runc"} {
		t.Run(runtime, func(t *testing.T) {
			podman := podman(t, runtime)
			f := newFolder(t)
			f.bridge(t, podman, "file-"+runtime, "--log-driver", "k8s-file")
			f.write(t, text(oddLines()))
			file := strings.TrimSpace(bed.Run(t, slices.Concat(podman, []string{"inspect", "--format", "{{.HostConfig.LogConfig.Path}}", "file-" + runtime})...))
			var lines []string
			testbed.Eventually(t, "the last line", func() (bool, string) {
				lines = contents(t, file)
				return slices.Contains(lines, "last"), text(lines)
			})
			compare(t, "conmon, `k8s-file`", lines, bed.Run(t, "conmon", "--version"))
			logs := bed.Run(t, slices.Concat(podman, []string{"logs", "file-" + runtime})...)
			testbed.EqualLines(t, testbed.SplitLines(logs), lines)
		})
	}
}

// conmon can also write to the journal.
func TestConmonJournald(t *testing.T) {
	podman := podman(t, "crun")
	journald(t)
	f := newFolder(t)
	f.bridge(t, podman, "journal", "--log-driver", "journald")
	f.write(t, text(oddLines()))
	var lines []string
	testbed.Eventually(t, "the last line", func() (bool, string) {
		lines = journal(t, "journal")
		return slices.Contains(lines, "last"), text(lines)
	})
	compare(t, "conmon, `journald`", lines, bed.Run(t, "conmon", "--version"))
	logs := bed.Run(t, slices.Concat(podman, []string{"logs", "journal"})...)
	testbed.EqualLines(t, testbed.SplitLines(logs), lines)
}

// While conmon is stopped, the sidecar waits, and nothing is lost.
func TestConmonStopped(t *testing.T) {
	podman := podman(t, "crun")
	f := newFolder(t)
	f.bridge(t, podman, "stands", "--log-driver", "k8s-file", "--pidfile", pidFile("stands"), "--conmon-pidfile", pidFile("conmon"))
	stop(t, "conmon")
	want := testbed.Numbered("line", 1, 50_000)
	f.write(t, text(want))
	awaitWritten(t, "stands", fullPipe)
	goOn(t, "conmon")
	var have []string
	testbed.Eventually(t, "the last line", func() (bool, string) {
		have = testbed.SplitLines(bed.Run(t, slices.Concat(podman, []string{"logs", "stands"})...))
		return len(have) >= len(want), ""
	})
	testbed.EqualLines(t, have, want)
}

// With a limit, conmon empties its file when it is full, and the lines in it are lost.
func TestConmonLimit(t *testing.T) {
	podman := podman(t, "crun")
	f := newFolder(t)
	f.bridge(t, podman, "limit", "--log-driver", "k8s-file", "--log-opt", "max-size=100kb")
	all := append(testbed.Numbered("line", 1, 20_000), "last")
	f.write(t, text(all))
	var have []string
	testbed.Eventually(t, "the last line", func() (bool, string) {
		have = testbed.SplitLines(bed.Run(t, slices.Concat(podman, []string{"logs", "limit"})...))
		return slices.Contains(have, "last"), text(have)
	})
	if len(have) > 100<<10/len("line 1") {
		t.Errorf("%d lines are in a file of at most 100 kB", len(have))
	}
	testbed.EqualLines(t, have, all[len(all)-len(have):])
}
