// Package admit answers the API server: an AdmissionReview with a pod comes in, a
// patch, an admission without a patch, or a denial goes out.
//
// It is the only place that logs, counts, allows or denies. What the user got wrong
// is denied with a sentence. What we got wrong, a panic above all, is HTTP 500: a
// failed call, which the webhook's failurePolicy decides about, while an explicit
// denial would block the pod whatever the policy says.
package admit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"mime"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	kjson "sigs.k8s.io/json"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/webhook/internal/finding"
	"github.com/log-bridge/log-bridge/webhook/internal/inject"
	"github.com/log-bridge/log-bridge/webhook/internal/rules"
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
		Help: "Pods that the webhook decided about, by result (injected, left-alone, refused, failed) and reason.",
	}, []string{"result", "reason"})
	// A counter that begins with its first failure would not rise by it, for an alert.
	for _, reason := range []string{"panic", "unreadable", "canceled"} {
		count.WithLabelValues(failed, reason)
	}
	return count
}

// Decide is inject.Pod with its configuration.
type Decide func(context.Context, *corev1.Pod) inject.Result

// Bounds of one answer and one line of the log, beside those of package inject.
const (
	// maxWarnings is how many warnings an answer has at most: more are counted.
	maxWarnings = 10
	// maxCodes is how many codes of findings the log has at most.
	maxCodes = 20
)

// Handler serves admission reviews of pods. It may serve any number at once, if
// decide may. It takes the body as it comes: the caller bounds its size and the time in which it
// comes, as server.Reviews does.
//
// It reads reviews itself rather than by controller-runtime's admission.Webhook, which copies
// a review several times and decodes whatever it holds: three bytes of a pod can become
// a few hundred of memory. It also answers what it cannot read with a decision.
func Handler(decide Decide, log *slog.Logger, count *prometheus.CounterVec) http.Handler {
	return handler{decide: decide, log: log, count: count}
}

type handler struct {
	decide Decide
	log    *slog.Logger
	count  *prometheus.CounterVec
	// rule is the one that is asked for, and rules counts its decisions.
	rule  string
	rules *prometheus.CounterVec
}

// review is an AdmissionReview as it is sent, with what is needed of it.
type review struct {
	metav1.TypeMeta `json:",inline"`
	Request         *request `json:"request"`
}

// request is what is needed of an admissionv1.AdmissionRequest.
type request struct {
	UID         types.UID               `json:"uid"`
	Kind        metav1.GroupVersionKind `json:"kind"`
	SubResource string                  `json:"subResource"`
	Name        string                  `json:"name"`
	Namespace   string                  `json:"namespace"`
	Operation   admissionv1.Operation   `json:"operation"`
	DryRun      *bool                   `json:"dryRun"`
	Object      object                  `json:"object"`
}

// object is a pod, decoded in its place in the review.
type object struct {
	pod *corev1.Pod
	// tooMuch is the decision about one that was not decoded.
	tooMuch *inject.Result
	err     error
}

// UnmarshalJSON decodes the pod if it is within the bounds. Text that is not a pod is not an error
// before it is known that it should be one.
func (o *object) UnmarshalJSON(text []byte) error {
	o.pod, o.tooMuch, o.err = inject.Decode(text)
	return nil
}

// failure is a call that fails: the webhook's failurePolicy decides what becomes of the pod.
type failure struct {
	code   int
	reason string
	err    error
}

// ServeHTTP answers one review.
func (h handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	var req request
	defer func() {
		if trouble := recover(); trouble != nil {
			h.fail(w, req, start, failure{http.StatusInternalServerError, "panic", fmt.Errorf("%v", trouble)}, "stack", string(debug.Stack()))
		}
	}()
	kind, f := read(r, &req)
	if f != nil {
		h.fail(w, req, start, *f)
		return
	}
	response, f := h.answer(r.Context(), req, start)
	if f != nil {
		h.fail(w, req, start, *f)
		return
	}
	response.UID = req.UID
	w.Header().Set("Content-Type", "application/json")
	// An error is a connection that broke.
	_ = json.NewEncoder(w).Encode(admissionv1.AdmissionReview{TypeMeta: kind, Response: response})
}

// read reads a review.
func read(r *http.Request, req *request) (metav1.TypeMeta, *failure) {
	unreadable := func(err error) (metav1.TypeMeta, *failure) {
		return metav1.TypeMeta{}, &failure{http.StatusBadRequest, "unreadable", err}
	}
	if r.Method != http.MethodPost {
		return metav1.TypeMeta{}, &failure{http.StatusMethodNotAllowed, "unreadable", errors.New("expected a POST with an AdmissionReview")}
	}
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/json" {
		return metav1.TypeMeta{}, &failure{http.StatusUnsupportedMediaType, "unreadable", errors.New("expected an AdmissionReview as application/json")}
	}
	var body bytes.Buffer
	body.Grow(int(max(0, r.ContentLength)) + bytes.MinRead)
	if _, err := body.ReadFrom(r.Body); err != nil {
		return unreadable(fmt.Errorf("read the review: %w", err))
	}
	var v review
	if err := kjson.UnmarshalCaseSensitivePreserveInts(body.Bytes(), &v); err != nil {
		return unreadable(fmt.Errorf("this is not an AdmissionReview: %w", err))
	}
	if v.Kind != "AdmissionReview" || v.Request == nil || v.Request.UID == "" {
		return unreadable(errors.New("this is not an AdmissionReview with a request"))
	}
	*req = *v.Request
	return v.TypeMeta, nil
}

