package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// TestRules: with as many rules as there may be, a rule of the chart bridges pods that have no annotation, and no others. Other
// pods never cost a call, and do not depend on the webhook. When the rule is gone, a new pod is as before the chart
// was installed.
func TestRules(t *testing.T) {
	ns := namespace(t, "log-bridge-test=rules")
	var values strings.Builder
	values.WriteString(`
rules:
- name: rotator
  namespaceSelector: {matchLabels: {log-bridge-test: rules}}
  podSelector: {matchExpressions: [{key: app, operator: In, values: [legacy, plain]}]}
  annotations: {files: /var/log/app/*.log}
`)
	for i := range 199 {
		fmt.Fprintf(&values, `
- name: other-%[1]d
  namespaceSelector: {matchLabels: {team: team-%[1]d}}
  podSelector: {matchLabels: {app.kubernetes.io/name: other-%[1]d}}
  annotations: {files: /var/log/app/*.log}
`, i)
	}
	upgrade := func(more ...string) {
		t.Helper()
		args := append([]string{"upgrade", "log-bridge", filepath.Join(bed.top, "charts/log-bridge"), "--namespace", "log-bridge",
			"--kubeconfig", bed.kubeconfig, "--set", "image.tag=test", "--set", "webhook.image.tag=test", "--wait", "--timeout", "3m"}, more...)
		if _, err := output(command(bed.helm, args...)); err != nil {
			t.Fatal(err)
		}
	}
	upgrade("--values", writeFile(t, values.String()))
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
	apply(t, ns, plainDeployment)
	kubectl(t, "-n", ns, "rollout", "status", "deployment/plain", "--timeout=180s")
	if have := kubectl(t, "-n", ns, "get", "pods", "-l", "app=plain", "-o", "jsonpath={.items[*].spec.initContainers[*].name}"); !strings.HasPrefix(have, "log-bridge ") {
		t.Errorf("the init containers of the pod of the deployment that the rule selects: %q", have)
	}
	// etcd limits an object to 1.5 MiB. docs/rules.md has the figure.
	configuration := kubectl(t, "get", "--raw", "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/log-bridge")
	t.Logf("the MutatingWebhookConfiguration with 200 rules has %d KiB", len(configuration)>>10)
	if len(configuration) > 3<<18 {
		t.Errorf("the MutatingWebhookConfiguration with 200 rules has %d bytes, more than half of what etcd takes", len(configuration))
	}

	// unselected creates a pod that no rule selects, while the API server counts.
	unselected := func(when, name string) {
		t.Helper()
		calls, ignored := webhookCalls(t), failOpen(t)
		apply(t, ns, pod(name, "modern"))
		if out := kubectl(t, "-n", ns, "get", "pod", name, "-o", "json"); containers(out) || strings.Contains(out, "log-bridge.dev/") {
			t.Errorf("%s, a pod that no rule selects is\n%s", when, out)
		}
		if c, i := webhookCalls(t)-calls, failOpen(t)-ignored; c != 0 || i != 0 {
			t.Errorf("%s, a pod that no rule selects cost %d calls of the webhook, and %d that failed", when, c, i)
		}
	}
	unselected("with the webhook", "other")
	calls := webhookCalls(t)
	dryRun(t, ns, pod("counted", "legacy"))
	if webhookCalls(t) == calls {
		t.Error("the API server did not count a call for a pod that a rule selects")
	}
	t.Run("webhook down", func(t *testing.T) {
		webhookDown(t)
		unselected("without the webhook", "down")
		ignored := failOpen(t)
		eventually(t, "the warning about a pod that a rule selects", func() (bool, string) {
			out := dryRun(t, ns, pod("missed", "legacy"))
			return strings.Contains(out, "was admitted without the sidecar") && strings.Contains(out, "created"), out
		})
		if failOpen(t) == ignored {
			t.Error("the API server did not count the call that it gave up")
		}
	})

	upgrade()
	kubectl(t, "-n", ns, "delete", "pod", "-l", "app=plain", "--wait")
	kubectl(t, "-n", ns, "rollout", "status", "deployment/plain", "--timeout=180s")
	if have, err := podAsMade(ns); err != nil || have != bed.plain {
		t.Errorf("without the rule, a new pod is not as before the chart was installed: %v\nhave:\n%s\nwant:\n%s", err, have, bed.plain)
	}
}
