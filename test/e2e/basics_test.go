package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// The story: a Python program logs to a file beside itself.
func TestPythonStory(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	kubectl(t, "apply", "-n", ns, "-f", filepath.Join(bed.top, "examples/python-app-log/deployment.yaml"))
	kubectl(t, "rollout", "status", "-n", ns, "deployment/python-app-log", "--timeout=180s")

	enough := func(got []string) bool {
		return strings.Count(strings.Join(got, "\n"), " - INFO - Request successful: ") >= 3
	}
	got := lines(t, "three successful requests", enough, "-n", ns, "deploy/python-app-log", "-c", "log-bridge")

	// kubectl logs without a container still shows the application.
	if out := kubectl(t, "logs", "-n", ns, "deploy/python-app-log"); strings.Contains(out, "Request successful") {
		t.Errorf("kubectl logs without -c shows the bridged lines, not the application's:\n%s", out)
	}

	// The program is still there, beside its log, and what came out is what is in the file.
	listed := kubectl(t, "exec", "-n", ns, "deploy/python-app-log", "--", "ls", "/app")
	if names := strings.Fields(listed); !reflect.DeepEqual(names, []string{"app.log", "app.py"}) {
		t.Errorf("/app holds %v, want app.log and app.py", names)
	}
	program, err := os.ReadFile(filepath.Join(bed.top, "examples/python-app-log/app.py"))
	if err != nil {
		t.Fatal(err)
	}
	if have := kubectl(t, "exec", "-n", ns, "deploy/python-app-log", "--", "cat", "/app/app.py"); have != string(program) {
		t.Errorf("/app/app.py is changed; have:\n%s", have)
	}
	log := strings.Split(kubectl(t, "exec", "-n", ns, "deploy/python-app-log", "--", "cat", "/app/app.log"), "\n")
	equalLines(t, got, log[:len(got)])

	// -f shows lines as they come.
	stream := follow(t, "-n", ns, "deploy/python-app-log", "-c", "log-bridge")
	for i := range len(got) + 2 {
		line, ok := <-stream
		if !ok {
			t.Fatalf("kubectl logs -f ended after %d lines", i)
		}
		if i < len(got) && line != got[i] {
			t.Fatalf("kubectl logs -f, line %d: have %q, want %q", i+1, line, got[i])
		}
	}
}

const plainDeployment = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: plain}
spec:
  replicas: 1
  selector: {matchLabels: {app: plain}}
  template:
    metadata:
      labels: {app: plain}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: app
        image: log-bridge.test/rotator:1
        command: [sleep, "3600"]
        resources: {requests: {cpu: 10m}}
`

// plainPod creates an application before the chart is installed.
func plainPod() error {
	if _, err := tryKubectl("create", "namespace", "before"); err != nil {
		return err
	}
	cmd := command(bed.kubectl, "--kubeconfig", bed.kubeconfig, "-n", "before", "apply", "-f", "-")
	cmd.Stdin = strings.NewReader(plainDeployment)
	if _, err := output(cmd); err != nil {
		return err
	}
	if _, err := tryKubectl("-n", "before", "rollout", "status", "deployment/plain", "--timeout=180s"); err != nil {
		return err
	}
	var err error
	bed.plain, err = podAsMade("before")
	return err
}

// podAsMade is the JSON of the plain pod without what differs from pod to pod: names, ids
// and times.
func podAsMade(namespace string) (string, error) {
	out, err := tryKubectl("-n", namespace, "get", "pods", "-l", "app=plain", "-o", "json")
	if err != nil {
		return "", err
	}
	var list struct {
		Items []struct {
			Metadata map[string]any `json:"metadata"`
			Spec     map[string]any `json:"spec"`
		} `json:"items"`
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		return "", err
	}
	if len(list.Items) != 1 {
		return "", fmt.Errorf("%d pods in %s, want 1", len(list.Items), namespace)
	}
	pod := list.Items[0]
	for _, key := range []string{"name", "generateName", "namespace", "uid", "resourceVersion", "creationTimestamp", "ownerReferences", "managedFields"} {
		delete(pod.Metadata, key)
	}
	text, err := json.MarshalIndent(pod, "", " ")
	if err != nil {
		return "", err
	}
	// The token's volume has a random name.
	for _, word := range strings.FieldsFunc(string(text), func(r rune) bool { return r == '"' }) {
		if strings.HasPrefix(word, "kube-api-access-") {
			return strings.ReplaceAll(string(text), word, "kube-api-access"), nil
		}
	}
	return string(text), nil
}

// A pod without the annotation is as it was before the chart was installed, also while the
// webhook is down.
func TestUntouched(t *testing.T) {
	needCluster(t)
	for _, down := range []bool{false, true} {
		name := "webhook up"
		if down {
			name = "webhook down"
		}
		t.Run(name, func(t *testing.T) {
			ns := namespace(t)
			if down {
				webhookDown(t)
			}
			apply(t, ns, plainDeployment)
			kubectl(t, "-n", ns, "rollout", "status", "deployment/plain", "--timeout=180s")
			have, err := podAsMade(ns)
			if err != nil {
				t.Fatal(err)
			}
			if have != bed.plain {
				t.Errorf("a pod without the annotation is not as before the chart was installed\nhave:\n%s\nwant:\n%s", have, bed.plain)
			}
		})
	}
}

// webhookDown scales the webhook to zero for the rest of the test.
func webhookDown(t *testing.T) {
	t.Helper()
	kubectl(t, "-n", "log-bridge", "scale", "deployment/log-bridge", "--replicas=0")
	t.Cleanup(func() {
		kubectl(t, "-n", "log-bridge", "scale", "deployment/log-bridge", "--replicas=2")
		kubectl(t, "-n", "log-bridge", "rollout", "status", "deployment/log-bridge", "--timeout=180s")
		injected(t, "default", "once the webhook is back")
	})
	eventually(t, "the webhook to be gone", func() (bool, string) {
		out, err := tryKubectl("-n", "log-bridge", "get", "pods", "-l", "app.kubernetes.io/name=log-bridge", "-o", "name")
		return err == nil && out == "", fmt.Sprint(out, err)
	})
}

// A Job that writes and ends at once completes, and none of its lines is missing.
func TestJob(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	apply(t, ns, `
apiVersion: batch/v1
kind: Job
metadata: {name: quick}
spec:
  backoffLimit: 0
  template:
    metadata:
      annotations: {log-bridge.dev/files: /work/job.log}
    spec:
      restartPolicy: Never
      containers:
      - name: app
        image: log-bridge.test/rotator:1
        command: [sh, -c, 'for i in $(seq 1000); do echo "line $i"; done > /work/job.log']
