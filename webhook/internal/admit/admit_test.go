package admit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/log-bridge/log-bridge/webhook/internal/admit"
	"github.com/log-bridge/log-bridge/webhook/internal/inject"
	"github.com/log-bridge/log-bridge/webhook/internal/server"
)

// server is a webhook under test, its log and its counter.
type asked struct {
	*httptest.Server
	log   bytes.Buffer
	count *prometheus.CounterVec
}

// bounded is what serve puts before the handler.
func bounded(h http.Handler) http.Handler {
	return server.NewReviews(h, server.MaxBody, time.Minute, server.TurnedAway())
}

func serve(t *testing.T, decide admit.Decide) *asked {
	s := &asked{count: admit.Counter()}
	s.Server = httptest.NewServer(bounded(admit.Handler(decide, slog.New(slog.NewTextHandler(&s.log, nil)), s.count)))
	t.Cleanup(s.Close)
	return s
}

func decide(ctx context.Context, pod *corev1.Pod) inject.Result {
	return inject.Pod(ctx, pod, inject.Config{Version: "1", Image: "sidecar:1", Resources: inject.DefaultResources()})
}

func review(pod string) string {
	return `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u-1","kind":{"group":"","version":"v1","kind":"Pod"},
		"resource":{"group":"","version":"v1","resource":"pods"},"operation":"CREATE","namespace":"shop","object":` + pod + `}}`
}

func (s *asked) post(t *testing.T, body string) (int, string) {
	t.Helper()
	resp, err := s.Client().Post(s.URL+admit.Path, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func (s *asked) ask(t *testing.T, pod string) *admissionv1.AdmissionResponse {
	t.Helper()
	code, text := s.post(t, review(pod))
	var answer admissionv1.AdmissionReview
	if err := json.Unmarshal([]byte(text), &answer); err != nil || code != http.StatusOK {
		t.Fatalf("HTTP %d: %s (%v)", code, text, err)
	}
	if answer.Response.UID != "u-1" {
		t.Errorf("answer for %q, want u-1", answer.Response.UID)
	}
	return answer.Response
}

func (s *asked) counted(t *testing.T, result, reason string) {
	t.Helper()
	if n := testutil.ToFloat64(s.count.WithLabelValues(result, reason)); n != 1 {
		t.Errorf("counted %v of %s %s, want 1", n, result, reason)
	}
}

func TestInjected(t *testing.T) {
	s := serve(t, decide)
	a := s.ask(t, `{"metadata":{"generateName":"web-","annotations":{"log-bridge.dev/files":"/app/app.log"}},"spec":{"containers":[{"name":"app","image":"x"}]}}`)
	if !a.Allowed || a.PatchType == nil || *a.PatchType != admissionv1.PatchTypeJSONPatch {
		t.Fatalf("answer %+v, want a patch", a)
	}
	var ops []struct{ Op, Path string }
	if err := json.Unmarshal(a.Patch, &ops); err != nil {
		t.Fatal(err)
	}
	for _, op := range ops {
		if op.Op != "add" {
			t.Errorf("operation %s of %s; want additions only", op.Op, op.Path)
		}
	}
	s.counted(t, "injected", "")
	if n := strings.Count(s.log.String(), "\n"); n != 1 || !strings.Contains(s.log.String(), "generateName=web-") || !strings.Contains(s.log.String(), "namespace=shop") {
		t.Errorf("log of %d lines, want one that names the pod:\n%s", n, &s.log)
	}
}

func TestRefused(t *testing.T) {
	s := serve(t, decide)
	a := s.ask(t, `{"metadata":{"annotations":{"log-bridge.dev/files":"app.log"}},"spec":{"containers":[{"name":"app","image":"x"}]}}`)
	const want = `log-bridge.dev/files: "app.log" is not an absolute path; write the whole path, such as /app/app.log [LB0103]`
	if a.Allowed || a.Result.Message != want || a.Result.Code != http.StatusBadRequest || len(a.Patch) > 0 {
		t.Errorf("answer %+v, want a denial with %q", a, want)
	}
	s.counted(t, "refused", "LB0103")
}

func TestLeftAlone(t *testing.T) {
	s := serve(t, decide)
	a := s.ask(t, `{"metadata":{"annotations":{"log-bridge.dev/format":"json"}},"spec":{"containers":[{"name":"app","image":"x"}]}}`)
	if !a.Allowed || len(a.Patch) > 0 || len(a.Warnings) != 1 {
		t.Errorf("answer %+v, want an admission with one warning and no patch", a)
	}
	for _, w := range a.Warnings {
		if len([]rune(w)) > 256 {
			t.Errorf("warning of %d characters; the API server cuts at 256", len(w))
		}
	}
	s.counted(t, "left-alone", "not-asked")
}

// Each decision is one line of JSON with the same keys, whatever it is.
func TestLog(t *testing.T) {
	spec := `"spec":{"containers":[{"name":"app","image":"x"}]}}`
	for name, c := range map[string]struct {
		decide                     admit.Decide
		pod                        string
		result, reason, named, gen string
	}{
		"injected":   {decide, `{"metadata":{"name":"web","annotations":{"log-bridge.dev/files":"/a"}},` + spec, "injected", "", "web", ""},
		"refused":    {decide, `{"metadata":{"generateName":"web-","annotations":{"log-bridge.dev/files":"a"}},` + spec, "refused", "LB0103", "", "web-"},
		"left alone": {decide, `{"metadata":{"name":"web","annotations":{"log-bridge.dev/inject":"false"}},` + spec, "left-alone", "declined", "web", ""},
		"mended": {decide, `{"metadata":{"name":"web","annotations":{"log-bridge.dev/files":"/a","log-bridge.dev/status":"{\"version\":\"0.9\",\"release\":\"logs/other\"}"}},"spec":{"containers":[{"name":"app","image":"x"}],"initContainers":[{"name":"log-bridge","volumeMounts":[{"name":"log-bridge","mountPath":"/log-bridge"}]}]}}`,
			"injected", "mended", "web", ""},
		"failed": {func(context.Context, *corev1.Pod) inject.Result { panic("a defect") }, `{"metadata":{"generateName":"web-"},` + spec, "failed", "panic", "", "web-"},
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			count := admit.Counter()
			handler := admit.Handler(c.decide, slog.New(slog.NewJSONHandler(&log, nil)), count)
			body := strings.Replace(review(c.pod), `"uid":"u-1"`, `"name":"`+c.named+`","uid":"u-1"`, 1)
			request := httptest.NewRequest(http.MethodPost, admit.Path, strings.NewReader(body))
			request.Header.Set("Content-Type", "application/json")
			handler.ServeHTTP(httptest.NewRecorder(), request)
			var line map[string]any
			if err := json.Unmarshal(log.Bytes(), &line); err != nil {
				t.Fatalf("%v: want one line of JSON, have\n%s", err, &log)
			}
			for key, want := range map[string]any{"msg": "admission", "namespace": "shop", "name": c.named, "generateName": c.gen, "uid": "u-1", "result": c.result, "reason": c.reason} {
				if line[key] != want {
					t.Errorf("%s: have %v, want %v", key, line[key], want)
				}
			}
			duration, _ := line["duration"].(string)
			if d, err := time.ParseDuration(duration); err != nil || d <= 0 {
				t.Errorf("duration %q: %v", duration, err)
			}
			if n := testutil.ToFloat64(count.WithLabelValues(c.result, c.reason)); n != 1 {
				t.Errorf("counted %v times", n)
			}
		})
	}
}

