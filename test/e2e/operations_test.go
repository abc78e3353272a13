package e2e

import (
	"strings"
	"testing"
)

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
