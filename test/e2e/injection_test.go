package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// A file in /tmp, on a node that protects sticky directories as most do: the whole directory is
// shared, since not even root could open another user's file there for creation.
func TestStickyDirectory(t *testing.T) {
	ns := namespace(t)
	sysctl(t, "/proc/sys/fs/protected_regular", "2")
	apply(t, ns, `
apiVersion: v1
kind: Pod
metadata:
  name: sticky
  annotations: {log-bridge.dev/files: /tmp/app.log}
spec:
  restartPolicy: Never
  containers:
  - name: app
    image: log-bridge.test/rotator:1
    command: [sh, -ec, 'echo one >> /tmp/app.log; mv /tmp/app.log /tmp/app.log.1; echo two >> /tmp/app.log; stat -c %a /tmp']
    securityContext: {runAsUser: 1234}
`)
	equalLines(t, lines(t, "two lines", atLeast(2), "-n", ns, "sticky", "-c", "log-bridge"), []string{"one", "two"})
	if out := kubectl(t, "-n", ns, "logs", "sticky", "-c", "app"); !strings.HasPrefix(out, "3777") && !strings.HasPrefix(out, "1777") {
		t.Errorf("/tmp has mode %q, want it sticky and writable for all", out)
	}
}

// sysctl sets a kernel setting for the rest of the test.
func sysctl(t *testing.T, file, value string) {
	t.Helper()
	old, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(value), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(file, old, 0); err != nil {
			t.Error(err)
		}
	})
}

func atLeast(n int) func([]string) bool { return func(got []string) bool { return len(got) >= n } }

// Files that only their owner may read: the sidecar is the same user where the pod says which,
// says what to do where it does not, and does as run-as-user says.
func TestPrivateFiles(t *testing.T) {
	ns := namespace(t)
	for _, pod := range []struct{ name, annotations, context string }{
		{"known", "", "securityContext: {runAsUser: 4321}"},
		{"group", "", "securityContext: {runAsUser: 4321, runAsGroup: 77, fsGroup: 2000}"},
		{"root-by-image", "", ""},
		{"root-told", `log-bridge.dev/run-as-user: "0", `, ""},
	} {
		apply(t, ns, fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata:
  name: %s
  annotations: {%slog-bridge.dev/files: "/var/log/app/app.log"}
spec:
  terminationGracePeriodSeconds: 1
  %s
  containers:
  - name: app
    image: log-bridge.test/rotator:1
    command: [sh, -ec, 'umask 077; echo private > /var/log/app/app.log; exec sleep 3600']
`, pod.name, pod.annotations, pod.context))
	}
	for _, name := range []string{"known", "group", "root-told"} {
		equalLines(t, lines(t, "the line of "+name, atLeast(1), "-n", ns, name, "-c", "log-bridge"), []string{"private"})
	}
	got := lines(t, "the sentence", atLeast(1), "-n", ns, "root-by-image", "-c", "log-bridge")
	want := `log-bridge: app:/var/log/app/app.log has mode 0600 and belongs to user 0, so user 65532, which log-bridge runs as, cannot read it; it is tried again. The annotation log-bridge.dev/run-as-user: "0" would make log-bridge run as that user`
	equalLines(t, got, []string{want})
}

// What the image has in a log directory is there as before: files, links, folders and their modes.
func TestSeededDirectory(t *testing.T) {
	ns := namespace(t)
	const show = `cd /var/log/app; find . | sort; readlink link; cat old/app.log.0 README; stat -c '%A %n' README old/app.log.0`
	pod := func(name, annotation string) string {
		return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s, annotations: {%s}}
spec:
  restartPolicy: Never
  containers:
  - name: app
    image: log-bridge.test/rotator:1
    command: [sh, -ec, "%s; echo new >> old/app.log.0"]
`, name, annotation, show)
	}
	apply(t, ns, pod("before", ""))
	apply(t, ns, pod("after", "log-bridge.dev/files: /var/log/app/**/*.log*"))
	want := lines(t, "what the image has", atLeast(8), "-n", ns, "before", "-c", "app")
	equalLines(t, lines(t, "what the injected pod has", atLeast(8), "-n", ns, "after", "-c", "app"), want)
	// Only what this pod appended to a seeded file is a log line.
	equalLines(t, lines(t, "the appended line", atLeast(1), "-n", ns, "after", "-c", "log-bridge"), []string{"new"})
}