// answer decides about one request.
func (h handler) answer(ctx context.Context, req request, start time.Time) (*admissionv1.AdmissionResponse, *failure) {
	if req.Kind.Group != "" || req.Kind.Kind != "Pod" || req.Operation != admissionv1.Create || req.SubResource != "" {
		return h.done(req, start, leftAlone, "not-a-new-pod", &admissionv1.AdmissionResponse{Allowed: true}), nil
	}
	var result inject.Result
	switch {
	case req.Object.err != nil:
		return nil, &failure{http.StatusBadRequest, "unreadable", fmt.Errorf("pod of request %s: %w", req.UID, req.Object.err)}
	case req.Object.tooMuch != nil:
		result = *req.Object.tooMuch
		if h.rule != "" {
			result = rules.Soften(h.rule, result)
		}
	case req.Object.pod == nil:
		return nil, &failure{http.StatusBadRequest, "unreadable", fmt.Errorf("request %s contains no pod", req.UID)}
	default:
		result = h.decide(ctx, req.Object.pod)
	}
	if result.Err != nil {
		return nil, &failure{http.StatusServiceUnavailable, "canceled", result.Err}
	}

	response := &admissionv1.AdmissionResponse{Allowed: true}
	outcome, reason := injected, ""
	switch mistakes := result.Mistakes(); {
	case len(mistakes) > 0:
		outcome, reason = refused, string(mistakes[0].Code)
		response.Allowed = false
		// The words of a person's mistake: 403, the usual code, would send them looking for a
		// permission.
		response.Result = &metav1.Status{Code: http.StatusBadRequest, Reason: metav1.StatusReasonBadRequest, Message: result.Refusal()}
	case result.LeftAlone != "":
		outcome, reason = leftAlone, string(result.LeftAlone)
	default:
		patch, err := json.Marshal(result.Operations)
		if err != nil {
			panic(err) // values of Kubernetes' types always have a JSON form
		}
		kind := admissionv1.PatchTypeJSONPatch
		response.Patch, response.PatchType = patch, &kind
		if result.Mended {
			reason = mended
		}
	}
	more := result.MoreOthers
	for _, f := range result.Findings {
		switch {
		case f.Severity() != finding.Warning:
		case len(response.Warnings) == maxWarnings:
			more++
		default:
			response.Warnings = append(response.Warnings, warning(f))
		}
	}
	if more > 0 {
		response.Warnings = append(response.Warnings, fmt.Sprintf("log-bridge: and %d more; `kubectl log-bridge check -f` lists them", more))
	}
	attrs := []any{"findings", codes(result.Findings)}
	if result.By != "" {
		attrs = append(attrs, "by", contract.Brief(result.By))
	}
	if h.rule != "" {
		attrs = append(attrs, "rule", contract.Brief(h.rule))
	}
	return h.done(req, start, outcome, reason, response, attrs...), nil
}

// done counts and logs one decision in one line.
func (h handler) done(req request, start time.Time, result, reason string, response *admissionv1.AdmissionResponse, more ...any) *admissionv1.AdmissionResponse {
	if response.Result != nil {
		more = append(more, "message", response.Result.Message)
	}
	h.tell(slog.LevelInfo, req, start, result, reason, more...)
	return response
}

// fail answers with a failed call, and counts and logs it in one line.
func (h handler) fail(w http.ResponseWriter, req request, start time.Time, f failure, more ...any) {
	h.tell(slog.LevelError, req, start, failed, f.reason, append([]any{"error", contract.Cut(f.err.Error(), finding.MaxSentence)}, more...)...)
	http.Error(w, "log-bridge-webhook failed to handle this request; its log says why", f.code)
}

func (h handler) tell(level slog.Level, req request, start time.Time, result, reason string, more ...any) {
	h.count.WithLabelValues(result, reason).Inc()
	h.tellRule(result, reason)
	attrs := []any{"namespace", contract.Brief(req.Namespace), "name", contract.Brief(req.Name)}
	if pod := req.Object.pod; pod != nil {
		attrs = append(attrs, "generateName", contract.Brief(pod.GenerateName))
	}
	attrs = append(attrs, "uid", contract.Brief(string(req.UID)), "result", result, "reason", reason,
		"dryRun", req.DryRun != nil && *req.DryRun, "duration", time.Since(start).String())
	h.log.Log(context.Background(), level, "admission", append(attrs, more...)...)
}

// warning is a finding in at most 256 characters, where the API server cuts.
func warning(f finding.Finding) string {
	text := []rune("log-bridge: " + f.String())
	if len(text) > 256 {
		text = append(text[:255], '…')
	}
	return string(text)
}

func codes(of []finding.Finding) []string {
	all := []string{}
	for _, f := range of {
		if len(all) == maxCodes {
			break
		}
		all = append(all, string(f.Code))
	}
	return all
}
