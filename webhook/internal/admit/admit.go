// Package admit answers the API server: an AdmissionReview with a pod comes in, a
// patch, an admission without a patch, or a denial goes out.
//
// It is the only place that logs, counts, allows or denies. What the user got wrong
// is denied with a sentence. What we got wrong, a panic above all, is HTTP 500: a
// failed call, which the webhook's failurePolicy decides about, while an explicit
// denial would block the pod whatever the policy says.
package admit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/log-bridge/log-bridge/webhook/internal/inject"
)

// Path is where the API server sends pods.
const Path = "/mutate-pods"

// Results of a call, the label `result` of the counter.
const (
	injected  = "injected"
	leftAlone = "left-alone"
	refused   = "refused"
	failed    = "failed"
)

// mended is the reason where an injected pod was given back what another webhook dropped.
const mended = "mended"

// Counter counts decisions by result and reason. The reason of a refusal is the
// code of its first finding, of a pod left alone its inject.Reason.
func Counter() *prometheus.CounterVec {
	count := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "log_bridge_injections_total",
		Help: "Pods that were looked at, by result (injected, left-alone, refused, failed) and reason.",
	}, []string{"result", "reason"})
	// A counter that begins with its first failure would not rise by it, for an alert.
	count.WithLabelValues(failed, "panic")
	return count
}

// Decide is inject.Pod with its configuration.
type Decide func(*corev1.Pod) inject.Result

// Handler serves admission reviews of pods. It may serve any number at once, if
// decide may.
func Handler(decide Decide, log *slog.Logger, count *prometheus.CounterVec) http.Handler {
	h := handler{decide: decide, log: log, count: count}
	hook := (&admission.Webhook{Handler: h}).WithRecoverPanic(false)
	// The library's own lines about a request repeat ours, but for its errors.
	hook.LogConstructor = func(logr.Logger, *admission.Request) logr.Logger {
		return logr.FromSlogHandler(errorsOnly{log.Handler()})
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if trouble := recover(); trouble != nil {
				// What Handle came upon has been told, with the pod's name.
				if trouble != errTold {
					count.WithLabelValues(failed, "panic").Inc()
					log.Error("admission", "result", failed, "reason", "panic", "error", fmt.Sprint(trouble), "stack", string(debug.Stack()))
				}
				http.Error(w, "log-bridge-webhook failed at this request; its log says why", http.StatusInternalServerError)
			}
		}()
		hook.ServeHTTP(w, r)
	})
}

// errorsOnly lets errors pass.
type errorsOnly struct{ slog.Handler }

func (h errorsOnly) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelError && h.Handler.Enabled(ctx, level)
}

// WithAttrs and WithGroup keep it so.
func (h errorsOnly) WithAttrs(attrs []slog.Attr) slog.Handler {
	return errorsOnly{h.Handler.WithAttrs(attrs)}
}

func (h errorsOnly) WithGroup(name string) slog.Handler { return errorsOnly{h.Handler.WithGroup(name)} }

type handler struct {
	decide Decide
	log    *slog.Logger
	count  *prometheus.CounterVec
}

// errTold is the panic of a failure that Handle has counted and logged.
var errTold = errors.New("a failed call")

// Handle answers one request. It panics where the answer must be a failed call,
// since the library has no other way to one.
func (h handler) Handle(_ context.Context, req admission.Request) admission.Response {
	start := time.Now()
	var pod corev1.Pod
	defer func() {
		if trouble := recover(); trouble != nil {
			h.done(req, start, failed, "panic", admission.Response{}, "generateName", pod.GenerateName, "error", fmt.Sprint(trouble), "stack", string(debug.Stack()))
			panic(errTold)
		}
	}()
	if req.Kind.Group != "" || req.Kind.Kind != "Pod" || req.Operation != admissionv1.Create || req.SubResource != "" {
		return h.done(req, start, leftAlone, "not-a-new-pod", admission.Allowed(""))
	}
	if err := json.Unmarshal(req.Object.Raw, &pod); err != nil {
		panic(fmt.Errorf("pod of request %s: %w", req.UID, err))
	}
	result := h.decide(&pod)

	var response admission.Response
	outcome, reason := injected, ""
	switch mistakes := result.Mistakes(); {
	case len(mistakes) > 0:
		outcome, reason = refused, string(mistakes[0].Code)
		response = admission.Denied(result.Refusal())
		// The words of a person's mistake: 403, the library's, would send them looking
		// for a permission.
		response.Result.Code = http.StatusBadRequest
		response.Result.Reason = metav1.StatusReasonBadRequest
	case result.LeftAlone != "":
		outcome, reason = leftAlone, string(result.LeftAlone)
		response = admission.Allowed("")
	default:
		response = admission.Patched("", result.Operations...)
		if result.Mended {
			reason = mended
		}
	}
	for _, f := range result.Findings {
		if f.Severity() == inject.Warning {
			response.Warnings = append(response.Warnings, warning(f))
		}
	}
	more := []any{"generateName", pod.GenerateName, "findings", codes(result.Findings)}
	if result.By != "" {
		more = append(more, "by", result.By)
	}
	return h.done(req, start, outcome, reason, response, more...)
}

// done counts and logs one decision in one line.
func (h handler) done(req admission.Request, start time.Time, result, reason string, response admission.Response, more ...any) admission.Response {
	h.count.WithLabelValues(result, reason).Inc()
	attrs := append([]any{"namespace", req.Namespace, "name", req.Name, "uid", string(req.UID), "result", result, "reason", reason,
		"dryRun", req.DryRun != nil && *req.DryRun, "duration", time.Since(start).String()}, more...)
	if response.Result != nil && response.Result.Message != "" {
		attrs = append(attrs, "message", response.Result.Message)
	}
	level := slog.LevelInfo
	if result == failed {
		level = slog.LevelError
	}
	h.log.Log(context.Background(), level, "admission", attrs...)
	return response
}

// warning is a finding in at most 256 characters, where the API server cuts.
func warning(f inject.Finding) string {
	text := []rune("log-bridge: " + f.String())
	if len(text) > 256 {
		text = append(text[:255], '…')
	}
	return string(text)
}

func codes(of []inject.Finding) []string {
	all := []string{}
	for _, f := range of {
		all = append(all, string(f.Code))
	}
	return all
}
