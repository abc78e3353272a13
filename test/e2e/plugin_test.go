package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/log-bridge/log-bridge/test/helpers/testbed"
)

// logBridge is `kubectl log-bridge …` in a namespace.
func logBridge(t *testing.T, ns string, args ...string) *exec.Cmd {
	t.Helper()
	return pluginCommand(t, bed.kubeconfig, append(args, "--namespace", ns)...)
}

// looking adds the flags of commands that look into containers: the image of the tests, and the patience that they have.
func looking(args ...string) []string {
	return append(args, "--image", "ghcr.io/log-bridge/log-bridge:test", "--timeout", patience.String())
}

// applications are pods of which each writes /data/app.log, with a number a line, once in 200 ms.
const applications = `
apiVersion: v1
kind: Pod
metadata: {name: root}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: app
    image: log-bridge.test/rotator:1
    command: [sh, -c, 'mkdir -p /data/cache; echo 1 > /data/app.pid; printf "SQLite format 3\0" > /data/state.db; echo x > /data/cache/page.log; i=0; while :; do i=$((i+1)); echo "line $i" >> /data/app.log; [ $((i % 100)) = 0 ] && mv /data/app.log /data/app.log.1; sleep 0.2; done']
---
apiVersion: v1
kind: Pod
metadata: {name: strict}
spec:
  terminationGracePeriodSeconds: 1
  securityContext: {runAsNonRoot: true, runAsUser: 1234, runAsGroup: 1234, fsGroup: 1234, seccompProfile: {type: RuntimeDefault}}
  volumes: [{name: data, emptyDir: {}}]
  containers:
  - name: app
    image: log-bridge.test/rotator:1
    command: [sh, -c, 'umask 077; i=0; exec 3>>/data/app.log; while :; do i=$((i+1)); echo "line $i" >&3; sleep 0.2; done']
    volumeMounts: [{name: data, mountPath: /data}]
    securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
---
apiVersion: v1
kind: Pod
metadata: {name: shellless}
spec:
  terminationGracePeriodSeconds: 1
  shareProcessNamespace: true
  volumes: [{name: data, emptyDir: {}}]
  containers:
  - name: first
    image: log-bridge.test/rotator:1
    command: [sleep, "3600"]
  - name: app
    image: log-bridge.test/shellless:1
    command: [/busybox, sh, -c, 'umask 077; i=0; while :; do i=$((i+1)); echo "line $i" >> /data/app.log; /busybox sleep 0.2; done']
    volumeMounts: [{name: data, mountPath: /data}]
`

// found is what discover prints with -o json.
type found []struct {
	Workload, Pod string
	Containers    []struct {
		Container string
		Logs      []struct {
			Path, Mode, Program, Rotates, Volume string
			Owner                                int
			Grew                                 int64
			Bridged                              bool
		}
		Left []struct{ Path, Why string }
	}
	Annotations map[string]string
	Problems    []string
}

