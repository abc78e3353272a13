package e2e

import (
	"strings"
	"testing"
)

// kubectl drain evicts an injected pod only if told that the emptyDir may be deleted, as README.md
// says, and then no line is lost: the sidecar outlives the application and reads its log to the end.
func TestDrain(t *testing.T) {
	ns := namespace(t)
	apply(t, ns, `
apiVersion: apps/v1
kind: Deployment
metadata: {name: drained}
spec:
  selector: {matchLabels: {app: drained}}
  template:
    metadata: {labels: {app: drained}, annotations: {log-bridge.dev/files: /srv/app.log}}
    spec:
      containers:
      - name: app
        image: log-bridge.test/rotator:1
        # Ten thousand lines more when it is told to end.
        command: [sh, -c, 'end() { seq 101 10100 | sed "s/^/line /" >> /srv/app.log; exit; }; trap end TERM; seq 100 | sed "s/^/line /" >> /srv/app.log; while :; do sleep 1 & wait $!; done']
`)
	kubectl(t, "-n", ns, "rollout", "status", "deployment/drained", "--timeout=180s")
	pod := strings.TrimSpace(kubectl(t, "-n", ns, "get", "pods", "-o", "jsonpath={.items[*].metadata.name}"))
	node := kubectl(t, "get", "nodes", "-o", "jsonpath={.items[0].metadata.name}")
	stream := follow(t, "-n", ns, pod, "-c", "log-bridge")
	want := numbered("line", 10100)
	var have []string
	for len(have) < 100 {
		have = append(have, <-stream)
	}

	// Of this one node, only this pod, or everything else would go too.
	drain := []string{"drain", node, "--pod-selector=app=drained", "--timeout=180s"}
	t.Cleanup(func() { kubectl(t, "uncordon", node) })
	if _, err := tryKubectl(drain...); err == nil || !strings.Contains(err.Error(), "cannot delete Pods with local storage (use --delete-emptydir-data to override): "+ns+"/"+pod) {
		t.Errorf("kubectl drain says %v; README.md and docs/operations.md have other words", err)
	}
	kubectl(t, append(drain, "--delete-emptydir-data")...)
	for line := range stream {
		have = append(have, line)
	}
	equalLines(t, have, want)
}
