package e2e

import (
	"slices"
	"strings"
	"testing"
)

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
