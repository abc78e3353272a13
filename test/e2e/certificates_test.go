package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"
)

// The mode self on a real cluster: two replicas that start at once agree on one authority; one that
// has grown old gets a successor with no pod that misses the sidecar; a foreign caBundle is replaced.
func TestSelfCertificates(t *testing.T) {
	ns := namespace(t)
	webhookDown(t)
	another(t, ns)
	injected(t, ns, "by two replicas that started at once")
	authorities := func() []string {
		return certificates(t, kubectl(t, "-n", ns, "get", "secret", "another-log-bridge-webhook", "-o", `jsonpath={.data.ca\.crt}`))
	}
	bundle := func() []string {
		return certificates(t, kubectl(t, "get", "mutatingwebhookconfiguration", "another-log-bridge", "-o", "jsonpath={.webhooks[0].clientConfig.caBundle}"))
	}
	first := authorities()
	if len(first) != 1 {
		t.Fatalf("two replicas made %d authorities", len(first))
	}
	// The check verifies the certificate of each pod by the caBundle.
	sound := func(when string) {
		t.Helper()
		if out, _ := plugin(t, bed.kubeconfig, "check", "--cluster", "-n", ns); strings.Contains(out, "namespace "+ns+":") || !strings.Contains(out, "the webhook injects") {
			t.Errorf("%s the check finds\n%s", when, out)
		}
	}
	sound("at first")

	made := func() int {
		return strings.Count(kubectl(t, "-n", ns, "logs", "-l", "app.kubernetes.io/component=webhook", "--tail=-1"), `"serving certificate created"`)
	}
	before := made()
	count, stop := probing(t, ns)
	old, patch := aged(t)
	kubectl(t, "-n", ns, "patch", "secret", "another-log-bridge-webhook", "--patch", patch)
	eventually(t, "certificates of a new authority in both pods", func() (bool, string) { n := made(); return n >= before+2, fmt.Sprint(n) })
	enough := count() + 50
	eventually(t, "fifty more probes", func() (bool, string) { n := count(); return n >= enough, fmt.Sprint(n) })
	if bare, trouble, total := stop(); bare > 0 || len(trouble) > 0 {
		t.Errorf("of %d pods, %d came without the sidecar and %d were refused: %v", total, bare, len(trouble), trouble[:min(len(trouble), 3)])
	}
	now := authorities()
	if len(now) != 2 || now[0] == first[0] || now[0] == old || now[1] != old {
		t.Errorf("the Secret holds %d authorities, want a new one before the old", len(now))
	}
	trusted := strings.Join(bundle(), " ")
	// The one before, which the Secret has no longer, goes by itself: TestRevokedAuthority.
	for what, c := range map[string]string{"the new authority": now[0], "the old one": old} {
		if !strings.Contains(trusted, c) {
			t.Errorf("%s is not in the caBundle", what)
		}
	}
	sound("after the rotation")

	_, foreign, _ := authority{}.issue(t, time.Hour)
	kubectl(t, "patch", "mutatingwebhookconfiguration", "another-log-bridge", "--type=json", "--patch",
		`[{"op":"replace","path":"/webhooks/0/clientConfig/caBundle","value":"`+base64.StdEncoding.EncodeToString(foreign)+`"}]`)
	injected(t, ns, "after a foreign caBundle")
	if certs := bundle(); certs[0] != now[0] {
		t.Errorf("the caBundle begins with another authority; there are %d", len(certs))
	}
	sound("after a foreign caBundle")
}

// certificates are those in PEM text that is encoded as in an object's JSON, each as text of its own.
func certificates(t *testing.T, encoded string) (all []string) {
	t.Helper()
	text, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		t.Fatal(err)
	}
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return all
		}
		all = append(all, base64.StdEncoding.EncodeToString(block.Bytes))
	}
}

// aged makes an authority as the webhook does, most of whose life is over, and a patch that puts it into
// the Secret in place of what is there.
func aged(t *testing.T) (cert, patch string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	const day = 24 * time.Hour
	template := &x509.Certificate{Subject: pkix.Name{CommonName: "log-bridge webhook CA"}, NotBefore: time.Now().Add(-300 * day), NotAfter: time.Now().Add(65 * day),
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(map[string]any{"data": map[string][]byte{
		"ca.crt": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		"ca.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
	}})
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(der), string(text)
}
