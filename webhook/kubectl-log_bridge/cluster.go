package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/log-bridge/log-bridge/webhook/internal/inject"
	"github.com/log-bridge/log-bridge/webhook/internal/rules"
	"github.com/log-bridge/log-bridge/webhook/internal/survey"
)

// tries is how long a probe is tried again, unless the person says otherwise.
const tries = 10 * time.Second

// probe is the command that shows whether an annotated pod would get the sidecar in a namespace.
func (o *options) probe() *cobra.Command {
	c := &cobra.Command{
		Use:   "probe",
		Short: "Check whether an annotated pod would get the sidecar in a namespace",
		Long:  `Asks the API server, as a dry run, what it would make of an annotated pod in a namespace.`,
		Args:  onlyFlags,
	}
	with := c.Flags().String("image", defaultImage(), "`IMAGE` of the probe's container, which never runs")
	wait := c.Flags().Duration("timeout", tries, "how long to keep trying")
	c.RunE = func(c *cobra.Command, _ []string) error {
		config, namespace, err := o.cluster()
		if err != nil {
			return fmt.Errorf("probe: %w", err)
		}
		outcome, findings, err := survey.Probe(c.Context(), config, namespace, *with, *wait)
		if err != nil {
			return fmt.Errorf("probe: %w", err)
		}
		say(o.Out, "namespace %s: the webhook %s", namespace, outcome)
		writeFindings(o.Out, findings)
		switch outcome {
		case survey.Injects:
			return nil
		case survey.Fails:
			return errProblem
		}
		return errors.New("probe: the webhook could not be tried")
	}
	return c
}

// cluster is the way to the cluster for what tells all in its own words, and the namespace. In a pod without a kubeconfig, it is
// the pod's cluster and namespace.
func (o *options) cluster() (*rest.Config, string, error) {
	ctrllog.SetLogger(logr.Discard())
	rest.SetDefaultWarningHandler(rest.NoWarnings{})
	config, _, err := o.client()
	if err != nil {
		return nil, "", err
	}
	config.WarningHandler, config.WarningHandlerWithContext = rest.NoWarnings{}, nil
	namespace, _, err := o.kube.ToRawKubeConfigLoader().Namespace()
	if err != nil {
		return nil, "", fmt.Errorf("namespace of the kubeconfig: %w", err)
	}
	return config, namespace, nil
}

// checkCluster finds what is wrong in a cluster, or what a plan would change.
func (o *options) checkCluster(ctx context.Context, all bool, c inject.Config, plan *rules.Set) error {
	config, namespace, err := o.cluster()
	if err != nil {
		return fmt.Errorf("check: %w", err)
	}
	if all {
		namespace = ""
	}
	report, err := survey.Look(ctx, survey.Options{Rest: config, Namespace: namespace, Inject: c, Patience: tries, Plan: plan})
	if err != nil {
		return fmt.Errorf("check: %w", err)
	}
	out := bufio.NewWriter(o.Out)
	mistaken := false
	for _, object := range report.Objects {
		where, verdict, more := "", "has warnings", ""
		if object.Namespace != "" {
			where = "namespace " + object.Namespace + ": "
		}
		if object.Mistaken() {
			mistaken, verdict = true, "has mistakes"
		}
		if object.More > 0 {
			more = fmt.Sprintf(" (and %d more of the same owner)", object.More)
		}
		say(out, "%s%s%s: %s", where, object.Name, more, verdict)
		writeFindings(out, object.Findings)
	}
	for _, err := range report.Errors {
		say(out, "not checked: %v", err)
	}
	for _, r := range report.Rules {
		sayRule(out, r, plan != nil)
	}
	if plan == nil {
		say(out, "pods with the sidecar: %d, annotated without: %d; the webhook %s", report.Injected, report.Bare, report.Outcome)
	}
	if err := out.Flush(); err != nil {
		return err
	}
	if mistaken {
		return errProblem
	}
	if len(report.Errors) > 0 {
		return errors.New("check: not everything could be checked")
	}
	return nil
}

// sayRule writes what a rule selects. In a plan, it is what the rule would select.
func sayRule(w io.Writer, r survey.Rule, plan bool) {
	if r.Gone {
		where := "not in the cluster's rules"
		if plan {
			where = "not in the plan"
		}
		say(w, "rule %s: %s; %d pods run with it until they are restarted", r.Name, where, r.With)
		return
	}
	if r.Selected == 0 {
		say(w, "rule %s: selects no pod", r.Name)
		return
	}
	restart := "%d need a restart"
	if plan {
		restart = "%d would change when they are restarted"
	}
	text := fmt.Sprintf("selects %d pods in %s; %d run with it, "+restart, r.Selected, namespacesOf(r.Namespaces), r.With, r.Restart)
	if r.Misfit > 0 {
		text += fmt.Sprintf(", it does not fit %d", r.Misfit)
	}
	if r.Earlier > 0 {
		text += fmt.Sprintf(", an earlier rule decides about %d", r.Earlier)
	}
	say(w, "rule %s: %s", r.Name, text)
}

// maxNamespaces is how many namespaces a line names; more are counted.
const maxNamespaces = 5

func namespacesOf(names []string) string {
	word := "namespaces "
	if len(names) == 1 {
		word = "namespace "
	}
	if more := len(names) - maxNamespaces; more > 0 {
		return word + strings.Join(names[:maxNamespaces], ", ") + fmt.Sprintf(" and %d more", more)
	}
	return word + strings.Join(names, ", ")
}