// TestDiscover: the logs of running pods are found, whatever their user, image and namespaces, and nothing else; the pods run
// on as they were.
func TestDiscover(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	apply(t, ns, applications)
	kubectl(t, "-n", ns, "wait", "--for=condition=Ready", "pods", "--all", "--timeout=180s")
	out, err := output(logBridge(t, ns, looking("discover", "-o", "json", "--watch", "3s")...))
	var all found
	if e := json.Unmarshal([]byte(out), &all); err != nil || e != nil {
		t.Fatalf("%v, %v\n%s", err, e, out)
	}
	want := map[string]map[string]string{
		"root":      {"log-bridge.dev/files": "/data/app.log"},
		"strict":    {"log-bridge.dev/files": "/data/app.log"},
		"shellless": {"log-bridge.dev/files": "app:/data/app.log", "log-bridge.dev/run-as-user": "1500"},
	}
	for _, d := range all {
		if d.Pod == "root" && d.Annotations["log-bridge.dev/mount"] == "directory" {
			delete(d.Annotations, "log-bridge.dev/mount") // it was rotated while somebody watched
		}
		if fmt.Sprint(d.Annotations) != fmt.Sprint(want[d.Pod]) || len(d.Problems) > 0 {
			t.Errorf("%s: annotations %v, want %v; problems %q", d.Pod, d.Annotations, want[d.Pod], d.Problems)
		}
		for _, c := range d.Containers {
			for _, l := range c.Logs {
				if l.Path != "/data/app.log" || l.Grew == 0 {
					t.Errorf("%s: %+v", d.Pod, l)
				}
			}
		}
		if d.Pod != "root" {
			continue
		}
		var left []string
		for _, l := range d.Containers[0].Left {
			left = append(left, l.Path)
		}
		for _, path := range []string{"/data/app.pid", "/data/state.db", "/data/cache/page.log"} {
			if !slices.Contains(left, path) {
				t.Errorf("%s is not among what was left out: %q", path, left)
			}
		}
	}
	if len(all) != 3 {
		t.Errorf("%d pods, want 3\n%s", len(all), out)
	}
	table, err := output(logBridge(t, ns, looking("discover", "root", "--watch", "1s")...))
	if err != nil || !strings.Contains(table, "log-bridge.dev/files: /data/app.log") || !strings.Contains(table, "1 log in 1 pod") {
		t.Errorf("%v\n%s", err, table)
	}
	if restarts := kubectl(t, "-n", ns, "get", "pods", "-o", "jsonpath={.items[*].status.containerStatuses[*].restartCount}"); strings.Trim(restarts, "0 ") != "" {
		t.Errorf("restarts of the applications: %s", restarts)
	}
}

// TestTail: the lines of files of running pods come as they are written, and the process in the pod ends with the command.
func TestTail(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	apply(t, ns, applications)
	kubectl(t, "-n", ns, "wait", "--for=condition=Ready", "pods", "--all", "--timeout=180s")
	for _, c := range []struct {
		args []string
		want func([]string) string // what is wrong
	}{
		{[]string{"root", "/data/app.log", "--from-start"}, following(1, "line ")},
		{[]string{"strict", "/data/app.log"}, following(0, "line ")},
		{[]string{"strict"}, following(0, "line ")},
		{[]string{"shellless/app", "/data/*.log", "--from-start"}, following(1, "app:/data/app.log line ")},
	} {
		name := strings.ReplaceAll(strings.Join(c.args, " "), "/", "_")
		t.Run(name, func(t *testing.T) {
			cmd := logBridge(t, ns, looking(append([]string{"tail"}, c.args...)...)...)
			cmd.Stderr = os.Stderr
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines := make(chan string)
			go func() {
				defer close(lines)
				for s := bufio.NewScanner(out); s.Scan(); {
					lines <- s.Text()
				}
			}()
			var have []string
			late := time.After(patience)
			for len(have) < 8 {
				select {
				case line, ok := <-lines:
					if !ok {
						t.Fatalf("tail ended after %q: %v", have, cmd.Wait())
					}
					have = append(have, line)
				case <-late:
					_ = cmd.Process.Kill()
					t.Fatalf("only %q came", have)
				}
			}
			if err := cmd.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
			for range lines {
			}
			_ = cmd.Wait() // the signal is its end
			if problem := c.want(have); problem != "" {
				t.Errorf("%s\n%q", problem, have)
			}
		})
	}
	eventually(t, "the ephemeral containers to end", func() (bool, string) {
		running := kubectl(t, "-n", ns, "get", "pods", "-o", `jsonpath={.items[*].status.ephemeralContainerStatuses[*].state.running}`)
		return running == "", running
	})
}

// following says what is wrong with lines that should be numbered one after the other. If first is not 0, they begin with a file, of
// which each has 100 lines.
func following(first int, prefix string) func([]string) string {
	return func(lines []string) string {
		for i, line := range lines {
			var n int
			if _, err := fmt.Sscanf(strings.TrimPrefix(line, prefix), "%d", &n); err != nil || !strings.HasPrefix(line, prefix) {
				return fmt.Sprintf("%q is not %sN", line, prefix)
			}
			if i == 0 && (first == 0 || n%100 == 1) {
				first = n
			}
			if n != first+i {
				return fmt.Sprintf("line %d is %q, want number %d", i, line, first+i)
			}
		}
		return ""
	}
}

