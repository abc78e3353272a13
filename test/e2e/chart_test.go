package e2e

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// helm runs Helm in a namespace.
func helm(t *testing.T, ns string, args ...string) (string, error) {
	t.Helper()
	return output(command(bed.helm, append(args, "--namespace", ns, "--kubeconfig", bed.kubeconfig)...))
}

// another installs the chart a second time, as release another, and uninstalls it with the test.
// Its parts are named another-log-bridge. It serves its own namespace, too.
func another(t *testing.T, ns string, values ...string) {
	t.Helper()
	t.Cleanup(func() {
		if _, err := helm(t, ns, "uninstall", "another", "--wait", "--ignore-not-found"); err != nil {
			t.Error(err)
		}
	})
	args := []string{"upgrade", "--install", "another", filepath.Join(bed.top, "charts/log-bridge"),
		"--set", "image.tag=test", "--set", "webhook.image.tag=test", "--set", "webhook.excludeOwnNamespace=false", "--wait", "--timeout", "3m"}
	if _, err := helm(t, ns, append(args, values...)...); err != nil {
		t.Fatal(err)
	}
}

// helm test shows that an annotated pod gets the sidecar. It leaves nothing after a success, and its
// pod with the reason after a failure.
func TestHelmTest(t *testing.T) {
	ns := namespace(t)
	injected(t, ns, "before")
	left := func() string {
		return kubectl(t, "get", "-A", "pods,serviceaccounts,roles,rolebindings", "-l", "app.kubernetes.io/component=test", "-o", "name")
	}
	if out, err := helm(t, "log-bridge", "test", "log-bridge", "--timeout", "3m"); err != nil || !strings.Contains(out, "Succeeded") {
		t.Errorf("helm test: %v\n%s", err, out)
	}
	if now := left(); now != "" {
		t.Errorf("after a success there are\n%s", now)
	}

	webhookDown(t)
	t.Cleanup(func() { kubectl(t, "-n", "log-bridge", "delete", "pod", "log-bridge-test", "--ignore-not-found") })
	if out, err := helm(t, "log-bridge", "test", "log-bridge", "--timeout", "3m"); err == nil {
		t.Errorf("helm test succeeds without a webhook:\n%s", out)
	}
	if now := left(); strings.TrimSpace(now) != "pod/log-bridge-test" {
		t.Errorf("after a failure there are\n%s", now)
	}
	if out := kubectl(t, "-n", "log-bridge", "logs", "log-bridge-test"); !strings.Contains(out, "mistake LB0807: an annotated pod does not get the sidecar") {
		t.Errorf("the pod says\n%s", out)
	}
}

// The pods that keep the sidecar's image on the nodes run where restricted is enforced, and cost
// next to nothing.
func TestPrePull(t *testing.T) {
	ns := namespace(t, "pod-security.kubernetes.io/enforce=restricted")
	another(t, ns, "--set", "webhook.replicas=0", "--set", "prePull.enabled=true")
	kubectl(t, "-n", ns, "rollout", "status", "daemonset/another-log-bridge-pre-pull", "--timeout=180s")
	pod := strings.TrimSpace(kubectl(t, "-n", ns, "get", "pods", "-l", "app.kubernetes.io/component=pre-pull", "-o", "jsonpath={.items[*].metadata.name}"))
	if pod == "" || strings.Contains(pod, " ") {
		t.Fatalf("pods of a DaemonSet on one node: %q", pod)
	}
	id := strings.TrimPrefix(kubectl(t, "-n", ns, "get", "pod", pod, "-o", "jsonpath={.status.containerStatuses[0].containerID}"), "containerd://")
	out, err := output(command(bed.cluster, "exec", "--name", clusterName(), "--", "ctr", "-n", "k8s.io", "tasks", "ps", id))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(strings.Split(strings.TrimSpace(out), "\n")[1])
	status, err := output(command(bed.cluster, "exec", "--name", clusterName(), "--", "cat", "/proc/"+fields[0]+"/status"))
	if err != nil {
		t.Fatal(err)
	}
	_, rss, _ := strings.Cut(status, "VmRSS:")
	var kib int
	if _, err := fmt.Sscan(rss, &kib); err != nil || kib > 16<<10 {
		t.Errorf("resident memory: %d KiB (%v), want less than 16 MiB", kib, err)
	}
	if out := kubectl(t, "-n", ns, "logs", pod); out != "" {
		t.Errorf("it says\n%s", out)
	}
}

