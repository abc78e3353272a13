package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/go-logr/logr"
	_ "k8s.io/client-go/plugin/pkg/client/auth" // ways to log in that a kubeconfig may name
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/log-bridge/log-bridge/webhook/internal/inject"
	"github.com/log-bridge/log-bridge/webhook/internal/rules"
	"github.com/log-bridge/log-bridge/webhook/internal/survey"
)

// kube are kubectl's flags that say which cluster and namespace.
type kube struct {
	kubeconfig, context, namespace string
}

func (k *kube) flags(fs *flag.FlagSet) {
	fs.StringVar(&k.kubeconfig, "kubeconfig", "", "`FILE` of the kubeconfig (default: as for kubectl)")
	fs.StringVar(&k.context, "context", "", "`NAME` of the context of the kubeconfig to use")
	for _, name := range []string{"n", "namespace"} {
		fs.StringVar(&k.namespace, name, "", "`NAMESPACE` to check (default: that of the context)")
	}
}

// cluster is the way there, and the namespace. In a pod without a kubeconfig, it is the
// pod's cluster and namespace.
func (k *kube) cluster() (*rest.Config, string, error) {
	silenceLibraries()
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = k.kubeconfig
	overrides := &clientcmd.ConfigOverrides{CurrentContext: k.context}
	overrides.Context.Namespace = k.namespace
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides)
	config, err := loader.ClientConfig()
	if err != nil {
		return nil, "", fmt.Errorf("no cluster; set its kubeconfig with --kubeconfig or KUBECONFIG: %w", err)
	}
	config.UserAgent = "log-bridge-webhook/" + version
	namespace, _, err := loader.Namespace()
	if err != nil {
		return nil, "", fmt.Errorf("namespace of the kubeconfig: %w", err)
	}
	return config, namespace, nil
}

// silenceLibraries keeps the libraries' own log lines from the terminal: what they have to
// say comes back as an error, in our words, or is of no use to the person. A program that a
// kubeconfig names to log in still has stderr, where it may ask for something.
func silenceLibraries() {
	klog.SetLogger(logr.Discard())
	ctrllog.SetLogger(logr.Discard())
	rest.SetDefaultWarningHandler(rest.NoWarnings{})
}

// patience is how long a probe is tried again, unless the person says otherwise.
const patience = 10 * time.Second

// probeCommand shows whether an annotated pod would get the sidecar in a namespace.
func probeCommand(ctx context.Context, args []string, stdout io.Writer) error {
	var k kube
	fs := flag.NewFlagSet("probe", flag.ContinueOnError)
	k.flags(fs)
	with := fs.String("image", image(), "`IMAGE` of the probe's container, which never runs")
	wait := fs.Duration("timeout", patience, "how long to keep trying")
	if err := parse(fs, args, stdout); err != nil {
		return err
	}
	config, namespace, err := k.cluster()
	if err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	outcome, findings, err := survey.Probe(ctx, config, namespace, *with, *wait)
	if err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	say(stdout, "namespace %s: the webhook %s", namespace, outcome)
	writeFindings(stdout, findings)
	switch outcome {
	case survey.Injects:
		return nil
	case survey.Fails:
		return errMistakes
	}
	return errors.New("probe: the webhook could not be tried")
}

// checkCluster finds what is wrong in a cluster, or what a plan would change.
func checkCluster(ctx context.Context, k kube, all bool, c inject.Config, plan *rules.Set, stdout io.Writer) error {
	config, namespace, err := k.cluster()
	if err != nil {
		return fmt.Errorf("check: %w", err)
	}
	if all {
		namespace = ""
	}
	report, err := survey.Look(ctx, survey.Options{Rest: config, Namespace: namespace, Inject: c, Patience: patience, Plan: plan})
	if err != nil {
		return fmt.Errorf("check: %w", err)
	}
	out := bufio.NewWriter(stdout)
	mistaken := false
	for _, o := range report.Objects {
		where, verdict, more := "", "has warnings", ""
		if o.Namespace != "" {
			where = "namespace " + o.Namespace + ": "
		}
		if o.Mistaken() {
			mistaken, verdict = true, "has mistakes"
		}
		if o.More > 0 {
			more = fmt.Sprintf(" (and %d more of the same owner)", o.More)
		}
		say(out, "%s%s%s: %s", where, o.Name, more, verdict)
		writeFindings(out, o.Findings)
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
		return errMistakes
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