// TestUpgrade: a running sidecar gets another image, and the application, whose lines neither get lost nor come twice, does not notice.
// An image that does not exist is taken back. status shows what each pod runs with.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	const next, absent = "ghcr.io/log-bridge/log-bridge:next", "localhost:1/log-bridge:absent"
	if out, err := output(command(bed.cluster, "exec", "--name", clusterName(), "--", "ctr", "-n", "k8s.io", "images", "tag", "--force", "ghcr.io/log-bridge/log-bridge:test", next)); err != nil {
		t.Fatal(err, out)
	}
	apply(t, ns, `
apiVersion: v1
kind: Pod
metadata: {name: app, annotations: {log-bridge.dev/files: /srv/app.log}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: app
    image: log-bridge.test/rotator:1
    command: [sh, -c, 'i=0; while :; do i=$((i+1)); echo "line $i" >> /srv/app.log; sleep 0.05; done']
`)
	kubectl(t, "-n", ns, "wait", "--for=condition=Ready", "pod/app", "--timeout=180s")
	image := func() string {
		return kubectl(t, "-n", ns, "get", "pod", "app", "-o", `jsonpath={.spec.initContainers[?(@.name=="log-bridge")].image}`)
	}
	out, err := output(logBridge(t, ns, "status"))
	if err != nil || !strings.Contains(out, "app:/srv/app.log") || !strings.Contains(out, "1 pod with the sidecar") || !strings.Contains(out, "ago") {
		t.Errorf("status: %v\n%s", err, out)
	}
	if out, err := output(logBridge(t, ns, "upgrade", "--image", next, "--dry-run")); err != nil || !strings.Contains(out, "1 to bring to "+next) || image() == next {
		t.Errorf("dry run: %v\n%s", err, out)
	}
	if out, err := output(logBridge(t, ns, "upgrade", "pods/app", "--image", next, "--yes", "--timeout", patience.String())); err != nil || image() != next {
		t.Fatalf("upgrade: %v\n%s", err, out)
	}
	got := lines(t, "the lines of the new sidecar", atLeast(5), "-n", ns, "app", "-c", "log-bridge")
	before := testbed.SplitLines(kubectl(t, "-n", ns, "logs", "app", "-c", "log-bridge", "--previous"))
	all := slices.Concat(before, got)
	equalLines(t, all, numbered("line", len(all)))
	if out, err := output(logBridge(t, ns, "status")); err == nil || !strings.Contains(out, "not the chart's version") {
		t.Errorf("status of a sidecar with another version than the chart's: %v\n%s", err, out)
	}
	if out, err := output(logBridge(t, ns, "upgrade", "--image", absent, "--yes", "--timeout", patience.String())); err == nil || !strings.Contains(err.Error(), "has its old image "+next+" again") || image() != next {
		t.Errorf("upgrade to an image that does not exist: %v\n%s", err, out)
	}
	kubectl(t, "-n", ns, "wait", "--for=condition=Ready", "pod/app", "--timeout=180s")
	if restarts := kubectl(t, "-n", ns, "get", "pod", "app", "-o", "jsonpath={.status.containerStatuses[0].restartCount}"); restarts != "0" {
		t.Errorf("the application was restarted %s times", restarts)
	}
}