// An image whose log is a link to its stdout, as nginx has it: that goes on working, and the sidecar
// says that there is nothing to bridge.
func TestLinkToStdout(t *testing.T) {
	ns := namespace(t)
	apply(t, ns, `
apiVersion: v1
kind: Pod
metadata: {name: linked, annotations: {log-bridge.dev/files: /var/log/web/*.log}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: app
    image: log-bridge.test/rotator:1
    command: [sh, -ec, 'echo to-stdout > /var/log/web/access.log; echo to-file > /var/log/web/error.log; exec sleep 3600']
`)
	equalLines(t, lines(t, "the application's stdout", atLeast(1), "-n", ns, "linked", "-c", "app"), []string{"to-stdout"})
	got := lines(t, "the file's line and the sentence", atLeast(2), "-n", ns, "linked", "-c", "log-bridge")
	text := strings.Join(got, "\n")
	if len(got) != 2 || !strings.Contains(text, "to-file") || !strings.Contains(text, "app:/var/log/web/access.log is a link to /dev/stdout: the application's own output") {
		t.Errorf("have:\n%s", text)
	}
}

// An application and its sidecar are killed, in turn, with each way of sharing: nothing is missing and
// the files stay bound.
func TestRestarts(t *testing.T) {
	ns := namespace(t)
	apply(t, ns, `
apiVersion: v1
kind: Pod
metadata:
  name: restarting
  annotations: {log-bridge.dev/format: prefix, log-bridge.dev/files: "/data/shared.log,/var/log/app/directory.log,/srv/file.log"}
spec:
  terminationGracePeriodSeconds: 1
  volumes: [{name: data, emptyDir: {}}]
  containers:
  - name: app
    image: log-bridge.test/rotator:1
    volumeMounts: [{name: data, mountPath: /data}]
    command:
    - sh
    - -ec
    - |
      n=$(cat /data/n 2>/dev/null || echo 0); n=$((n+1)); echo $n > /data/n
      for f in /data/shared.log /var/log/app/directory.log /srv/file.log; do echo "start $n" >> $f; done
      while [ ! -e /data/end$n ]; do usleep 50000; done
`)
	want := map[string]int{}
	start := func(n int) {
		t.Helper()
		for _, file := range []string{"/data/shared.log", "/var/log/app/directory.log", "/srv/file.log"} {
			want[fmt.Sprintf("app:%s start %d", file, n)] = 1
		}
		var have map[string]int
		eventually(t, fmt.Sprintf("the lines of start %d", n), func() (bool, string) {
			have = map[string]int{}
			for _, previous := range []string{"--previous=true", "--previous=false"} {
				out, _ := tryKubectl("logs", "-n", ns, "restarting", "-c", "log-bridge", previous)
				for line := range strings.Lines(out) {
					have[strings.TrimSuffix(line, "\n")]++
				}
			}
			for line := range want {
				if have[line] == 0 {
					return false, fmt.Sprint(have)
				}
			}
			return true, ""
		})
		for line, times := range have {
			if want[line] != times {
				t.Errorf("%q came %d times, want %d", line, times, want[line])
			}
		}
	}
	start(1)
	kubectl(t, "exec", "-n", ns, "restarting", "-c", "app", "--", "touch", "/data/end1")
	start(2)
	id := sidecarID(t, ns, "restarting")
	killSidecar(t, id)
	eventually(t, "a new sidecar container", func() (bool, string) { now := sidecarID(t, ns, "restarting"); return now != "" && now != id, now })
	kubectl(t, "exec", "-n", ns, "restarting", "-c", "app", "--", "touch", "/data/end2")
	start(3)
}