// An upgrade of the chart, with images and values of another version, touches no running pod. One
// that the previous version has injected keeps its sidecar, which continues even after it was killed
// afterwards; a new pod gets the new one.
func TestUpgradeKeepsPods(t *testing.T) {
	ns := namespace(t)
	var tars []string
	for name, file := range map[string]string{"log-bridge": "Dockerfile.sidecar", "log-bridge-webhook": "Dockerfile.webhook"} {
		tar := filepath.Join(t.TempDir(), name+".tar")
		if _, err := output(command(bed.cluster, "build", "--file", filepath.Join(bed.top, file), "--tag", "ghcr.io/log-bridge/"+name+":previous",
			"--build-arg", "VERSION=0.0.9", "--output", tar, bed.top)); err != nil {
			t.Fatal(err)
		}
		tars = append(tars, tar)
	}
	if _, err := output(command(bed.cluster, append([]string{"load", "--name", clusterName()}, tars...)...)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := install(); err != nil {
			t.Error(err)
		}
	})
	if _, err := helm(t, "log-bridge", "upgrade", "log-bridge", filepath.Join(bed.top, "charts/log-bridge"), "--wait", "--timeout", "3m",
		"--set", "image.tag=previous", "--set", "webhook.image.tag=previous", "--set", "sidecar.resources.requests.cpu=7m", "--set", "admissionPolicies.mistakes=Deny"); err != nil {
		t.Fatal(err)
	}
	app := func(name string) string {
		return fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: %s}
spec:
  selector: {matchLabels: {app: %s}}
  template:
    metadata:
      labels: {app: %s}
      annotations: {log-bridge.dev/files: "/srv/app.log,/var/log/app/*.log"}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: app
        image: log-bridge.test/rotator:1
        command: [sh, -c, 'i=0; while true; do i=$((i+1)); echo "line $i" >> /srv/app.log; usleep 100000; done']
`, name, name, name)
	}
	// An old webhook pod answers until it has ended, and the rollout does not wait for that.
	ended := func(tag string) {
		t.Helper()
		eventually(t, "the webhook's pods of "+tag+" to end", func() (bool, string) {
			out := kubectl(t, "-n", "log-bridge", "get", "pods", "-l", "app.kubernetes.io/component=webhook", "-o", "jsonpath={.items[*].spec.containers[*].image}")
			return !strings.Contains(out, ":"+tag), out
		})
	}
	ended("test")
	apply(t, ns, app("old"))
	kubectl(t, "-n", ns, "rollout", "status", "deployment/old", "--timeout=180s")
	// Everything that distinguishes a pod from its successor, and its containers from theirs.
	state := func() string {
		return kubectl(t, "-n", ns, "get", "pods", "-l", "app=old", "-o", `jsonpath={range .items[*]}{.metadata.uid} {.metadata.annotations.log-bridge\.dev/status} {.spec.initContainers[*].image} {.spec.initContainers[*].resources.requests.cpu} {.status.initContainerStatuses[*].containerID} {.status.containerStatuses[*].containerID}{"\n"}{end}`)
	}
	before := state()
	if !strings.Contains(before, `"version":"0.0.9"`) || !strings.Contains(before, "log-bridge:previous") || !strings.Contains(before, " 7m ") {
		t.Fatalf("the pod is not of the previous version: %s", before)
	}

	if err := install(); err != nil {
		t.Fatal(err)
	}
	if after := state(); after != before {
		t.Errorf("the upgrade changed running pods:\nbefore %s\nafter  %s", before, after)
	}
	ended("previous")
	apply(t, ns, app("new"))
	kubectl(t, "-n", ns, "rollout", "status", "deployment/new", "--timeout=180s")
	if image := kubectl(t, "-n", ns, "get", "pods", "-l", "app=new", "-o", `jsonpath={.items[*].spec.initContainers[?(@.name=="log-bridge")].image}`); image != "ghcr.io/log-bridge/log-bridge:test" {
		t.Errorf("a new pod gets %s", image)
	}

	pod := kubectl(t, "-n", ns, "get", "pods", "-l", "app=old", "-o", "jsonpath={.items[*].metadata.name}")
	lines(t, "lines before the kill", atLeast(20), "-n", ns, pod, "-c", "log-bridge")
	id := sidecarID(t, ns, pod)
	killSidecar(t, id)
	eventually(t, "a new sidecar container", func() (bool, string) { now := sidecarID(t, ns, pod); return now != "" && now != id, now })
	first := lines(t, "the killed one's lines", atLeast(20), "-n", ns, pod, "-c", "log-bridge", "--previous")
	second := lines(t, "lines after the kill", atLeast(20), "-n", ns, pod, "-c", "log-bridge")
	// The last line of what was killed, and what it may have repeated.
	next := 0
	for _, line := range append(first, second...) {
		var n int
		if _, err := fmt.Sscanf(line, "line %d", &n); err != nil {
			t.Fatalf("have %q", line)
		}
		if n > next+1 {
			t.Fatalf("line %d comes after line %d", n, next)
		}
		next = max(next, n)
	}
	if next <= len(first) {
		t.Errorf("nothing came after line %d", next)
	}
}

// Two releases of the chart in one cluster: one injects and says which it is, the other leaves its pods
// alone and names it, and the check reports both.
func TestTwoReleases(t *testing.T) {
	ns := namespace(t)
	another(t, ns, "--set", "webhook.replicas=1")
	eventually(t, "the second release to inject", func() (bool, string) {
		out := dryRun(t, ns, annotatedPod, `--output=jsonpath={.metadata.annotations.log-bridge\.dev/status} {.spec.initContainers[*].name}`)
		// Its configuration's name, another-log-bridge, comes before log-bridge.
		return strings.Contains(out, `"release":"`+ns+`/another"`) && strings.HasSuffix(out, " log-bridge"), out
	})
	apply(t, ns, `