// TestAnnotate: a Deployment is annotated, its pods are replaced, and the first lines are shown; then it is as before.
func TestAnnotate(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	apply(t, ns, `
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: app
        image: log-bridge.test/rotator:1
        command: [sh, -c, 'exec 3>>/var/log/app/shop.log; i=0; while :; do i=$((i+1)); echo "line $i" >&3; sleep 0.2; done']
`)
	kubectl(t, "-n", ns, "rollout", "status", "deployment/shop", "--timeout=180s")
	annotations := func() string {
		return kubectl(t, "-n", ns, "get", "deployment", "shop", "-o", "jsonpath={.spec.template.metadata.annotations}")
	}
	if out, err := output(logBridge(t, ns, "annotate", "deployment/shop", "files=shop.log", "--yes")); err == nil || !strings.Contains(out, "mistake LB") || annotations() != "" {
		t.Errorf("a mistake: %v\n%s", err, out)
	}
	if out, err := output(logBridge(t, ns, "annotate", "deployment/shop", "files=/var/log/app/shop.log", "--dry-run=server")); err != nil || !strings.Contains(out, "accepts the change") || annotations() != "" {
		t.Errorf("dry run: %v\n%s", err, out)
	}
	if out, err := output(logBridge(t, ns, "annotate", "deployment/shop", "files=/var/log/app/shop.log")); err == nil || !strings.Contains(err.Error(), "nothing was changed") || annotations() != "" {
		t.Errorf("without an answer: %v\n%s", err, out)
	}
	out, err := output(logBridge(t, ns, looking("annotate", "deployment/shop", "--from-discovery", "--yes")...))
	if err != nil || !strings.Contains(out, "+ log-bridge.dev/files: /var/log/app/shop.log") || !strings.Contains(out, "  line ") {
		t.Errorf("from discovery: %v\n%s", err, out)
	}
	if out, err := output(logBridge(t, ns, "annotate", "deployment/shop", "--undo", "--yes")); err != nil || annotations() != "" {
		t.Errorf("undo: %v\n%s\n%s", err, out, annotations())
	}
}

// TestLookingFails: what cannot be looked into is said, with the reason, and nothing waits for ever.
func TestLookingFails(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	apply(t, ns, `
apiVersion: v1
kind: Pod
metadata: {name: crashes}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: app, image: log-bridge.test/rotator:1, command: [sh, -c, exit 3]}
  - {name: other, image: log-bridge.test/rotator:1, command: [sleep, "3600"]}
---
apiVersion: v1
kind: Pod
metadata: {name: node}
spec:
  terminationGracePeriodSeconds: 1
  hostPID: true
  containers:
  - name: app
    image: log-bridge.test/rotator:1
    command: [sh, -c, 'i=0; exec 3>>/var/log/app/app.log; while :; do i=$((i+1)); echo "line $i" >&3; sleep 0.2; done']
`)
	kubectl(t, "-n", ns, "wait", "--for=condition=Ready", "pod/node", "--timeout=180s")
	eventually(t, "the container that crashes", func() (bool, string) {
		out := kubectl(t, "-n", ns, "get", "pod", "crashes", "-o", "jsonpath={.status.containerStatuses[0].restartCount}{.status.containerStatuses[1].state.running}")
		return strings.Contains(out, "startedAt") && !strings.HasPrefix(out, "0"), out
	})
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"tail", "crashes/app", "/srv/x.log"}, "container app of pod crashes "},
		{[]string{"tail", "crashes/none", "/srv/x.log"}, `pod crashes has no container "none"`},
		{[]string{"tail", "crashes/other", "x.log"}, "x.log"},
		{[]string{"tail", "absent", "/x.log"}, `pods "absent" not found`},
		{[]string{"tail", "crashes/other"}, "no logs were found in container other of pod crashes"},
		{[]string{"discover", "deployment/absent"}, `"absent" not found`},
	} {
		if out, err := output(logBridge(t, ns, looking(c.args...)...)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q\n%s", c.args, err, c.want, out)
		}
	}
	// Of a pod with a container that does not run, the others are looked into, and the exit code says that one was not.
	out, err := output(logBridge(t, ns, looking("discover", "crashes", "--watch", "0s")...))
	if err == nil || !strings.Contains(err.Error(), "container app of pod crashes ") || !strings.Contains(out, "0 logs in 1 pod") {
		t.Errorf("discover: %v\n%s", err, out)
	}
	// In the node's process namespace, the container is told from all others.
	out, err = output(logBridge(t, ns, looking("discover", "node", "--watch", "2s")...))
	if err != nil || !strings.Contains(out, "1 log in 1 pod") || !strings.Contains(out, "/var/log/app/app.log") {
		t.Errorf("hostPID: %v\n%s", err, out)
	}
	denied := logBridge(t, ns, looking("discover", "node", "--as", "system:serviceaccount:"+ns+":nobody")...)
	if out, err := output(denied); err == nil || !strings.Contains(err.Error(), "forbidden") {
		t.Errorf("without permissions: %v\n%s", err, out)
	}
}
