package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/webhook/internal/finding"
	"github.com/log-bridge/log-bridge/webhook/internal/inject"
	"github.com/log-bridge/log-bridge/webhook/internal/manifest"
	"github.com/log-bridge/log-bridge/webhook/internal/rules"
)

// looked is a pod of a manifest and what is to be done with it.
type looked struct {
	*manifest.Pod
	inject.Result
}

// offline are the flags of inject and check.
type offline struct {
	file   string
	inject inject.Config
}

// flags adds the flags of a command to it.
func (o *offline) flags(c *cobra.Command) {
	c.Flags().FuncP("filename", "f", "`FILE` with the manifest, YAML or JSON; - is standard input", func(s string) error {
		if o.file != "" {
			return fmt.Errorf("it takes one file; concatenate several, as in: cat a.yaml b.yaml | kubectl log-bridge %s -f -", c.Name())
		}
		o.file = s
		return nil
	})
	fs := flag.NewFlagSet(c.Name(), flag.ContinueOnError)
	o.inject = inject.Config{Version: version, Image: defaultImage()}
	o.inject.Flags(fs)
	c.Flags().AddGoFlagSet(fs)
	c.Args = onlyFlags
}

// onlyFlags refuses arguments, and says what was probably meant.
func onlyFlags(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	remedy := "--help lists the flags"
	if c.Flags().NFlag() == 0 && c.Flags().Lookup("filename") != nil {
		remedy = "use -f " + args[0]
	}
	return fmt.Errorf("%s: %q is not a flag; %s", c.Name(), args[0], remedy)
}

// name is what the manifest is called in messages.
func (o *offline) name() string {
	if o.file == "-" {
		return "standard input"
	}
	return o.file
}

// look reads a manifest and decides for each of its pods, as serve would.
func (o *offline) look(ctx context.Context, command string, stdin io.Reader) (*manifest.Stream, []looked, error) {
	var text []byte
	var err error
	switch o.file {
	case "":
		return nil, nil, fmt.Errorf("%s: no manifest; use -f FILE, or -f - for standard input", command)
	case "-":
		text, err = io.ReadAll(stdin)
	default:
		text, err = os.ReadFile(o.file)
		if errors.Is(err, syscall.EISDIR) {
			err = fmt.Errorf("%s is a directory; name a file in it", o.file)
		}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", command, err)
	}
	if command == "check" && rules.InValues(text) {
		return nil, checkRules(ctx, text, o.inject), nil
	}
	stream := manifest.Read(text)
	pods, err := stream.Pods()
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %s: %w", command, o.name(), err)
	}
	var all []looked
	for _, p := range pods {
		if p.Pod == nil {
			all = append(all, looked{Pod: p, Result: notLookedInto(p)})
			continue
		}
		r := p.Decide(ctx, o.inject)
		if r.Err != nil {
			return nil, nil, fmt.Errorf("%s: %w", command, r.Err)
		}
		found := inject.Misplaced(p.Outer, p.Pod.Annotations)
		found.Merge(r.List)
		r.List = found
		all = append(all, looked{Pod: p, Result: r})
	}
	return stream, all, nil
}

// ofRules is why the values of the chart, which hold no pod, are left alone.
const ofRules inject.Reason = "rules"

// checkRules finds what is wrong with the rules in the values of the chart.
func checkRules(ctx context.Context, text []byte, c inject.Config) []looked {
	set, findings := rules.Parse(ctx, text, c)
	return []looked{{Pod: &manifest.Pod{Object: fmt.Sprintf("rules (%d)", len(set.Rules))}, Result: inject.Result{LeftAlone: ofRules, List: finding.Of(findings...)}}}
}

// readPlan reads the rules in values of the chart, which must be without mistakes. Without a name there
// is no plan.
func readPlan(ctx context.Context, file string, c inject.Config, stdout io.Writer) (*rules.Set, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("check: --plan: %w", err)
	}
	set, findings := rules.Parse(ctx, text, c)
	if len(findings) > 0 {
		say(stdout, "%s: rules (%d):", file, len(set.Rules))
		writeFindings(stdout, findings)
	}
	if len(finding.Mistakes(findings)) > 0 {
		return nil, errProblem
	}
	return set, nil
}

// otherKind is why a pod in an object of a kind that is not Kubernetes' own is left alone.
const otherKind inject.Reason = "other-kind"

// notLookedInto warns of what would otherwise be passed over in silence: a kind that is
// misspelt as well as one that some operator knows.
func notLookedInto(p *manifest.Pod) inject.Result {
	version, kind := path.Split(p.Kind)
	return inject.Result{LeftAlone: otherKind, List: finding.Of(finding.New(finding.UnknownKind,
		"it has %s annotations, but Kubernetes has no kind %q of apiVersion %q, so it is not checked; correct kind and apiVersion, or rely on the webhook if it is a custom resource",
		strings.TrimSuffix(contract.Prefix, "/"), kind, strings.TrimSuffix(version, "/")))}
}

// injectManifest is the command inject. If anything is refused, it writes nothing: half a manifest is of no use.
func (o *options) injectManifest() *cobra.Command {
	var f offline
	c := &cobra.Command{
		Use:   "inject -f FILE",
		Short: "Print a manifest with the sidecar added",
		Long: `Prints a manifest as it would be after admission, for clusters without the webhook. If anything in it would be refused, it prints nothing
but the mistakes.`,
	}
	f.flags(c)
	c.RunE = func(c *cobra.Command, _ []string) error { return injectCommand(c.Context(), f, o.In, o.Out, o.ErrOut) }
	return c
}

