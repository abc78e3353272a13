package e2e

import (
	"path/filepath"
	"strings"
	"testing"
)

// A rule of the chart bridges a pod that has no annotation, and no other pod; when the rule is gone, a new pod is as its
// manifest says.
func TestRules(t *testing.T) {
	ns := namespace(t, "log-bridge-test=rules")
	values := writeFile(t, `
rules:
- name: rotator
  namespaceSelector: {matchLabels: {log-bridge-test: rules}}
  podSelector: {matchLabels: {app: legacy}}
  annotations: {files: /var/log/app/*.log}
`)
	upgrade := func(more ...string) {
		t.Helper()
		args := append([]string{"upgrade", "log-bridge", filepath.Join(bed.top, "charts/log-bridge"), "--namespace", "log-bridge",
			"--kubeconfig", bed.kubeconfig, "--set", "image.tag=test", "--set", "webhook.image.tag=test", "--wait", "--timeout", "3m"}, more...)
		if _, err := output(command(bed.helm, args...)); err != nil {
			t.Fatal(err)
		}
	}
	upgrade("--values", values)
	t.Cleanup(func() { upgrade() })
	pod := func(name, app string) string {
		return `
apiVersion: v1
kind: Pod
metadata: {name: ` + name + `, labels: {app: ` + app + `}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: app
    image: log-bridge.test/rotator:1
    command: [sh, -ec, 'echo by-rule > /var/log/app/app.log; exec sleep 3600']
`
	}
	containers := func(out string) bool { return strings.Contains(out, `"name": "log-bridge"`) }
	eventually(t, "the rule in both replicas", func() (bool, string) {
		for range 8 {
			if out := dryRun(t, ns, pod("asked", "legacy"), "--output=json"); !containers(out) {
				return false, out
			}
		}
		return true, ""
	})
	apply(t, ns, pod("bridged", "legacy"))
	equalLines(t, lines(t, "the line of the pod that the rule selects", atLeast(1), "-n", ns, "bridged", "-c", "log-bridge"), []string{"by-rule"})
	if status := kubectl(t, "-n", ns, "get", "pod", "bridged", "-o", `jsonpath={.metadata.annotations.log-bridge\.dev/status}`); !strings.Contains(status, "rotator") {
		t.Errorf("the status does not name the rule: %s", status)
	}
	apply(t, ns, pod("other", "modern"))
	if out := kubectl(t, "-n", ns, "get", "pod", "other", "-o", "json"); containers(out) || strings.Contains(out, "log-bridge.dev/") {
		t.Errorf("a pod that no rule selects is\n%s", out)
	}
	upgrade()
	if out := dryRun(t, ns, pod("asked", "legacy"), "--output=json"); containers(out) {
		t.Errorf("without the rule, the pod is\n%s", out)
	}
}
