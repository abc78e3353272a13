package runtimes

import (
	"encoding/base64"
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/log-bridge/log-bridge/test/helpers/testbed"
)

// pod is an annotated pod whose application does what the test tells it, by write.
const pod = `
apiVersion: v1
kind: Pod
metadata:
  name: app
  annotations: {log-bridge.dev/files: /srv/app.log}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: app
    image: ` + appImage + `
    command: [sleep, "86400"]
`

// startPod returns once lines can be written.
func startPod(t *testing.T) (namespace string) {
	t.Helper()
	need(t)
	namespace = bed.Namespace(t)
	bed.Apply(t, namespace, pod)
	bed.K(t, "-n", namespace, "wait", "--for=condition=Ready", "pod/app", "--timeout=180s")
	return namespace
}

// write lets the application append to its log. The text is an argument, since kubectl exec -i loses its stdin now and then.
func write(t *testing.T, namespace, text string) {
	t.Helper()
	inApp(t, namespace, "echo "+base64.StdEncoding.EncodeToString([]byte(text))+" | base64 -d >> /srv/app.log")
}

func inApp(t *testing.T, namespace, script string) {
	t.Helper()
	bed.K(t, "-n", namespace, "exec", "app", "-c", "app", "--", "sh", "-c", script)
}

func text(lines []string) string { return strings.Join(lines, "\n") + "\n" }

func atLeast(n int) func([]string) bool { return func(have []string) bool { return len(have) >= n } }

// kubectl logs and its options show a delivered line.
func TestKubectlLogs(t *testing.T) {
	ns := startPod(t)
	logs := []string{"-n", ns, "app", "-c", "log-bridge"}
	first := testbed.Numbered("line", 1, 100)
	write(t, ns, text(first))
	testbed.EqualLines(t, bed.Lines(t, "100 lines", atLeast(100), logs...), first)

	stream := bed.Follow(t, logs...)
	second := testbed.Numbered("line", 101, 200)
	write(t, ns, text(second))
	for i, want := range slices.Concat(first, second) {
		if line := <-stream; line != want {
			t.Fatalf("kubectl logs -f, line %d: have %q, want %q", i+1, line, want)
		}
	}

	tail := bed.Lines(t, "10 lines", atLeast(10), append(logs, "--tail=10")...)
	testbed.EqualLines(t, tail, second[90:])
	testbed.EqualLines(t, bed.Lines(t, "200 lines", atLeast(200), append(logs, "--since=1h")...), slices.Concat(first, second))

	// Each line has a time, and --since-time counts from there, in whole seconds.
	stamped := bed.Lines(t, "200 lines", atLeast(200), append(logs, "--timestamps")...)
	since, last := "", ""
	for i, line := range stamped {
		stamp, rest, _ := strings.Cut(line, " ")
		if rest != fmt.Sprintf("line %d", i+1) || stamp < last {
			t.Fatalf("kubectl logs --timestamps, line %d: have %q after %q", i+1, line, last)
		}
		if last = stamp; i == 100 {
			since = stamp
		}
	}
	late := bed.Lines(t, "100 lines", atLeast(100), append(logs, "--since-time="+since)...)
	testbed.EqualLines(t, late[max(0, len(late)-100):], second)
	// Nothing is younger than a second, once a second has passed.
	bed.Lines(t, "no line of the last second", func(have []string) bool { return len(have) == 0 }, append(logs, "--since=1s")...)

	// After a crash of the sidecar, what was there before it.
	container := bed.K(t, "-n", ns, "get", "pod", "app", "-o", `jsonpath={.status.initContainerStatuses[?(@.name=="log-bridge")].containerID}`)
	bed.Run(t, "ctr", "-n", "k8s.io", "tasks", "kill", "-s", "SIGKILL", strings.TrimPrefix(container, "containerd://"))
	write(t, ns, "after the crash\n")
	bed.Lines(t, "the line after the crash", func(have []string) bool {
		return len(have) > 0 && have[len(have)-1] == "after the crash"
	}, logs...)
	testbed.EqualLines(t, bed.Lines(t, "200 lines", atLeast(200), append(logs, "--previous")...), slices.Concat(first, second))
}

// The kubelet rotates the container's log. kubectl logs then shows the newest file, kubectl logs -f continues, and the files
// on the node have every line.
func TestKubeletRotates(t *testing.T) {
	ns := startPod(t)
	logs := []string{"-n", ns, "app", "-c", "log-bridge"}
	// The stream has to be at the end of the file before the rotation: one that is behind stays with the old file.
	write(t, ns, "first\n")
	stream := bed.Follow(t, logs...)
	if line := <-stream; line != "first" {
		t.Fatalf("kubectl logs -f: have %q, want %q", line, "first")
	}
	// 10 MiB is the kubelet's limit of one file, and every ten seconds it looks.
	filler := strings.Repeat("x", 1000)
	before := testbed.Numbered(filler, 1, 11_000)
	inApp(t, ns, "x="+filler+"; for i in $(seq 11000); do echo $x $i; done >> /srv/app.log")
	for i, want := range before {
		if line := <-stream; line != want {
			t.Fatalf("kubectl logs -f, line %d: have %.50q, want %.50q", i+1, line, want)
		}
	}
	uid := bed.K(t, "-n", ns, "get", "pod", "app", "-o", "jsonpath={.metadata.uid}")
	folder := path.Join("/var/log/pods", ns+"_app_"+uid, "log-bridge")
	var files []string
	testbed.Eventually(t, "the kubelet's rotation", func() (bool, string) {
		files = strings.Fields(bed.Run(t, "ls", folder))
		return len(files) == 2, strings.Join(files, " ")
	})
	after := testbed.Numbered("after", 1, 1000)
	write(t, ns, text(after))
	for i, want := range after {
		if line := <-stream; line != want {
			t.Fatalf("kubectl logs -f, line %d after the rotation: have %.50q, want %q", i+1, line, want)
		}
	}
	slices.Sort(files) // 0.log and 0.log.TIME, which a further rotation would compress
	rotated, newest := contents(t, path.Join(folder, files[1])), contents(t, path.Join(folder, files[0]))
	testbed.EqualLines(t, slices.Concat(rotated, newest), slices.Concat([]string{"first"}, before, after))
	testbed.EqualLines(t, bed.Lines(t, "the newest file", atLeast(1000), logs...), newest)
}

