package main

import (
	"os/exec"
	"strings"
	"testing"
)

// TestDependencies: the sidecar costs each pod its memory, so what costs more than all the
// rest stays out: Kubernetes' libraries, net/http, encoding/json and their kin.
func TestDependencies(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for pkg := range strings.Lines(string(out)) {
		pkg = strings.TrimSpace(pkg)
		for _, heavy := range []string{"k8s.io/", "sigs.k8s.io/", "net/http", "encoding/json", "crypto/tls", "text/template", "github.com/prometheus/", "google.golang.org/"} {
			if pkg == heavy || strings.HasPrefix(pkg, heavy) || strings.HasPrefix(pkg, "vendor/"+heavy) {
				t.Errorf("the sidecar is built with %s", pkg)
			}
		}
		if first, _, _ := strings.Cut(pkg, "/"); strings.Contains(first, ".") && !strings.HasPrefix(pkg, "github.com/log-bridge/") &&
			!strings.HasPrefix(pkg, "golang.org/x/sys/") {
			t.Errorf("the sidecar is built with %s, which is not on its short list", pkg)
		}
	}
}
