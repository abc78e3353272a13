// Package prometheus tests what the chart gives to Prometheus and Grafana: with Prometheus' own
// parser, with the types of the Prometheus operator, and with the metrics of a webhook that
// runs. It is a Go module of its own, so that the product depends on none of them.
//
// HELM names the program, as for the tests of the chart; without one the tests are skipped.
package prometheus

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

const top = "../.."

// fromTheAPIServer are metrics that the API server exposes about our webhook; the tests on a real
// cluster see them there.
var fromTheAPIServer = []string{"apiserver_admission_webhook_fail_open_count"}

// ofWebhooks are labels that name a webhook: whether a selector by such a label has to match the
// value. Those of rules count like that for annotated pods, those of other products do not.
var ofWebhooks = map[string]map[string]bool{
	"name":    {"inject.log-bridge.dev": true, "tomcat.rules.log-bridge.dev": true, "inject.istio.io": false, "rules.log-bridge.dev.example.com": false, "inject-log-bridge.dev": false},
	"webhook": {"/mutate-pods": true, "/rules/{name}": true, "/other": false},
}

// fromTheTarget are labels that Prometheus itself gives to what it scrapes.
var fromTheTarget = []string{"namespace", "pod", "job", model.MetricNameLabel}

// rendered is one template of the chart, decoded strictly.
func rendered(t *testing.T, template string, into any, sets ...string) {
	t.Helper()
	helm := os.Getenv("HELM")
	if helm == "" {
		t.Skip("no HELM, which names the program; make test does")
	}
	args := []string{"template", "log-bridge", top + "/charts/log-bridge", "--namespace", "logging", "--show-only", "templates/" + template}
	for _, s := range sets {
		args = append(args, "--set", s)
	}
	cmd := exec.Command(helm, args...)
	home := t.TempDir()
	cmd.Env = append(os.Environ(), "HELM_CONFIG_HOME="+home, "HELM_CACHE_HOME="+home, "HELM_DATA_HOME="+home, "KUBECONFIG="+home+"/none")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("helm template: %v\n%s", err, &stderr)
	}
	if err := yaml.UnmarshalStrict(out, into); err != nil {
		t.Fatalf("%s: %v", template, err)
	}
}

// The webhook exposes every metric that an alert or the dashboard asks for, with the labels that
// they select by.
func TestMetricsExist(t *testing.T) {
	var rule monitoring.PrometheusRule
	rendered(t, "prometheusrule.yaml", &rule, "monitoring.prometheusRule.enabled=true", "monitoring.prometheusRule.labels.release=prometheus")
	if rule.Labels["release"] != "prometheus" {
		t.Errorf("labels: %v", rule.Labels)
	}
	expressions := map[string]string{}
	for _, g := range rule.Spec.Groups {
		for _, r := range g.Rules {
			expressions["alert "+r.Alert] = r.Expr.String()
			if r.Annotations["summary"] == "" || r.Labels["severity"] == "" {
				t.Errorf("alert %s has no summary or no severity", r.Alert)
			}
		}
	}
	var dashboard corev1.ConfigMap
	rendered(t, "dashboard.yaml", &dashboard, "monitoring.dashboard.enabled=true")
	for name, expression := range panels(t, dashboard.Data["log-bridge.json"]) {
		expressions["panel "+name] = expression
	}
	if len(expressions) < 10 {
		t.Fatalf("only %d expressions were found", len(expressions))
	}

	exposed := scrape(t)
	for name, text := range expressions {
		expression, err := parser.NewParser(parser.Options{}).ParseExpr(text)
		if err != nil {
			t.Errorf("%s: %v\n%s", name, err, text)
			continue
		}
		selectors := 0
		parser.Inspect(expression, func(node parser.Node, _ []parser.Node) error {
			if s, ok := node.(*parser.VectorSelector); ok {
				selectors++
				for label, values := range ofWebhooks {
					for value, want := range values {
						for _, m := range s.LabelMatchers {
							if m.Name == label && m.Matches(value) != want {
								t.Errorf("%s: %s matches %s: %v, want %v", name, m, value, !want, want)
							}
						}
					}
				}
				if !slices.Contains(fromTheAPIServer, s.Name) {
					if wrong := missing(exposed, s.Name, s.LabelMatchers); wrong != "" {
						t.Errorf("%s: the webhook exposes no %s", name, wrong)
					}
				}
			}
			return nil
		})
		if selectors == 0 {
			t.Errorf("%s asks for no metric: %s", name, text)
		}
	}
}

