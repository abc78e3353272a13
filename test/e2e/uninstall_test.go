package e2e

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Installing twice and uninstalling leaves nothing of the chart in the cluster.
func TestUninstallLeavesNothing(t *testing.T) {
	ns := namespace(t)
	kinds := strings.Fields(kubectl(t, "api-resources", "--verbs=list", "--output=name"))
	kinds = slices.DeleteFunc(kinds, func(kind string) bool {
		// These come and go with the cluster's own life.
		return strings.HasPrefix(kind, "events") || strings.HasPrefix(kind, "leases") || strings.HasPrefix(kind, "pods") ||
			strings.HasPrefix(kind, "componentstatuses") || strings.HasPrefix(kind, "replicasets") || strings.HasPrefix(kind, "controllerrevisions")
	})
	objects := func() []string {
		out := kubectl(t, "get", strings.Join(kinds, ","), "-A", "-o", "custom-columns=KIND:.kind,NS:.metadata.namespace,NAME:.metadata.name", "--no-headers")
		all := strings.Split(out, "\n")
		for i, o := range all {
			// kubectl pads to the longest name of the whole list, which another test may have brought.
			all[i] = strings.Join(strings.Fields(o), " ")
		}
		slices.Sort(all)
		// Those of other tests are not ours to judge.
		return slices.DeleteFunc(all, func(o string) bool {
			return strings.Contains(o, " test") && !strings.Contains(o, ns)
		})
	}
	before := objects()
	helm := func(args ...string) {
		t.Helper()
		if _, err := output(command(bed.helm, append(args, "--namespace", ns, "--kubeconfig", bed.kubeconfig)...)); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		helm("upgrade", "--install", "second", filepath.Join(bed.top, "charts/log-bridge"),
			"--set", "image.tag=test", "--set", "webhook.image.tag=test", "--wait", "--timeout", "3m")
	}
	if during := objects(); len(during) <= len(before) {
		t.Fatalf("the chart made no object: have %d, had %d", len(during), len(before))
	}
	helm("uninstall", "second", "--wait")
	eventually(t, "the objects as before", func() (bool, string) {
		left := slices.DeleteFunc(objects(), func(o string) bool { return slices.Contains(before, o) })
		return len(left) == 0, strings.Join(left, "\n")
	})
}
