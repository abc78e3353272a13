package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client/config"

	"github.com/log-bridge/log-bridge/webhook/internal/survey"
)

// probe is the test of the chart: it shows whether an annotated pod would get the sidecar in a namespace. People use
// `kubectl log-bridge probe`.
func probe(ctx context.Context, args []string, stdout io.Writer) error {
	fs := flag.NewFlagSet("probe", flag.ContinueOnError)
	namespace := fs.String("namespace", "default", "`NAMESPACE` of the pod, which is not stored")
	with := fs.String("image", image(), "`IMAGE` of the pod's container, which never runs")
	wait := fs.Duration("timeout", 30*time.Second, "how long to keep trying")
	if err := parse(fs, args, stdout); err != nil {
		return err
	}
	rest, err := config.GetConfig()
	if err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	outcome, findings, err := survey.Probe(ctx, rest, *namespace, *with, *wait)
	if err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	say(stdout, "namespace %s: the webhook %s", *namespace, outcome)
	for _, f := range findings {
		say(stdout, "  %s %s: %s", f.Severity(), f.Code, f.Text())
	}
	if outcome != survey.Injects {
		return errors.New("probe: the webhook does not inject, or could not be tried")
	}
	return nil
}