// Of a pod that another release has injected, the log names the release, and the pod is left alone.
func TestNamesWhoInjected(t *testing.T) {
	s := serve(t, decide)
	a := s.ask(t, `{"metadata":{"annotations":{"log-bridge.dev/files":"/a","log-bridge.dev/status":"{\"version\":\"0.9\",\"release\":\"logs/other\",\"entries\":[{\"entry\":\"app:/a\"}]}"}},
		"spec":{"containers":[{"name":"app","image":"x"}],"initContainers":[{"name":"log-bridge","restartPolicy":"Always","volumeMounts":[{"name":"log-bridge","mountPath":"/log-bridge"}]}]}}`)
	if !a.Allowed || len(a.Patch) > 0 || len(a.Warnings) > 0 {
		t.Errorf("answer %+v, want an admission without a patch", a)
	}
	s.counted(t, "left-alone", "already-injected")
	if !strings.Contains(s.log.String(), `by="logs/other 0.9"`) {
		t.Errorf("the log does not name the release:\n%s", &s.log)
	}
	// Anybody can write a status.
	s.log.Reset()
	s.ask(t, `{"metadata":{"annotations":{"log-bridge.dev/files":"/a","log-bridge.dev/status":"{\"version\":\"`+strings.Repeat("x", 100_000)+`\"}"}},
		"spec":{"containers":[{"name":"app","image":"x"}],"initContainers":[{"name":"log-bridge","restartPolicy":"Always","volumeMounts":[{"name":"log-bridge","mountPath":"/log-bridge"}]}]}}`)
	if n := s.log.Len(); n == 0 || n > 2000 {
		t.Errorf("a log line of %d bytes", n)
	}
}

func TestOtherObjectsAreAdmitted(t *testing.T) {
	s := serve(t, decide)
	_, text := s.post(t, strings.Replace(review(`{"metadata":{}}`), `"kind":"Pod"`, `"kind":"Node"`, 1))
	if !strings.Contains(text, `"allowed":true`) {
		t.Errorf("answer %s, want an admission", text)
	}
	s.counted(t, "left-alone", "not-a-new-pod")
}

// Our own failures must not look like a decision: failurePolicy is for failed calls, and an
// answer with the request's uid is not one.
func TestFailuresAreFailedCalls(t *testing.T) {
	panics := func(context.Context, *corev1.Pod) inject.Result { panic("a defect of ours") }
	annotated := `{"metadata":{"annotations":{"log-bridge.dev/files":"/a"}},"spec":{"containers":[{"name":"app","image":"x"}]}}`
	for name, c := range map[string]struct {
		decide admit.Decide
		body   string
	}{
		"a panic":                       {panics, review(annotated)},
		"a pod that cannot be decoded":  {decide, review(`{"spec":{"containers":5}}`)},
		"a request without an object":   {decide, strings.Replace(review(`null`), `,"object":null`, "", 1)},
		"a request that is not JSON":    {decide, `{`},
		"a request without a review":    {decide, `{"apiVersion":"v1","kind":"Pod"}`},
		"a request over 7 MiB":          {decide, review(`{"metadata":{"annotations":{"x":"` + strings.Repeat("x", 7<<20) + `"}}}`)},
		"an empty request":              {decide, ``},
		"a review without a request":    {decide, `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}`},
		"a review that is a JSON array": {decide, `[]`},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, c.decide)
			code, text := s.post(t, c.body)
			var answer admissionv1.AdmissionReview
			err := json.Unmarshal([]byte(text), &answer)
			if code == http.StatusOK && err == nil && answer.Response != nil && answer.Response.UID != "" {
				t.Errorf("HTTP %d, %s: this is a decision, want a failed call", code, text)
			}
			if name == "a panic" {
				if code != http.StatusInternalServerError || !strings.Contains(s.log.String(), "a defect of ours") {
					t.Errorf("HTTP %d, log:\n%s", code, &s.log)
				}
				s.counted(t, "failed", "panic")
			}
		})
	}
}