apiVersion: v1
kind: Pod
metadata: {name: both, annotations: {log-bridge.dev/files: "/srv/app.log,/var/log/app/app.log"}}
spec:
  restartPolicy: Never
  containers:
  - name: app
    image: log-bridge.test/rotator:1
    command: [sh, -c, 'echo line > /srv/app.log']
`)
	equalLines(t, lines(t, "the line", atLeast(1), "-n", ns, "both", "-c", "log-bridge"), []string{"line"})
	if names := containerNames(t, kubectl(t, "-n", ns, "get", "pod", "both", "-o", "json")); names != "log-bridge log-bridge-seed-app | app" {
		t.Errorf("containers %s", names)
	}
	eventually(t, "the first release's word about it", func() (bool, string) {
		out := kubectl(t, "-n", "log-bridge", "logs", "-l", "app.kubernetes.io/component=webhook", "--tail=-1")
		for line := range strings.Lines(out) {
			if strings.Contains(line, `"name":"both"`) && strings.Contains(line, `"reason":"already-injected"`) && strings.Contains(line, `"by":"`+ns+`/another `) {
				return true, ""
			}
		}
		return false, out
	})
	told(t, ns, 0, "MutatingWebhookConfigurations: has warnings\n  warning LB0821: log-bridge is installed 2 times: MutatingWebhookConfiguration another-log-bridge of release another in namespace "+ns,
		"; MutatingWebhookConfiguration log-bridge of release log-bridge in namespace log-bridge", "another-log-bridge injects")

	// A release of a name that another namespace has already: Helm refuses, rather than take the first
	// one's parts away.
	if out, err := helm(t, ns, "install", "log-bridge", filepath.Join(bed.top, "charts/log-bridge")); err == nil || !strings.Contains(err.Error(), "invalid ownership metadata") {
		t.Errorf("helm install: %s %v; docs/operations.md has other words", out, err)
	}
}