// panels are the expressions of a dashboard by the title of their panel, and those of its variables.
func panels(t *testing.T, text string) map[string]string {
	t.Helper()
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr, RefID string }
		}
		Templating struct {
			List []struct {
				Name, Type string
				Query      any
			}
		}
	}
	if err := json.Unmarshal([]byte(text), &dashboard); err != nil {
		t.Fatalf("the dashboard is not JSON: %v", err)
	}
	variables := strings.NewReplacer("$__rate_interval", "5m", "$namespace", "logging")
	all := map[string]string{}
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			all[p.Title+" "+target.RefID] = variables.Replace(target.Expr)
		}
	}
	for _, v := range dashboard.Templating.List {
		if m := regexp.MustCompile(`label_values\((\w+), \w+\)`).FindStringSubmatch(fmt.Sprint(v.Query)); m != nil {
			all["variable "+v.Name] = m[1]
		}
	}
	return all
}

// missing says what of a selector is not exposed; empty if nothing is.
func missing(exposed map[string]*dto.MetricFamily, name string, matchers []*labels.Matcher) string {
	family := exposed[name]
	if base, ok := strings.CutSuffix(name, "_bucket"); ok && family == nil {
		family = exposed[base]
	}
	if family == nil {
		return name
	}
	for _, m := range matchers {
		if slices.Contains(fromTheTarget, m.Name) || m.Name == "le" {
			continue
		}
		has := func(metric *dto.Metric) bool {
			return slices.ContainsFunc(metric.Label, func(l *dto.LabelPair) bool { return l.GetName() == m.Name && m.Matches(l.GetValue()) })
		}
		if !slices.ContainsFunc(family.Metric, has) {
			return name + " with " + m.String()
		}
	}
	return ""
}

// scrape starts a webhook, sends it a pod that it injects and one that it refuses, and reads its
// metrics.
func scrape(t *testing.T) map[string]*dto.MetricFamily {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "log-bridge-webhook")
	if out, err := exec.Command("go", "build", "-C", top, "-o", program, "./webhook").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	certificate(t, dir)
	hook, health, metrics := freePort(t), freePort(t), freePort(t)
	var log bytes.Buffer
	cmd := exec.Command(program, "serve", "--cert-dir", dir, "--port", hook, "--health-port", health, "--metrics-port", metrics)
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		answer, err := client.Get("http://localhost:" + health + "/readyz")
		if err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				break
			}
		}
		if time.Now().After(end) {
			t.Fatalf("the webhook is not ready: %v", err)
		}
	}
	for _, path := range []string{"/app/app.log", "app.log"} {
		answer, err := client.Post("https://localhost:"+hook+"/mutate-pods", "application/json", strings.NewReader(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview",
			"request":{"uid":"u","kind":{"version":"v1","kind":"Pod"},"operation":"CREATE","object":{"metadata":{"annotations":{"log-bridge.dev/files":"`+path+`"}},"spec":{"containers":[{"name":"app"}]}}}}`))
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
	}
	answer, err := client.Get("http://localhost:" + metrics + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return families
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// certificate writes tls.crt and tls.key as a Secret holds them.
func certificate(t *testing.T, dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"tls.crt": {Type: "CERTIFICATE", Bytes: cert}, "tls.key": {Type: "PRIVATE KEY", Bytes: der}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// The ServiceMonitor selects the Service of the webhook, and a port that it has.
func TestServiceMonitor(t *testing.T) {
	var monitor monitoring.ServiceMonitor
	rendered(t, "servicemonitor.yaml", &monitor, "monitoring.serviceMonitor.enabled=true", "monitoring.serviceMonitor.interval=30s", "monitoring.serviceMonitor.labels.release=prometheus")
	var service corev1.Service
	rendered(t, "service.yaml", &service)
	for key, value := range monitor.Spec.Selector.MatchLabels {
		if service.Labels[key] != value {
			t.Errorf("selects %s=%s, the Service has %q", key, value, service.Labels[key])
		}
	}
	if monitor.Labels["release"] != "prometheus" || len(monitor.Spec.Endpoints) != 1 || monitor.Spec.Endpoints[0].Interval != "30s" {
		t.Errorf("labels %v, endpoints %v", monitor.Labels, monitor.Spec.Endpoints)
	}
	if port := monitor.Spec.Endpoints[0].Port; !slices.ContainsFunc(service.Spec.Ports, func(p corev1.ServicePort) bool { return p.Name == port }) {
		t.Errorf("the Service has no port %s", port)
	}
}
