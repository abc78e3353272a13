package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// ephemeral is how many bytes of ephemeral storage a pod uses as the kubelet has measured them, 0
// before it has.
func ephemeral(t *testing.T, ns, pod string) int64 {
	t.Helper()
	node := kubectl(t, "get", "nodes", "-o", "jsonpath={.items[0].metadata.name}")
	var stats struct {
		Pods []struct {
			PodRef           struct{ Name, Namespace string }
			EphemeralStorage struct{ UsedBytes int64 } `json:"ephemeral-storage"`
		}
	}
	if err := json.Unmarshal([]byte(kubectl(t, "get", "--raw", "/api/v1/nodes/"+node+"/proxy/stats/summary")), &stats); err != nil {
		t.Fatal(err)
	}
	for _, p := range stats.Pods {
		if p.PodRef.Namespace == ns && p.PodRef.Name == pod {
			return p.EphemeralStorage.UsedBytes
		}
	}
	return 0
}

// A pod that keeps within its own ephemeral-storage limit is not evicted for the sidecar's log, which
// the kubelet counts too. What is seeded counts as well.
//
// The same pod whose sidecar is given next to nothing is evicted: the kubelet has measured by then,
// so the others are not alive just because it did not measure.
func TestEphemeralStorageLimit(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	pod := func(name, annotations, file string) string {
		return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s, annotations: {log-bridge.dev/files: %s%s}}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  containers:
  - name: app
    image: log-bridge.test/rotator:1
    resources: {limits: {ephemeral-storage: 30Mi}}
    command: [sh, -ec, 'yes "$(printf %%099d 7)" | head -n 200000 > %s; sleep 3600']
`, name, file, annotations, file)
	}
	apply(t, ns, pod("file", "", "/srv/app.log"))
	apply(t, ns, pod("directory", "", "/var/log/app/app.log"))
	for _, name := range []string{"file", "directory"} {
		eventually(t, "the kubelet to measure pod "+name, func() (bool, string) {
			used := ephemeral(t, ns, name)
			// Its log of 20 MB, and the same in the sidecar's log with a time before each line.
			return used > 40_000_000, fmt.Sprint(used, " bytes")
		})
	}

	apply(t, ns, pod("tight", `, log-bridge.dev/ephemeral-storage-limit: 1Mi, log-bridge.dev/ephemeral-storage-request: "0"`, "/srv/app.log"))
	const message = "Pod ephemeral local storage usage exceeds the total limit of containers"
	eventually(t, "the eviction of the one that is given too little", func() (bool, string) {
		out := kubectl(t, "-n", ns, "get", "pod", "tight", "-o", "jsonpath={.status.phase} {.status.reason} {.status.message}")
		return strings.Contains(out, "Evicted") && strings.Contains(out, message), out
	})
	for _, name := range []string{"file", "directory"} {
		out := kubectl(t, "-n", ns, "get", "pod", name, "-o", "jsonpath={.status.phase} {.status.initContainerStatuses[0].restartCount}")
		if out != "Running 0" {
			t.Errorf("pod %s: %s; it uses %d bytes", name, out, ephemeral(t, ns, name))
		}
	}
}

// The limit comes from a LimitRange as well, and counts in a quota, for which an annotation lowers it.
func TestEphemeralStorageOfNamespace(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	apply(t, ns, `
apiVersion: v1
kind: LimitRange
metadata: {name: x}
spec: {limits: [{type: Container, default: {ephemeral-storage: 40Mi}, defaultRequest: {ephemeral-storage: 20Mi}}]}
---
apiVersion: v1
kind: ResourceQuota
metadata: {name: x}
spec: {hard: {limits.ephemeral-storage: 90Mi, requests.ephemeral-storage: 25Mi}}
`)
	const of = `--output=jsonpath={.spec.containers[0].resources}{.spec.initContainers[?(@.name=="log-bridge")].resources}`
	pod := func(annotations string) string {
		return "apiVersion: v1\nkind: Pod\nmetadata: {name: x, annotations: {log-bridge.dev/files: /srv/app.log" + annotations + "}}\nspec: {containers: [{name: app, image: x}]}\n"
	}
	eventually(t, "the quota", func() (bool, string) {
		out := dryRun(t, ns, pod(""))
		return strings.Contains(out, "exceeded quota: x, requested: limits.ephemeral-storage=100Mi,requests.ephemeral-storage=30Mi"), out
	})
	out := dryRun(t, ns, pod(", log-bridge.dev/ephemeral-storage-limit: 50Mi, log-bridge.dev/ephemeral-storage-request: 1Mi"), of)
	if !strings.Contains(out, `{"limits":{"ephemeral-storage":"40Mi"},"requests":{"ephemeral-storage":"20Mi"}}`) ||
		!strings.Contains(out, `"ephemeral-storage":"50Mi"`) || !strings.Contains(out, `"ephemeral-storage":"1Mi"`) {
		t.Errorf("have %s", out)
	}
}
