package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// authority is one that somebody keeps outside the cluster.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// issue makes a certificate with its key, as PEM; of itself, without an authority.
func (by authority) issue(t *testing.T, life time.Duration, names ...string) (own authority, cert, key []byte) {
	t.Helper()
	own.key, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	template := &x509.Certificate{Subject: pkix.Name{CommonName: "given"}, DNSNames: names, NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(life), BasicConstraintsValid: true}
	if by.cert == nil {
		template.IsCA = true
		by = authority{template, own.key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by.cert, own.key.Public(), by.key)
	if err != nil {
		t.Fatal(err)
	}
	if own.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(own.key)
	if err != nil {
		t.Fatal(err)
	}
	return own, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
}

// The mode provided: the Secret's certificate is served, and another one, of another authority, is
// taken over with no pod that misses the sidecar. Then the check finds one that ends soon, one that
// the caBundle does not know, and one that has ended.
func TestProvidedCertificates(t *testing.T) {
	ns := namespace(t)
	webhookDown(t)
	dir := t.TempDir()
	name := "another-log-bridge-webhook." + ns + ".svc"
	first, firstPEM, _ := authority{}.issue(t, 365*24*time.Hour)
	second, secondPEM, _ := authority{}.issue(t, 365*24*time.Hour)
	give := func(by authority, life time.Duration) {
		t.Helper()
		_, cert, key := by.issue(t, life, name)
		for file, text := range map[string][]byte{"tls.crt": cert, "tls.key": key} {
			if err := os.WriteFile(filepath.Join(dir, file), text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		apply(t, ns, kubectl(t, "-n", ns, "create", "secret", "tls", "given", "--cert", filepath.Join(dir, "tls.crt"), "--key", filepath.Join(dir, "tls.key"), "--dry-run=client", "-o", "yaml"))
	}
	trust := func(authorities ...[]byte) {
		t.Helper()
		bundle := filepath.Join(dir, "bundle.pem")
		if err := os.WriteFile(bundle, slices.Concat(authorities...), 0o600); err != nil {
			t.Fatal(err)
		}
		another(t, ns, "--set", "certificates.mode=provided", "--set", "certificates.provided.secretName=given", "--set-file", "certificates.provided.caBundle="+bundle)
	}
	give(first, 60*24*time.Hour)
	trust(firstPEM)
	injected(t, ns, "with the first certificate")

	count, stop := probing(t, ns)
	trust(firstPEM, secondPEM)
	give(second, 6*24*time.Hour)
	// The kubelet brings the Secret within a minute or so.
	eventually(t, "both pods to take over the certificate", func() (bool, string) {
		out := kubectl(t, "-n", ns, "logs", "-l", "app.kubernetes.io/component=webhook", "--tail=-1")
		return strings.Count(out, `"serving certificate read"`) == 4, out
	})
	// Each pod serves with it now: what is injected after this, is by it.
	enough := count() + 50
	eventually(t, "fifty more probes", func() (bool, string) { n := count(); return n >= enough, fmt.Sprint(n) })
	if bare, trouble, total := stop(); bare > 0 || len(trouble) > 0 {
		t.Errorf("of %d pods, %d came without the sidecar and %d were refused: %v", total, bare, len(trouble), trouble[:min(len(trouble), 3)])
	}

	check := func(what string, want ...string) {
		t.Helper()
		eventually(t, what, func() (bool, string) {
			// The other installation, which is scaled down, has findings of its own.
			out, _ := plugin(t, bed.kubeconfig, "check", "--cluster", "-n", ns)
			for _, words := range want {
				if !strings.Contains(out, words) {
					return false, out
				}
			}
			return true, ""
		})
	}
	check("the end that is near", "namespace "+ns+": Pod/another-log-bridge-", "warning LB0804: its certificate, or the CA that signed it, expires at ", "the webhook injects")
	// One that was never trusted: with a caBundle that it knows, the API server keeps using the connection
	// that it has, whatever certificate would be shown now.
	_, thirdPEM, _ := authority{}.issue(t, 365*24*time.Hour)
	trust(thirdPEM)
	check("the foreign authority", "mistake LB0803: the API server does not accept its certificate", "certificate signed by unknown authority", "the webhook does not inject")
	trust(firstPEM, secondPEM)
	injected(t, ns, "with both authorities again")
	give(second, -time.Hour)
	// For that reason the probe may still succeed.
	check("the certificate that has ended", "mistake LB0803: ", "certificate has expired", "warning LB0806: it is not ready: the serving certificate in /certificates is not valid now", "mistake LB0805: no webhook pod is ready")
}

// probing creates annotated pods as dry runs, one after the other, until stop is called, which
// reports how many came without the sidecar or not at all.
func probing(t *testing.T, ns string) (count func() int, stop func() (bare int, trouble []string, total int)) {
	t.Helper()
	api := directly(t)
	ctx, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex
	var bare, total int
	var trouble []string
	var work sync.WaitGroup
	work.Go(func() {
		for ctx.Err() == nil {
			without, err := annotatedDryRun(ctx, api, ns)
			mu.Lock()
			switch {
			case ctx.Err() != nil:
			case err != nil:
				total++
				trouble = append(trouble, err.Error())
			default:
				total++
				if without {
					bare++
				}
			}
			mu.Unlock()
			// A pause, so that other processes of the machine get their turn.
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
	t.Cleanup(func() { cancel(); work.Wait() })
	count = func() int { mu.Lock(); defer mu.Unlock(); return total }
	return count, func() (int, []string, int) { cancel(); work.Wait(); return bare, trouble, total }
}
