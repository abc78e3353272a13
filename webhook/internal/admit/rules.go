package admit

import (
	"context"
	"log/slog"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"

	"github.com/log-bridge/log-bridge/webhook/internal/inject"
	"github.com/log-bridge/log-bridge/webhook/internal/rules"
)

// RulePath is where the API server sends pods that a rule selects: each rule has its own.
const RulePath = "/rules/{name}"

// RuleCounter counts what became of the pods of each rule.
func RuleCounter() *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "log_bridge_rule_decisions_total",
		Help: "Pods that a rule selected, by rule and result: injected, failed, or the reason why they were left unchanged, such as rule-does-not-fit and other-rule.",
	}, []string{"rule", "result"})
}

// RuleHandler serves admission reviews of pods that rules select, on RulePath. It denies none.
func RuleHandler(set func() *rules.Set, c inject.Config, log *slog.Logger, count, byRule *prometheus.CounterVec) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, known := r.PathValue("name"), set()
		h := handler{log: log, count: count, rule: name, decide: func(ctx context.Context, pod *corev1.Pod) inject.Result {
			return known.Pod(ctx, name, pod, c)
		}}
		// Anybody may ask for any name, and each would be a series that stays.
		if known.Get(name) != nil {
			h.rules = byRule
		}
		h.ServeHTTP(w, r)
	})
}

func (h handler) tellRule(result, reason string) {
	if h.rules == nil {
		return
	}
	if result == leftAlone {
		result = reason
	}
	h.rules.WithLabelValues(h.rule, result).Inc()
}
