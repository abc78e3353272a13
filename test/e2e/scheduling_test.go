package e2e

import (
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/resource"
)

// The sidecar needs room, as docs/sharing.md says: a pod that fits its node exactly becomes Pending,
// and a request of 0 lets it fit again; a BestEffort pod becomes Burstable, which a quota may not allow.
func TestRoom(t *testing.T) {
	ns := namespace(t)
	// What stays on the node. Pods of other tests that are still ending give their room back.
	free := resource.MustParse(kubectl(t, "get", "nodes", "-o", "jsonpath={.items[0].status.allocatable.cpu}"))
	staying := `go-template={{range .items}}{{if not .metadata.deletionTimestamp}}{{range .spec.containers}}{{with .resources.requests}}{{with .cpu}}{{.}} {{end}}{{end}}{{end}}{{end}}{{end}}`
	for _, request := range strings.Fields(kubectl(t, "get", "pods", "-A", "-o", staying)) {
		free.Sub(resource.MustParse(request))
	}
	pod := func(name, annotations string) string {
		return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s, annotations: {log-bridge.dev/files: /srv/app.log%s}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: app
    image: log-bridge.test/rotator:1
    resources: {requests: {cpu: %s}}
    command: [sh, -c, 'echo fits > /srv/app.log; sleep 3600']
`, name, annotations, &free)
	}
	apply(t, ns, pod("tight", ""))
	eventually(t, "the pod to be Pending", func() (bool, string) {
		out := kubectl(t, "-n", ns, "get", "pod", "tight", "-o", `jsonpath={.status.phase} {.status.conditions[?(@.type=="PodScheduled")].message}`)
		return strings.HasPrefix(out, "Pending ") && strings.Contains(out, "Insufficient cpu"), out
	})
	kubectl(t, "-n", ns, "delete", "pod", "tight")
	apply(t, ns, pod("fits", `, log-bridge.dev/cpu-request: "0"`))
	equalLines(t, lines(t, "the line", atLeast(1), "-n", ns, "fits", "-c", "log-bridge"), []string{"fits"})

	apply(t, ns, `
apiVersion: v1
kind: ResourceQuota
metadata: {name: best-effort-only}
spec: {hard: {pods: "0"}, scopes: [NotBestEffort]}
`)
	plain := strings.Replace(annotatedPod, ", annotations: {log-bridge.dev/files: /app/app.log}", "", 1)
	eventually(t, "the quota to refuse a pod that was BestEffort", func() (bool, string) {
		out := dryRun(t, ns, annotatedPod)
		return strings.Contains(out, "exceeded quota: best-effort-only"), out
	})
	if out := dryRun(t, ns, plain); !strings.Contains(out, "created") {
		t.Errorf("the same pod without the annotation: %s", out)
	}
}
