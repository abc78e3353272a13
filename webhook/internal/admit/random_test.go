package admit_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"log/slog"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	admissionv1 "k8s.io/api/admission/v1"

	"github.com/log-bridge/log-bridge/test/helpers/podgen"
	"github.com/log-bridge/log-bridge/webhook/internal/admit"
)

// ask sends one review through a handler and returns what is wrong with the answer. A
// patch must apply to the pod, unless that is empty.
func ask(h http.Handler, body, pod string) string {
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodPost, admit.Path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	h.ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		if strings.Contains(w.Body.String(), "AdmissionReview") {
			return "a decision with a failure's code: " + w.Body.String()
		}
		return ""
	}
	var answer admissionv1.AdmissionReview
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		return "an answer that is not JSON: " + err.Error()
	}
	switch a := answer.Response; {
	case a == nil:
		return "an answer without a response"
	case !a.Allowed && a.Result.Message == "":
		return "a denial without a sentence"
	case !a.Allowed && len(a.Patch) > 0:
		return "a denial with a patch"
	case len(a.Patch) > 0 && pod != "":
		patch, err := jsonpatch.DecodePatch(a.Patch)
		if err == nil {
			_, err = patch.Apply([]byte(pod))
		}
		if err != nil {
			return "a patch that does not apply: " + err.Error()
		}
	}
	return ""
}

// TestManyReviews sends reviews from several goroutines at once. Under the race detector
// it shows that a handler may be shared, and in any case that it leaves nothing behind.
func TestManyReviews(t *testing.T) {
	if testing.Short() {
		t.Skip("20,000 reviews are not short")
	}
	workers, each := 4, 500
	if race {
		each = 5000
	}
	h := admit.Handler(decide, slog.New(slog.DiscardHandler), admit.Counter())
	before := runtime.NumGoroutine()
	var wg sync.WaitGroup
	for worker := range workers {
		wg.Go(func() {
			for i := range each {
				pod := string(podgen.Pod(uint64(worker*each + i)))
				if wrong := ask(h, review(pod), pod); wrong != "" {
					t.Errorf("seed %d: %s", worker*each+i, wrong)
					return
				}
			}
		})
	}
	wg.Wait()
	for end := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; {
		if time.Now().After(end) {
			t.Fatalf("%d goroutines before, %d after", before, runtime.NumGoroutine())
		}
		runtime.Gosched()
	}
}

// FuzzReview: no request makes the handler panic of itself or deny without a sentence.
// A pod that cannot be decoded is a failed call, which ask lets pass.
func FuzzReview(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(string(podgen.Pod(seed)))
	}
	f.Add(`{"spec":{"containers":[null],"initContainers":[{}]},"metadata":{"annotations":{"log-bridge.dev/files":"/x"}}}`)
	f.Add(`{"spec":{"initContainers":[{"name":"i"}]},"metadata":{"annotations":{"log-bridge.dev/files":"i:/x"}}}`)
	f.Add(`null`)
	log := &strings.Builder{}
	h := admit.Handler(decide, slog.New(slog.NewTextHandler(log, nil)), admit.Counter())
	f.Fuzz(func(t *testing.T, pod string) {
		log.Reset()
		// The API server sends no null in a list, to which no patch applies.
		if wrong := ask(h, review(pod), ""); wrong != "" {
			t.Error(wrong)
		}
		if text := log.String(); strings.Contains(text, "result=failed") && !strings.Contains(text, "pod of request u-1") {
			t.Errorf("the handler panicked: %s", text)
		}
	})
}

// FuzzRequest: nothing that is sent makes the handler panic of itself, or deny without a
// sentence. What is no review of a pod is a failed call, which ask lets pass.
func FuzzRequest(f *testing.F) {
	f.Add(review(string(podgen.Plain(1))))
	f.Add(strings.Replace(review(string(podgen.Plain(2))), "CREATE", "UPDATE", 1))
	f.Add(strings.Replace(review(string(podgen.Plain(3))), `"kind":"Pod"`, `"kind":"PodTemplate"`, 1))
	f.Add(strings.Replace(review(`{}`), "admission.k8s.io/v1", "admission.k8s.io/v1beta1", 1))
	bare := `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"kind":{"kind":"Pod"},"operation":"CREATE","object":{"metadata":{"annotations":{"log-bridge.dev/files":"/x"}},"spec":{"containers":[{"name":"a"}]}}}}`
	for _, text := range []string{bare, ``, `{`, `[]`, `null`, `{"request":null}`, `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}`,
		`{"apiVersion":"v1","kind":"Pod"}`, `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"kind":{"kind":"Pod"},"operation":"CREATE","object":[]}}`} {
		f.Add(text)
	}
	log := &strings.Builder{}
	h := admit.Handler(decide, slog.New(slog.NewTextHandler(log, nil)), admit.Counter())
	f.Fuzz(func(t *testing.T, body string) {
		log.Reset()
		if wrong := ask(h, body, ""); wrong != "" {
			t.Error(wrong)
		}
		if text := log.String(); strings.Contains(text, "admission failed") && !strings.Contains(text, "pod of request") {
			t.Errorf("the handler panicked: %s", text)
		}
	})
}

// FuzzFiles: no value of the annotation does either.
func FuzzFiles(f *testing.F) {
	for _, v := range []string{"/app/app.log", "app:/var/log/**/*.log, /x", "/a/[b", "/\x00", "/tmp/x,\n/tmp", "/$(A)/$$", "/é", "/a=/b/*", strings.Repeat("/x", 3000)} {
		f.Add(v)
	}
	log := &strings.Builder{}
	h := admit.Handler(decide, slog.New(slog.NewTextHandler(log, nil)), admit.Counter())
	f.Fuzz(func(t *testing.T, value string) {
		log.Reset()
		quoted, err := json.Marshal(value)
		if err != nil {
			t.Skip()
		}
		pod := `{"metadata":{"annotations":{"log-bridge.dev/files":` + string(quoted) + `}},"spec":{"containers":[{"name":"app","volumeMounts":[{"name":"v","mountPath":"/a=/b"},{"name":"v","mountPath":"/logs"}]}],"volumes":[{"name":"v","emptyDir":{}}]}}`
		if wrong := ask(h, review(pod), pod); wrong != "" {
			t.Error(wrong)
		}
		if strings.Contains(log.String(), "result=failed") {
			t.Errorf("the handler panicked: %s", log)
		}
	})
}
