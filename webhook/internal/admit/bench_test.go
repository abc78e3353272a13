package admit_test

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/log-bridge/log-bridge/test/helpers/podgen"
	"github.com/log-bridge/log-bridge/webhook/internal/admit"
)

// BenchmarkAdmission answers reviews of an annotated pod as an API server sends it: JSON in, a patch
// out, a line in the log.
func BenchmarkAdmission(b *testing.B) {
	for name, pod := range map[string]string{
		"small": `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","annotations":{"log-bridge.dev/files":"/app/app.log"}},"spec":{"containers":[{"name":"app","image":"x"}]}}`,
		"large": annotated(b),
	} {
		b.Run(name, func(b *testing.B) {
			h := admit.Handler(decide, slog.New(slog.NewJSONHandler(io.Discard, nil)), admit.Counter())
			body := review(pod)
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			begun := cpu(b)
			for b.Loop() {
				w := httptest.NewRecorder()
				r := httptest.NewRequest(http.MethodPost, admit.Path, strings.NewReader(body))
				r.Header.Set("Content-Type", "application/json")
				h.ServeHTTP(w, r)
				if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"patch"`) {
					b.Fatal(w.Code, w.Body.String())
				}
			}
			// By its own processor time, since whatever else runs on the machine is none of its business.
			b.ReportMetric(float64(b.N)/(cpu(b)-begun).Seconds(), "admissions/cpu-s")
		})
	}
}

// cpu is the processor time of this process so far.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// annotated is a generated pod with all kinds of fields that is injected.
func annotated(b *testing.B) string {
	for seed := uint64(0); seed < 10_000; seed++ {
		pod := string(podgen.Pod(seed))
		if len(pod) < 4000 {
			continue
		}
		h := admit.Handler(decide, slog.New(slog.DiscardHandler), admit.Counter())
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodPost, admit.Path, strings.NewReader(review(pod)))
		r.Header.Set("Content-Type", "application/json")
		h.ServeHTTP(w, r)
		if strings.Contains(w.Body.String(), `"patch"`) {
			return pod
		}
	}
	b.Fatal("no generated pod is injected")
	return ""
}