func injectCommand(ctx context.Context, o offline, stdin io.Reader, stdout, stderr io.Writer) error {
	stream, pods, err := o.look(ctx, "inject", stdin)
	if err != nil {
		return err
	}
	refused := false
	for _, p := range pods {
		for _, f := range p.Findings {
			if f.Severity() != finding.Note {
				say(stderr, "%s: %s: %s: %s: %s", caller, o.name(), p.Object, f.Severity(), f)
			}
		}
		if more := p.MoreMistakes + p.MoreOthers; more > 0 {
			fmt.Fprintf(stderr, "%s: %s: %s: and %d more\n", caller, o.name(), p.Object, more)
		}
		if len(p.Mistakes()) > 0 {
			refused = true
			continue
		}
		if err := p.Apply(p.Operations); err != nil {
			return fmt.Errorf("inject: %s: %w", o.name(), err)
		}
	}
	if refused {
		return errProblem
	}
	text, err := stream.Bytes()
	if err != nil {
		return fmt.Errorf("inject: %s: %w", o.name(), err)
	}
	_, err = stdout.Write(text)
	return err
}

// checking are the flags of check.
type checking struct {
	offline
	list, cluster, all bool
	planned            string
}

// check is the command that explains what would be done with a manifest and finds mistakes, or finds those of a cluster.
func (o *options) check() *cobra.Command {
	var f checking
	c := &cobra.Command{
		Use:   "check {-f FILE | --cluster}",
		Short: "Explain how files of a manifest would be shared, and find mistakes in it, or problems in a cluster",
		Long: `Explains how files of a manifest would be shared, and finds mistakes in it; or in the rules of the chart's values. With --cluster, it finds
problems in a cluster: pods and workloads, the webhook, its certificates, and rules. Nothing is changed.`,
		Example: `  kubectl log-bridge check -f deployment.yaml
  kubectl log-bridge check --cluster -A
  kubectl log-bridge check --cluster -A --plan values.yaml`,
	}
	f.flags(c)
	c.Flags().BoolVar(&f.list, "list", false, "print the table of findings as Markdown, and exit")
	c.Flags().BoolVar(&f.cluster, "cluster", false, "check a cluster instead of a manifest; select it with --kubeconfig, --context, -n and -A")
	c.Flags().BoolVarP(&f.all, "all-namespaces", "A", false, "check all namespaces")
	c.Flags().StringVar(&f.planned, "plan", "", "`FILE` with values of the chart: with --cluster, print what its rules would change")
	c.RunE = func(c *cobra.Command, _ []string) error {
		named := c.Flags().Changed("namespace")
		for _, name := range []string{"namespace", "kubeconfig", "context"} {
			if c.Flags().Changed(name) && !f.cluster {
				return errors.New("check: -n, -A, --kubeconfig and --context need --cluster")
			}
		}
		return o.checkCommand(c.Context(), f, named)
	}
	return c
}

func (o *options) checkCommand(ctx context.Context, f checking, named bool) error {
	stdin, stdout := o.In, o.Out
	switch {
	case f.list:
		listFindings(stdout)
		return nil
	case f.cluster && f.file != "":
		return errors.New("check: -f checks a manifest and --cluster a cluster; use one of them")
	case f.cluster && f.all && named:
		return errors.New("check: -A checks all namespaces and -n one; use one of them")
	case f.planned != "" && !f.cluster:
		return errors.New("check: --plan needs --cluster; to check only the rules, use -f " + f.planned)
	case f.cluster:
		plan, err := readPlan(ctx, f.planned, f.inject, stdout)
		if err != nil {
			return err
		}
		return o.checkCluster(ctx, f.all, f.inject, plan)
	case f.all:
		return errors.New("check: -n, -A, --kubeconfig and --context need --cluster")
	}
	_, pods, err := f.look(ctx, "check", stdin)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(stdout)
	injected, mistaken := 0, 0
	for _, p := range pods {
		if p.LeftAlone == inject.NotAsked && len(p.Findings) == 0 {
			continue
		}
		switch {
		case len(p.Mistakes()) > 0:
			mistaken++
			say(out, "%s: %s: has mistakes", f.name(), p.Object)
		case p.LeftAlone == ofRules:
			say(out, "%s: %s: can be used", f.name(), p.Object)
		case p.LeftAlone != "":
			say(out, "%s: %s: is left unchanged (%s)", f.name(), p.Object, p.LeftAlone)
		case p.Mended:
			injected++
			say(out, "%s: %s: has the sidecar; log-bridge restores what another webhook dropped", f.name(), p.Object)
		default:
			injected++
			say(out, "%s: %s: gets the sidecar", f.name(), p.Object)
			for _, s := range p.Shares {
				say(out, "  %s", s.Entry)
				say(out, "    %s: %s", s.Way, s.Explain())
			}
		}
		writeFindings(out, p.Findings)
		if more := p.MoreMistakes + p.MoreOthers; more > 0 {
			fmt.Fprintf(out, "  and %d more\n", more)
		}
	}
	say(out, "%d with the sidecar, %d with mistakes, %d others", injected, mistaken, len(pods)-injected-mistaken)
	if err := out.Flush(); err != nil {
		return err
	}
	if mistaken > 0 {
		return errProblem
	}
	return nil
}

// writeFindings writes those of one object, one a line.
func writeFindings(w io.Writer, findings []finding.Finding) {
	for _, f := range findings {
		say(w, "  %s %s: %s", f.Severity(), f.Code, f.Text())
	}
}

// listFindings writes the reference of findings.
func listFindings(w io.Writer) {
	fmt.Fprint(w, "| Number | Severity | Problem | Fix |\n|---|---|---|---|\n")
	for _, row := range finding.Table {
		fmt.Fprintf(w, "| %s | %s | %s | %s |\n", row.Code, row.Severity, row.Title, row.Remedy)
	}
}
