package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/log-bridge/log-bridge/test/helpers/testbed"
)

// A client that reaches the webhook's port, or may create pods, cannot kill its pods within the chart's limits, and an
// annotated pod gets the sidecar meanwhile.
func TestHostileLoad(t *testing.T) {
	ns := namespace(t)
	injected(t, ns, "before")
	program := compile(t, "test/helpers/hold")
	pods := func() string {
		return kubectl(t, "-n", "log-bridge", "get", "pods", "-l", "app.kubernetes.io/component=webhook", "-o",
			`jsonpath={range .items[*]}{.metadata.name} {.status.podIP} {.status.containerStatuses[0].restartCount}{"\n"}{end}`)
	}
	before := pods()
	if strings.Count(before, " 0\n") != 2 {
		t.Fatalf("want two pods that never restarted, have\n%s", before)
	}
	const stalled = `POST /mutate-pods HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1900000\r\n\r\n`
	for what, args := range map[string][]string{
		"15 clients that stall within a body": {"15", stalled, "1899999"},
		"1,000 idle connections":              {"1000", "", "0"},
	} {
		var ends []func()
		for line := range strings.Lines(before) {
			_, end := testbed.Beside(t, bed.all.Inside(append([]string{program, strings.Fields(line)[1] + ":10250"}, args...)...), 1, nil)
			ends = append(ends, end)
		}
		injected(t, ns, "beside "+what)
		for _, end := range ends {
			end()
		}
		if now := pods(); now != before {
			t.Fatalf("%s: the pods were\n%sand are\n%s", what, before, now)
		}
	}
	// Four at once for each pod of the webhook, as any user may post them.
	var env strings.Builder
	for i := range 38_000 {
		fmt.Fprintf(&env, `,{"name":"A%07d","value":"0123456789012345"}`, i)
	}
	big := strings.Replace(asked(true, "x"), `"value":"x"}`, `"value":"x"}`+env.String(), 1)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			// That of its managed fields is too large to be stored, so any answer will do.
			_, _ = post(t, ns, big)
		})
	}
	all.Wait()
	injected(t, ns, fmt.Sprintf("after pods of %d bytes", len(big)))
	if now := pods(); now != before {
		t.Fatalf("large pods: the webhook's pods were\n%sand are\n%s", before, now)
	}
}

// The webhook's service account, whose permission is to patch the whole configuration, may change the caBundle in it,
// and nothing else; the administrator may.
func TestOwnConfigurationOnly(t *testing.T) {
	needCluster(t)
	patch := func(patch string, as ...string) (string, error) {
		return tryKubectl(append([]string{"patch", "mutatingwebhookconfiguration", "log-bridge", "--dry-run=server", "-o", "name", "--type=json", "--patch", "[" + patch + "]"}, as...)...)
	}
	const account = "--as=system:serviceaccount:log-bridge:log-bridge"
	bundle := `{"op":"replace","path":"/webhooks/0/clientConfig/caBundle","value":"` + kubectl(t, "-n", "log-bridge", "get", "secret", "log-bridge-webhook", "-o", `jsonpath={.data.ca\.crt}`) + `"}`
	if out, err := patch(bundle, account); err != nil {
		t.Errorf("the caBundle: %s %v", out, err)
	}
	if out, err := patch(`{"op":"remove","path":"/webhooks/0/clientConfig/caBundle"}`, account); err != nil {
		t.Errorf("no caBundle: %s %v", out, err)
	}
	for _, p := range []string{
		`{"op":"remove","path":"/webhooks/0/matchConditions"}`,
		`{"op":"replace","path":"/webhooks/0/matchConditions/0/expression","value":"true"}`,
		`{"op":"replace","path":"/webhooks/0/rules/0/resources","value":["secrets"]}`,
		`{"op":"replace","path":"/webhooks/0/rules/0/operations","value":["*"]}`,
		`{"op":"remove","path":"/webhooks/0/namespaceSelector"}`,
		`{"op":"replace","path":"/webhooks/0/objectSelector","value":{"matchLabels":{"a":"b"}}}`,
		`{"op":"replace","path":"/webhooks/0/failurePolicy","value":"Fail"}`,
		`{"op":"replace","path":"/webhooks/0/timeoutSeconds","value":30}`,
		`{"op":"replace","path":"/webhooks/0/name","value":"other.log-bridge.dev"}`,
		`{"op":"replace","path":"/webhooks/0/clientConfig/service/name","value":"evil"}`,
		`{"op":"remove","path":"/webhooks/0/clientConfig/service"},{"op":"add","path":"/webhooks/0/clientConfig/url","value":"https://evil.example/"}`,
		`{"op":"copy","from":"/webhooks/0","path":"/webhooks/-"},{"op":"replace","path":"/webhooks/1/name","value":"second.log-bridge.dev"}`,
		`{"op":"remove","path":"/webhooks/0"}`,
		`{"op":"add","path":"/metadata/labels/a","value":"b"}`,
		`{"op":"add","path":"/metadata/annotations/a","value":"b"}`,
		`{"op":"add","path":"/metadata/finalizers","value":["example.com/for-ever"]}`,
		bundle + `,{"op":"replace","path":"/webhooks/0/timeoutSeconds","value":30}`,
	} {
		if out, err := patch(p, account); err == nil || !strings.Contains(err.Error(), "may change only the caBundle of its own configuration") {
			t.Errorf("%s: %s %v", p, out, err)
		}
		if out, err := patch(p); err != nil {
			t.Errorf("%s by the administrator: %s %v", p, out, err)
		}
	}
}