`)
	kubectl(t, "-n", ns, "wait", "--for=condition=complete", "job/quick", "--timeout=180s")
	equalLines(t, lines(t, "1,000 lines", func(got []string) bool { return len(got) >= 1000 }, "-n", ns, "job/quick", "-c", "log-bridge"), numbered("line", 1000))
}

// A namespace that enforces Pod Security restricted takes the injected pod.
func TestRestricted(t *testing.T) {
	t.Parallel()
	ns := namespace(t, "pod-security.kubernetes.io/enforce=restricted")
	apply(t, ns, `
apiVersion: v1
kind: Pod
metadata:
  name: strict
  annotations: {log-bridge.dev/files: "/srv/app.log,/var/log/app/*.log"}
spec:
  restartPolicy: Never
  securityContext: {runAsNonRoot: true, runAsUser: 1234, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: app
    image: log-bridge.test/rotator:1
    command: [sh, -c, 'umask 077; echo file > /srv/app.log; echo directory > /var/log/app/a.log; cat /var/log/app/README; test ! -e /var/run/secrets/kubernetes.io/serviceaccount/no']
    securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
`)
	got := lines(t, "both lines", func(got []string) bool { return len(got) >= 2 }, "-n", ns, "strict", "-c", "log-bridge")
	if text := strings.Join(got, " "); text != "file directory" && text != "directory file" {
		t.Errorf("have %q, want the lines file and directory", got)
	}
	if out := kubectl(t, "logs", "-n", ns, "strict", "-c", "app"); out != "read me\n" {
		t.Errorf("the application read %q from its image's README, want %q", out, "read me\n")
	}
}

// An application that rotates by rename loses no line, and still sees its image's files,
// none of which is shipped.
func TestRenameRotation(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	apply(t, ns, `
apiVersion: v1
kind: Pod
metadata:
  name: rotating
  annotations: {log-bridge.dev/files: /var/log/app/app.log}
spec:
  restartPolicy: Never
  containers:
  - name: app
    image: log-bridge.test/rotator:1
    command:
    - sh
    - -ec
    - |
      cd /var/log/app
      cat README link old/app.log.0
      i=0
      for file in 1 2 3 4 5 6 7 8; do
        for line in $(seq 250); do i=$((i+1)); echo "line $i" >> app.log; done
        [ $file = 8 ] || mv app.log app.log.$file
        sleep 0.02 # longer than a tick of the clock that tells which file is the older
      done
`)
	got := lines(t, "2,000 lines", func(got []string) bool { return len(got) >= 2000 }, "-n", ns, "rotating", "-c", "log-bridge")
	equalLines(t, got, numbered("line", 2000))
	if out := kubectl(t, "logs", "-n", ns, "rotating", "-c", "app"); out != "read me\nread me\nof the image\n" {
		t.Errorf("the application sees %q of its image's files", out)
	}
}

// A volume of the user's is shared, a glob takes two files, and two containers may log
// to the same path.
func TestSharedVolumeGlobAndTwoContainers(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	apply(t, ns, `
apiVersion: v1
kind: Pod
metadata:
  name: several
  annotations:
    log-bridge.dev/format: prefix
    log-bridge.dev/files: |
      one:/data/logs/*.log
      one:/srv/app.log
      two:/srv/app.log
spec:
  restartPolicy: Never
  volumes: [{name: data, emptyDir: {}}]
  containers:
  - name: one
    image: log-bridge.test/rotator:1
    command: [sh, -ec, 'mkdir /data/logs; echo a > /data/logs/a.log; echo b > /data/logs/b.log; echo c > /data/logs/c.txt; echo one > /srv/app.log']
    volumeMounts: [{name: data, mountPath: /data}]
  - name: two
    image: log-bridge.test/rotator:1
    command: [sh, -ec, 'echo two > /srv/app.log']
`)
	got := lines(t, "four lines", func(got []string) bool { return len(got) >= 4 }, "-n", ns, "several", "-c", "log-bridge")
	want := map[string]bool{"one:/data/logs/a.log a": true, "one:/data/logs/b.log b": true, "one:/srv/app.log one": true, "two:/srv/app.log two": true}
	for _, line := range got {
		if !want[line] {
			t.Errorf("unexpected or repeated line %q", line)
		}
		delete(want, line)
	}
	if len(want) > 0 {
		t.Errorf("missing: %v; have %q", want, got)
	}
}

// A mistake is reported where the user looks.
func TestMistake(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	apply(t, ns, strings.Replace(plainDeployment, "labels: {app: plain}\n    spec", "labels: {app: plain}\n      annotations: {log-bridge.dev/files: app.log}\n    spec", 1))
	eventually(t, "the sentence in the ReplicaSet's events", func() (bool, string) {
		out := kubectl(t, "-n", ns, "describe", "replicaset")
		return strings.Contains(out, `log-bridge.dev/files: "app.log" is not an absolute path; write`), out
	})
}

// The sidecar is killed in the middle: it comes back, and no line is missing.
func TestSidecarKilled(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	apply(t, ns, `
apiVersion: v1
kind: Pod
metadata:
  name: killed
  annotations: {log-bridge.dev/files: /srv/app.log}
spec:
  terminationGracePeriodSeconds: 5
  containers:
  - name: app
    image: log-bridge.test/rotator:1
    command: [sh, -c, 'i=0; while true; do i=$((i+1)); echo "line $i" >> /srv/app.log; usleep 2000; done']
`)
	lines(t, "500 lines", func(got []string) bool { return len(got) >= 500 }, "-n", ns, "killed", "-c", "log-bridge")
	id := sidecarID(t, ns, "killed")
	killSidecar(t, id)
	eventually(t, "a new sidecar container", func() (bool, string) { now := sidecarID(t, ns, "killed"); return now != "" && now != id, now })
	current := lines(t, "500 more lines", func(got []string) bool { return len(got) >= 500 }, "-n", ns, "killed", "-c", "log-bridge")
	before := lines(t, "the lines before", func(got []string) bool { return len(got) >= 500 }, "-n", ns, "killed", "-c", "log-bridge", "--previous")

	// After SIGKILL at most the block under way comes twice, and nothing is missing.
	number := func(line string) (n int) {
		if _, err := fmt.Sscanf(line, "line %d", &n); err != nil {
			t.Fatalf("not a line: %q", line)
		}
		return n
	}
	equalLines(t, before, numbered("line", len(before)))
	first := number(current[0])
	if first > len(before)+1 {
		t.Errorf("lines %d to %d are missing", len(before)+1, first-1)
	}
	if repeated := len(before) - first + 1; repeated*len("line 1000\n") > 64<<10 {
		t.Errorf("%d lines came twice, more than one block of 64 KiB", repeated)
	}
	for i, line := range current {
		if number(line) != first+i {
			t.Fatalf("line %d after the restart: have %q, want line %d", i+1, line, first+i)
		}
	}
}

// sidecarID is the id of the running sidecar container of a pod, or nothing.
func sidecarID(t *testing.T, ns, pod string) string {
	t.Helper()
	out := kubectl(t, "-n", ns, "get", "pod", pod, "-o", `jsonpath={.status.initContainerStatuses[?(@.name=="log-bridge")].state.running.startedAt} {.status.initContainerStatuses[?(@.name=="log-bridge")].containerID}`)
	started, id, _ := strings.Cut(out, " ")
	if started == "" {
		return ""
	}
	return strings.TrimPrefix(id, "containerd://")
}
