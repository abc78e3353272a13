package admit_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	admissionv1 "k8s.io/api/admission/v1"

	"github.com/log-bridge/log-bridge/webhook/internal/admit"
	"github.com/log-bridge/log-bridge/webhook/internal/inject"
	"github.com/log-bridge/log-bridge/webhook/internal/rules"
)

// A rule's pod is patched or admitted as it is, never denied, and counted by its rule.
func TestRuleHandler(t *testing.T) {
	c := inject.Config{Version: "1", Image: "sidecar:1", Resources: inject.DefaultResources()}
	set, findings := rules.Parse(context.Background(), []byte(`rules:
- {name: web, podSelector: {matchLabels: {app: web}}, annotations: {files: "app:/app/app.log"}}`), c)
	if len(findings) > 0 {
		t.Fatal(findings)
	}
	count, byRule := admit.Counter(), admit.RuleCounter()
	mux := http.NewServeMux()
	mux.Handle(admit.RulePath, admit.RuleHandler(func() *rules.Set { return set }, c, slog.New(slog.NewTextHandler(io.Discard, nil)), count, byRule))
	s := httptest.NewServer(bounded(mux))
	defer s.Close()
	many := strings.Repeat(`{"name":"x"},`, inject.MaxContainers+1)
	for _, test := range []struct{ rule, pod, result, warning string }{
		{"web", `{"metadata":{"labels":{"app":"web"}},"spec":{"containers":[{"name":"app","image":"i"}]}}`, "injected", ""},
		{"web", `{"metadata":{"labels":{"app":"web"}},"spec":{"containers":[{"name":"b","image":"i"}]}}`, "rule-does-not-fit", "LB0201"},
		{"web", `{"metadata":{"labels":{"app":"web"}},"spec":{"containers":[` + many + `{"name":"b"}]}}`, "rule-does-not-fit", "LB0207"},
		{"no", `{"spec":{"containers":[{"name":"b","image":"i"}]}}`, "", "LB0912"},
	} {
		before := testutil.ToFloat64(byRule.WithLabelValues(test.rule, test.result))
		resp, err := http.Post(s.URL+"/rules/"+test.rule, "application/json", strings.NewReader(review(test.pod)))
		if err != nil {
			t.Fatal(err)
		}
		var answer admissionv1.AdmissionReview
		err = json.NewDecoder(resp.Body).Decode(&answer)
		resp.Body.Close()
		if err != nil || answer.Response == nil {
			t.Fatal(resp.Status, err)
		}
		a := answer.Response
		if !a.Allowed || (a.Patch != nil) != (test.result == "injected") || !strings.Contains(strings.Join(a.Warnings, "\n"), test.warning) {
			t.Errorf("%s, %.100s: allowed %v, patch %d bytes, warnings %q", test.rule, test.pod, a.Allowed, len(a.Patch), a.Warnings)
		}
		want := before + 1
		if test.result == "" {
			want = before
		}
		if have := testutil.ToFloat64(byRule.WithLabelValues(test.rule, test.result)); have != want {
			t.Errorf("%s: counted %v of %s, want %v", test.rule, have, test.result, want)
		}
	}
}