// Helm 3 installs, upgrades, tests and uninstalls the chart too, and Helm 4 may take over between. The
// caBundle, which the webhook writes, outlives all of it.
func TestHelm3(t *testing.T) {
	ns := namespace(t)
	webhookDown(t)
	path, err := output(command(bed.cluster, "tool", "helm3"))
	if err != nil {
		t.Fatal(err)
	}
	helm3 := strings.TrimSpace(path)
	three := func(args ...string) string {
		t.Helper()
		out, err := output(command(helm3, append(args, "--namespace", ns, "--kubeconfig", bed.kubeconfig)...))
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if version, err := output(command(helm3, "version", "--short")); err != nil || !strings.HasPrefix(version, "v3.") {
		t.Fatalf("this is Helm %s, %v", version, err)
	}
	bundle := func() string {
		return kubectl(t, "get", "mutatingwebhookconfiguration", "another-log-bridge", "-o", "jsonpath={.webhooks[0].clientConfig.caBundle}")
	}
	t.Cleanup(func() {
		if _, err := helm(t, ns, "uninstall", "another", "--wait", "--ignore-not-found"); err != nil {
			t.Error(err)
		}
	})
	upgrade := []string{"upgrade", "--install", "another", filepath.Join(bed.top, "charts/log-bridge"),
		"--set", "webhook.excludeOwnNamespace=false", "--set", "image.tag=test", "--set", "webhook.image.tag=test", "--wait", "--timeout", "3m"}
	three(upgrade...)
	injected(t, ns, "by what Helm 3 has installed")
	first := bundle()
	three(append(upgrade, "--set", "webhook.replicas=1")...)
	injected(t, ns, "by what Helm 3 has upgraded")
	if _, err := helm(t, ns, append(upgrade, "--set", "webhook.timeoutSeconds=3")...); err != nil {
		t.Fatal(err)
	}
	injected(t, ns, "by what Helm 4 has upgraded")
	three(append(upgrade, "--set", "webhook.timeoutSeconds=4")...)
	injected(t, ns, "by what Helm 3 has upgraded again")
	if now := bundle(); first == "" || now != first {
		t.Errorf("the caBundle was %q, and is %q", first, now)
	}
	if out := three("test", "another", "--timeout", "3m"); !strings.Contains(out, "Succeeded") {
		t.Errorf("helm test:\n%s", out)
	}
	three("uninstall", "another", "--wait")
	eventually(t, "nothing of the release", func() (bool, string) {
		out := kubectl(t, "get", "all,secrets,serviceaccounts,roles,rolebindings,poddisruptionbudgets,clusterroles,clusterrolebindings,mutatingwebhookconfigurations,validatingadmissionpolicies,validatingadmissionpolicybindings", "-A", "-l", "app.kubernetes.io/instance=another", "-o", "name")
		return out == "", out
	})
}

// The metrics come through the Service, as the ServiceMonitor asks for them, and the log of the pods is
// one line of JSON a decision.
func TestMetricsAndLog(t *testing.T) {
	ns := namespace(t)
	injected(t, ns, "for a number to count")
	pods := strings.Fields(kubectl(t, "-n", "log-bridge", "get", "pods", "-l", "app.kubernetes.io/component=webhook", "-o", "jsonpath={.items[*].metadata.name}"))
	sum, logged := "", ""
	for _, pod := range pods {
		sum += kubectl(t, "get", "--raw", "/api/v1/namespaces/log-bridge/pods/"+pod+":8080/proxy/metrics")
		logged += kubectl(t, "-n", "log-bridge", "logs", pod)
	}
	sum += kubectl(t, "get", "--raw", "/api/v1/namespaces/log-bridge/services/log-bridge-webhook:metrics/proxy/metrics")
	if strings.Count(sum, "\nlog_bridge_certificate_expiration_timestamp_seconds 1.") != len(pods)+1 || !strings.Contains(sum, `log_bridge_injections_total{reason="",result="injected"}`) {
		t.Errorf("metrics of %d pods and the Service:\n%s", len(pods), sum)
	}
	found := false
	for line := range strings.Lines(logged) {
		var decision struct{ Msg, Namespace, GenerateName, Name, UID, Result, Duration string }
		if err := json.Unmarshal([]byte(line), &decision); err != nil {
			t.Errorf("this line is no JSON: %s", line)
		}
		if decision.Msg == "admission" && decision.Namespace == ns {
			found = true
			if decision.Name != "x" || decision.UID == "" || decision.Result != "injected" || decision.Duration == "" {
				t.Errorf("a decision without its parts: %s", line)
			}
		}
	}
	if !found {
		t.Errorf("no decision about namespace %s in\n%s", ns, logged)
	}
}

// The off-switches of docs/operations.md, with its own commands: a label takes a namespace out, deleting the
// configuration ends all injection, and an upgrade of the chart brings it back.
func TestOffSwitch(t *testing.T) {
	ns := namespace(t)
	off := func(when string) {
		t.Helper()
		if out := dryRun(t, ns, annotatedPod, "--output=jsonpath={.metadata.name} {.spec.initContainers[*].name}"); !strings.HasSuffix(out, "x ") {
			t.Errorf("%s: want the pod x without an init container, have %q", when, out)
		}
	}
	injected(t, ns, "before")

	kubectl(t, "label", "namespace", ns, "log-bridge.dev/inject=false")
	off("with the label")
	kubectl(t, "label", "namespace", ns, "log-bridge.dev/inject-")
	injected(t, ns, "without the label")

	kubectl(t, "delete", "mutatingwebhookconfiguration", "log-bridge")
	t.Cleanup(func() {
		if err := install(); err != nil {
			t.Error(err)
		}
		injected(t, ns, "after an upgrade")
	})
	off("without the configuration")
}