// With webhook.clientCA, the API server is accepted because of its client certificate, and nobody else is. The chart's
// NetworkPolicy is there too: Kubernetes takes it, though this cluster's network does not enforce it.
func TestClientCertificates(t *testing.T) {
	ns := namespace(t)
	webhookDown(t)
	ca := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(ca, []byte(bed.all.Run(t, "cat", "/var/lib/kubernetes/webhooks.crt")), 0o600); err != nil {
		t.Fatal(err)
	}
	values := []string{"--set-file", "webhook.clientCA=" + ca, "--set", "networkPolicy.enabled=true", "--set", "networkPolicy.from[0].ipBlock.cidr=0.0.0.0/0"}
	another(t, ns, append(values, "--set", "webhook.clientNames={kube-apiserver-webhooks}")...)
	injected(t, ns, "with the API server's certificate")
	if out, _ := plugin(t, bed.kubeconfig, "check", "--cluster", "-n", ns); strings.Contains(out, "namespace "+ns+":") || strings.Contains(out, "not checked") || !strings.Contains(out, "the webhook injects") {
		t.Errorf("the check finds\n%s", out)
	}
	another(t, ns, append(values, "--set", "webhook.clientNames={somebody-else}")...)
	eventually(t, "a refusal of the API server's name", func() (bool, string) {
		out := dryRun(t, ns, annotatedPod)
		return strings.Contains(out, "was admitted without the sidecar"), out
	})
	if out := kubectl(t, "-n", ns, "logs", "-l", "app.kubernetes.io/component=webhook", "--tail=-1"); !strings.Contains(out, `client certificate of \\\"kube-apiserver-webhooks\\\", which is not one of somebody-else`) &&
		!strings.Contains(out, `which is not one of somebody-else`) {
		t.Errorf("the webhook does not say why:\n%s", out)
	}
}

// The one command of docs/operations.md revokes an authority: two minutes later the caBundle holds its successor only, and
// no pod has missed the sidecar.
func TestRevokedAuthority(t *testing.T) {
	ns := namespace(t)
	webhookDown(t)
	another(t, ns)
	injected(t, ns, "before")
	authorities := func() []string {
		return certificates(t, kubectl(t, "-n", ns, "get", "secret", "another-log-bridge-webhook", "-o", `jsonpath={.data.ca\.crt}`))
	}
	bundle := func() []string {
		return certificates(t, kubectl(t, "get", "mutatingwebhookconfiguration", "another-log-bridge", "-o", "jsonpath={.webhooks[0].clientConfig.caBundle}"))
	}
	first := authorities()
	_, stop := probing(t, ns)
	kubectl(t, "-n", ns, "annotate", "secret", "another-log-bridge-webhook", "log-bridge.dev/revoke=all")
	eventually(t, "the new authority alone", func() (bool, string) {
		now := bundle()
		return len(now) == 1 && now[0] != first[0], fmt.Sprint(len(now))
	})
	if bare, trouble, total := stop(); bare > 0 || len(trouble) > 0 {
		t.Errorf("of %d pods, %d came without the sidecar and %d were refused: %v", total, bare, len(trouble), trouble[:min(len(trouble), 3)])
	}
	if now := authorities(); len(now) != 1 || now[0] != bundle()[0] {
		t.Errorf("the Secret holds %d authorities, want the one of the caBundle", len(now))
	}
	injected(t, ns, "afterwards")
}
