package e2e

import (
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestSidecarDownAtTheEnd shows what docs/delivery.md says nobody can promise: a sidecar that waits for its restart when
// the application ends is not started again. What it had not delivered is lost, and the Job is complete all the same.
func TestSidecarDownAtTheEnd(t *testing.T) {
	ns := namespace(t)
	apply(t, ns, `
apiVersion: batch/v1
kind: Job
metadata: {name: ends}
spec:
  backoffLimit: 0
  template:
    metadata:
      annotations: {log-bridge.dev/files: /work/job.log}
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: 5
      containers:
      - name: app
        image: log-bridge.test/rotator:1
        command: [sh, -c, 'echo first > /work/job.log; while [ ! -e /tmp/go ]; do usleep 100000; done; echo last >> /work/job.log']
`)
	logs := []string{"-n", ns, "job/ends", "-c", "log-bridge"}
	lines(t, "the first line", func(got []string) bool { return len(got) == 1 && got[0] == "first" }, logs...)
	pod := strings.TrimSpace(kubectl(t, "-n", ns, "get", "pods", "-l", "job-name=ends", "-o", "jsonpath={.items[0].metadata.name}"))

	// Each kill makes the kubelet wait longer before it starts the container again: 10 seconds after the second, 20 after
	// the third, 40 after the fourth. That is long enough for the application to end, however slow the machine is.
	const state = `jsonpath={.status.initContainerStatuses[?(@.name=="log-bridge")].restartCount} {.status.initContainerStatuses[?(@.name=="log-bridge")].state.waiting.reason}`
	for kills := 0; ; {
		restarts, reason, _ := strings.Cut(kubectl(t, "-n", ns, "get", "pod", pod, "-o", state), " ")
		if n, _ := strconv.Atoi(restarts); reason == "CrashLoopBackOff" && n >= 3 {
			break
		}
		if id := sidecarID(t, ns, pod); id != "" {
			if kills++; kills > 10 {
				t.Fatalf("after %s restarts the sidecar does not wait for the next one", restarts)
			}
			killSidecar(t, id)
			eventually(t, "the sidecar to be gone", func() (bool, string) { now := sidecarID(t, ns, pod); return now != id, now })
		}
	}
	kubectl(t, "-n", ns, "exec", pod, "-c", "app", "--", "touch", "/tmp/go")
	kubectl(t, "-n", ns, "wait", "--for=condition=complete", "job/ends", "--timeout=180s")
	for _, more := range [][]string{nil, {"--previous"}} {
		out, err := tryKubectl(append([]string{"-n", ns, "logs", pod, "-c", "log-bridge"}, more...)...)
		if err == nil && strings.Contains(out, "last") {
			t.Errorf("the last line came: docs/delivery.md may promise more than it does\n%v\n%s\n%s", more, out, kubectl(t, "-n", ns, "get", "pod", pod, "-o", "jsonpath={.status}"))
		}
	}
}

// TestRestartedWithoutWebhook: who restarts a Deployment while no webhook answers sees no warning, since the pods are
// made by a controller. check --cluster finds them afterwards.
func TestRestartedWithoutWebhook(t *testing.T) {
	ns := namespace(t)
	apply(t, ns, `
apiVersion: apps/v1
kind: Deployment
metadata: {name: x}
spec:
  selector: {matchLabels: {a: b}}
  template:
    metadata: {labels: {a: b}, annotations: {log-bridge.dev/files: /srv/app.log}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: app, image: log-bridge.test/rotator:1, command: [sleep, "3600"]}]
`)
	kubectl(t, "-n", ns, "rollout", "status", "deployment/x", "--timeout=180s")
	// sidecars are the init containers of each pod that is not being deleted.
	sidecars := func() (all []string) {
		const each = `jsonpath={range .items[*]}{.metadata.deletionTimestamp}={.spec.initContainers[*].name} {end}`
		for _, pod := range strings.Fields(kubectl(t, "-n", ns, "get", "pods", "-o", each)) {
			if deleted, names, _ := strings.Cut(pod, "="); deleted == "" {
				all = append(all, names)
			}
		}
		return all
	}
	if have := sidecars(); !slices.Equal(have, []string{"log-bridge"}) {
		t.Fatalf("the pod is not injected: %q", have)
	}
	webhookDown(t)
	cmd := command(bed.kubectl, "--kubeconfig", bed.kubeconfig, "-n", ns, "rollout", "restart", "deployment/x")
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Contains(string(out), "Warning") {
		t.Errorf("kubectl rollout restart printed\n%s%v", out, err)
	}
	kubectl(t, "-n", ns, "rollout", "status", "deployment/x", "--timeout=180s")
	eventually(t, "only a pod without the sidecar", func() (bool, string) {
		have := sidecars()
		return slices.Equal(have, []string{""}), strings.Join(have, " ")
	})
	told(t, ns, 1, "mistake LB0701: ", "annotated without: 1")
}

// TestFirstInitContainerPatched: a webhook that patches the first init container, whatever it is, hits the sidecar.
// docs/compatibility.md says so; the application's own init container stays as it was.
func TestFirstInitContainerPatched(t *testing.T) {
	h := startHooks(t)
	ns := namespace(t)
	h.configure(t, "zz-first-image", ns, "/first-image")
	out := dryRun(t, ns, `
apiVersion: v1
kind: Pod
metadata: {name: x, annotations: {log-bridge.dev/files: /srv/app.log}}
spec:
  initContainers: [{name: setup, image: log-bridge.test/rotator:1, command: ["true"]}]
  containers: [{name: app, image: log-bridge.test/rotator:1, command: [sleep, "3600"]}]
`, `--output=jsonpath={range .spec.initContainers[*]}{.name}={.image} {end}`)
	if want := "log-bridge=example.com/other:1 setup=log-bridge.test/rotator:1 "; !strings.HasSuffix(out, want) {
		t.Errorf("have %q, want %q", out, want)
	}
	if h.calls("/first-image") == 0 {
		t.Error("the webhook was not called")
	}
}
