package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// The mode cert-manager, against cert-manager's own controllers: the certificate is made, the
// caBundle filled, and a renewed certificate is loaded without a pod that misses the
// sidecar. To compile them takes minutes, so this is not part of make test; see make cert-manager.
func TestCertManager(t *testing.T) {
	if os.Getenv("E2E_CERT_MANAGER") == "" {
		t.Skip("compiles cert-manager; make cert-manager runs it")
	}
	ns := namespace(t)
	webhookDown(t)
	module := filepath.Join(bed.top, "test/helpers/cert-manager")
	program := filepath.Join(bed.dir, "cert-manager")
	if _, err := output(command("go", "build", "-C", module, "-o", program, ".")); err != nil {
		t.Fatal(err)
	}
	dir, err := output(command("go", "list", "-C", module, "-m", "-f", "{{.Dir}}", "github.com/cert-manager/cert-manager"))
	if err != nil {
		t.Fatal(err)
	}
	crds := filepath.Join(strings.TrimSpace(dir), "deploy/crds")
	kubectl(t, "apply", "--server-side", "-f", crds)
	t.Cleanup(func() { kubectl(t, "delete", "-f", crds, "--timeout=120s") })
	kubectl(t, "wait", "--for=condition=Established", "crd/certificates.cert-manager.io", "crd/issuers.cert-manager.io", "crd/certificaterequests.cert-manager.io", "--timeout=120s")
	log, err := os.Create(filepath.Join(bed.dir, "cert-manager.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	manager := command(program, bed.kubeconfig)
	manager.Stdout, manager.Stderr = log, log
	if err := manager.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = manager.Process.Signal(syscall.SIGTERM)
		err := manager.Wait()
		if t.Failed() || err != nil {
			text, _ := os.ReadFile(log.Name())
			t.Logf("cert-manager: %v\n%s", err, text)
		}
	})

	// The pods wait for their Secret, and so for cert-manager.
	another(t, ns, "--set", "certificates.mode=cert-manager")
	injected(t, ns, "with a certificate of cert-manager")
	bundle := func() string {
		return kubectl(t, "get", "mutatingwebhookconfiguration", "another-log-bridge", "-o", "jsonpath={.webhooks[0].clientConfig.caBundle}")
	}
	first := bundle()
	another(t, ns, "--set", "certificates.mode=cert-manager", "--set", "webhook.timeoutSeconds=4")
	if now := bundle(); first == "" || now != first {
		t.Errorf("the caBundle was %q, and after an upgrade is %q", first, now)
	}

	serial := func() string {
		return kubectl(t, "-n", ns, "get", "secret", "another-log-bridge-webhook-tls", "--ignore-not-found", "-o", `jsonpath={.data.tls\.crt}`)
	}
	old := serial()
	_, stop := probing(t, ns)
	kubectl(t, "-n", ns, "delete", "secret", "another-log-bridge-webhook-tls")
	eventually(t, "another certificate", func() (bool, string) { now := serial(); return now != "" && now != old, now })
	eventually(t, "both pods to take over the certificate", func() (bool, string) {
		out := kubectl(t, "-n", ns, "logs", "-l", "app.kubernetes.io/component=webhook", "--tail=-1")
		return strings.Count(out, `"serving certificate read"`) == 4, out
	})
	injected(t, ns, "with the certificate made anew")
	if bare, trouble, total := stop(); bare > 0 || len(trouble) > 0 {
		t.Errorf("of %d pods, %d came without the sidecar and %d were refused: %v", total, bare, len(trouble), trouble[:min(len(trouble), 3)])
	}
	if out, _ := plugin(t, bed.kubeconfig, "check", "--cluster", "-n", ns); strings.Contains(out, "namespace "+ns+":") {
		t.Errorf("the check finds\n%s", out)
	}
}
