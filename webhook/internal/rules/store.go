package rules

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/log-bridge/log-bridge/webhook/internal/finding"
	"github.com/log-bridge/log-bridge/webhook/internal/inject"
)

// interval is how often the file is read. The kubelet takes up to a minute or so to renew a
// mounted ConfigMap, so a watch would hardly be faster.
const interval = 2 * time.Second

// Store keeps the rules of a file, which it reads again while it runs. A file that
// cannot be used leaves the rules as they are.
type Store struct {
	file   string
	config inject.Config
	log    *slog.Logger

	set    atomic.Pointer[Set]
	broken atomic.Bool
	last   []byte // the content that was read last
	failed string // why it could not be used
}

// NewStore reads a file once. Without a name there are no rules.
func NewStore(ctx context.Context, file string, c inject.Config, log *slog.Logger) *Store {
	s := &Store{file: file, config: c, log: log}
	s.set.Store(&Set{})
	s.read(ctx)
	return s
}

// Set is that of the last good file.
func (s *Store) Set() *Set { return s.set.Load() }

// Broken says whether the file cannot be used as it is.
func (s *Store) Broken() bool { return s.broken.Load() }

// Run reads the file again and again, until the context ends.
func (s *Store) Run(ctx context.Context) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			s.read(ctx)
		}
	}
}

// read takes a new content over. What is wrong is logged once.
func (s *Store) read(ctx context.Context) {
	if s.file == "" {
		return
	}
	text, err := os.ReadFile(s.file)
	if err == nil && s.last != nil && bytes.Equal(text, s.last) {
		return
	}
	if err == nil {
		s.last = text
		err = s.take(ctx, text)
	} else {
		s.last = nil
	}
	s.broken.Store(err != nil)
	if err == nil {
		s.failed = ""
		return
	}
	if err.Error() != s.failed {
		s.failed = err.Error()
		s.log.Error("rules cannot be read; the previous rules stay in force", "file", s.file, "rules", len(s.Set().Rules), "error", s.failed)
	}
}

func (s *Store) take(ctx context.Context, text []byte) error {
	set, findings := Parse(ctx, text, s.config)
	if mistakes := finding.Mistakes(findings); len(mistakes) > 0 {
		return errors.New(finding.Join(mistakes, 0))
	}
	if ctx.Err() != nil {
		return fmt.Errorf("check the rules: %w", ctx.Err())
	}
	s.set.Store(set)
	s.log.Info("rules read", "file", s.file, "rules", len(set.Rules))
	return nil
}

// Metrics are about the file.
func (s *Store) Metrics() []prometheus.Collector {
	return []prometheus.Collector{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "log_bridge_rules",
			Help: "Rules that the webhook applies.",
		}, func() float64 { return float64(len(s.Set().Rules)) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "log_bridge_rules_unreadable",
			Help: "1 while the rules file cannot be used, so that the webhook applies the last good one; else 0.",
		}, func() float64 {
			if s.Broken() {
				return 1
			}
			return 0
		}),
	}
}