// A pod is deleted while it writes: what it wrote before it ended is all there.
func TestDeletedUnderLoad(t *testing.T) {
	ns := namespace(t)
	apply(t, ns, `
apiVersion: v1
kind: Pod
metadata: {name: loaded, annotations: {log-bridge.dev/files: /srv/app.log}}
spec:
  terminationGracePeriodSeconds: 30
  containers:
  - name: app
    image: log-bridge.test/rotator:1
    command:
    - sh
    - -c
    - |
      trap 'echo "last $i" >> /srv/app.log; exit 0' TERM
      i=0; while true; do i=$((i+1)); echo "line $i" >> /srv/app.log; done
`)
	stream := follow(t, "-n", ns, "loaded", "-c", "log-bridge")
	n, last := 0, ""
	for line := range stream {
		if n++; n == 2000 {
			kubectl(t, "delete", "pod", "-n", ns, "loaded", "--wait=false")
		}
		if last = line; strings.HasPrefix(line, "last ") {
			break
		}
		if line != fmt.Sprintf("line %d", n) {
			t.Fatalf("line %d: have %q", n, line)
		}
	}
	// The signal may come between counting a line and writing it.
	if last != fmt.Sprintf("last %d", n-1) && last != fmt.Sprintf("last %d", n) {
		t.Errorf("the last line of %d is %q", n, last)
	}
}

// The user's own init container makes the file under the subPath that is shared.
func TestInitContainerMakesTheFile(t *testing.T) {
	ns := namespace(t)
	apply(t, ns, `
apiVersion: v1
kind: Pod
metadata: {name: made, annotations: {log-bridge.dev/files: /srv/app.log}}
spec:
  restartPolicy: Never
  volumes: [{name: data, emptyDir: {}}]
  initContainers:
  - name: make
    image: log-bridge.test/rotator:1
    volumeMounts: [{name: data, mountPath: /data}]
    command: [sh, -ec, 'mkdir -p /data/logs; touch /data/logs/$NAME.log']
    env: [{name: NAME, value: one}]
  containers:
  - name: app
    image: log-bridge.test/rotator:1
    env: [{name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
    volumeMounts:
    - {name: data, mountPath: /srv/app.log, subPath: logs/one.log}
    command: [sh, -ec, 'echo $POD >> /srv/app.log']
`)
	equalLines(t, lines(t, "the line", atLeast(1), "-n", ns, "made", "-c", "log-bridge"), []string{"made"})
}

// A Guaranteed pod stays Guaranteed, under a quota that asks for limits and a LimitRange.
func TestResources(t *testing.T) {
	ns := namespace(t)
	apply(t, ns, `
apiVersion: v1
kind: ResourceQuota
metadata: {name: all}
spec: {hard: {limits.cpu: "4", limits.memory: 4Gi, requests.cpu: "4", requests.memory: 4Gi}}
---
apiVersion: v1
kind: LimitRange
metadata: {name: usual}
spec: {limits: [{type: Container, default: {cpu: 500m, memory: 256Mi}, defaultRequest: {cpu: 50m, memory: 64Mi}}]}
---
apiVersion: v1
kind: Pod
metadata: {name: guaranteed, annotations: {log-bridge.dev/files: /srv/app.log}}
spec:
  restartPolicy: Never
  containers:
  - name: app
    image: log-bridge.test/rotator:1
    command: [sh, -ec, 'echo paid >> /srv/app.log']
    resources: {limits: {cpu: 100m, memory: 64Mi}}
`)
	equalLines(t, lines(t, "the line", atLeast(1), "-n", ns, "guaranteed", "-c", "log-bridge"), []string{"paid"})
	if class := kubectl(t, "-n", ns, "get", "pod", "guaranteed", "-o", "jsonpath={.status.qosClass}"); class != "Guaranteed" {
		t.Errorf("the pod's QoS class is %s, want Guaranteed", class)
	}
}