// contents are the lines of a log file on the node, as a collector puts them together.
func contents(t *testing.T, file string) []string {
	t.Helper()
	var lines []string
	part := ""
	for _, record := range testbed.SplitLines(bed.Run(t, "cat", file)) {
		// 2026-01-02T03:04:05.678901234Z stdout F a line
		fields := strings.SplitN(record, " ", 4)
		if len(fields) != 4 {
			t.Fatalf("%s: not a record: %.100q", file, record)
		}
		part += fields[3]
		if fields[2] == "F" {
			lines, part = append(lines, part), ""
		}
	}
	return lines
}

func TestOddLinesContainerd(t *testing.T) {
	ns := startPod(t)
	write(t, ns, text(oddLines()))
	out := ""
	testbed.Eventually(t, "the last line", func() (bool, string) {
		out = bed.K(t, "logs", "-n", ns, "app", "-c", "log-bridge")
		return strings.HasSuffix(out, "\nlast\n"), out
	})
	compare(t, "containerd", testbed.SplitLines(out), bed.Run(t, "containerd", "--version"))
}

// While containerd is stopped, the sidecar waits, and nothing is lost.
func TestContainerdStopped(t *testing.T) {
	ns := startPod(t)
	container := bed.K(t, "-n", ns, "get", "pod", "app", "-o", `jsonpath={.status.initContainerStatuses[?(@.name=="log-bridge")].containerID}`)
	bed.Run(t, "sh", "-c", "ctr -n k8s.io tasks list | awk -v id="+strings.TrimPrefix(container, "containerd://")+" '$1 == id {print $2}' > "+pidFile("sidecar"))
	bed.Run(t, "sh", "-c", "pidof containerd > "+pidFile("containerd"))
	uid := bed.K(t, "-n", ns, "get", "pod", "app", "-o", "jsonpath={.metadata.uid}")

	stop(t, "containerd")
	// kubectl exec would need containerd.
	file := path.Join("/var/lib/kubelet/pods", uid, "volumes/kubernetes.io~empty-dir/log-bridge/app/srv/app.log")
	bed.Run(t, "sh", "-c", "seq 50000 | sed 's/^/line /' >> "+file)
	awaitWritten(t, "sidecar", fullPipe)
	goOn(t, "containerd")
	want := testbed.Numbered("line", 1, 50_000)
	testbed.EqualLines(t, bed.Lines(t, "50,000 lines", atLeast(len(want)), "-n", ns, "app", "-c", "log-bridge"), want)
}

// When containerd is killed, the lines that are on their way through its shim's pipe are lost, and no others; the sidecar
// and the application live on. docs/runtimes.md says so.
func TestContainerdKilled(t *testing.T) {
	ns := startPod(t)
	logs := []string{"-n", ns, "app", "-c", "log-bridge"}
	// The writer is no child of kubectl exec, which ends with containerd.
	inApp(t, ns, `setsid sh -c 'i=0; while [ ! -e /tmp/enough ]; do i=$((i+1)); echo line $i; usleep 1000; done >> /srv/app.log' > /dev/null 2>&1 &`)
	bed.Lines(t, "200 lines", atLeast(200), logs...)
	// The process that listens at containerd's socket is containerd.
	pid := strings.TrimSpace(bed.Run(t, "sh", "-c", `inode=$(awk '$NF == "/run/containerd/containerd.sock" && $4 == "00010000" { print $7; exit }' /proc/net/unix)
		for p in /proc/[0-9]*; do ls -l $p/fd 2>/dev/null | grep -q "socket:\[$inode\]" && basename $p && exit; done`))
	if pid == "" || pid == "1" {
		t.Fatalf("containerd's process was not found: %q", pid)
	}
	bed.Run(t, "kill", "-KILL", pid)
	testbed.Eventually(t, "containerd to answer again", func() (bool, string) {
		out, err := bed.Try("-n", ns, "exec", "app", "-c", "app", "--", "true")
		return err == nil, out
	})
	inApp(t, ns, "touch /tmp/enough; usleep 200000; echo end >> /srv/app.log")
	got := bed.Lines(t, "the last line", func(have []string) bool { return len(have) > 0 && have[len(have)-1] == "end" }, logs...)

	before, missing := 0, 0
	for _, line := range got[:len(got)-1] {
		n := 0
		if _, err := fmt.Sscanf(line, "line %d", &n); err != nil {
			continue // cut off by the end of containerd
		}
		if n <= before {
			t.Fatalf("line %d came after line %d", n, before)
		}
		missing += n - before - 1
		before = n
	}
	t.Logf("%d of %d lines were lost", missing, before)
	// A pipe holds 64 KiB, and containerd's reader as much.
	if lost := missing * len("line 1000\n"); lost > 128<<10 {
		t.Errorf("%d lines were lost, about %d bytes; docs/runtimes.md says those in a pipe", missing, lost)
	}
	if restarts := bed.K(t, "-n", ns, "get", "pod", "app", "-o", `jsonpath={.status.initContainerStatuses[?(@.name=="log-bridge")].restartCount}`); restarts != "0" {
		t.Errorf("the sidecar was restarted %s times", restarts)
	}
}
