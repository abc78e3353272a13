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

func (o *offline) flags(command string) *flag.FlagSet {
	fs := flag.NewFlagSet(command, flag.ContinueOnError)
	fs.Func("f", "`FILE` with the manifest, YAML or JSON; - is standard input", func(s string) error {
		if o.file != "" {
			return fmt.Errorf("it takes one file; concatenate several, as in: cat a.yaml b.yaml | %s %s -f -", called(), command)
		}
		o.file = s
		return nil
	})
	injectFlags(fs, &o.inject)
	return fs
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
		return nil, errMistakes
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

// injectCommand writes the manifest as it would be after admission. If anything in it
// is refused, it writes nothing: half a manifest is of no use.
func injectCommand(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	var o offline
	if err := parse(o.flags("inject"), args, stdout); err != nil {
		return err
	}
	stream, pods, err := o.look(ctx, "inject", stdin)
	if err != nil {
		return err
	}
	refused := false
	for _, p := range pods {
		for _, f := range p.Findings {
			if f.Severity() != finding.Note {
				say(stderr, "%s: %s: %s: %s: %s", called(), o.name(), p.Object, f.Severity(), f)
			}
		}
		if more := p.MoreMistakes + p.MoreOthers; more > 0 {
			fmt.Fprintf(stderr, "%s: %s: %s: and %d more\n", called(), o.name(), p.Object, more)
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
		return errMistakes
	}
	text, err := stream.Bytes()
	if err != nil {
		return fmt.Errorf("inject: %s: %w", o.name(), err)
	}
	_, err = stdout.Write(text)
	return err
}

// checkCommand explains what would be done with a manifest, and finds mistakes; or it
// finds those of a cluster.
func checkCommand(ctx context.Context, args []string, stdin io.Reader, stdout io.Writer) error {
	var o offline
	var k kube
	var list, cluster bool
	fs := o.flags("check")
	fs.BoolVar(&list, "list", false, "print the table of findings as Markdown, and exit")
	fs.BoolVar(&cluster, "cluster", false, "check a cluster instead of a manifest; select it with --kubeconfig, --context, -n and -A")
	k.flags(fs)
	planned := ""
	fs.StringVar(&planned, "plan", "", "`FILE` with values of the chart: with --cluster, print what its rules would change")
	all := false
	for _, name := range []string{"A", "all-namespaces"} {
		fs.BoolVar(&all, name, false, "check all namespaces")
	}
	if err := parse(fs, args, stdout); err != nil {
		return err
	}
	switch {
	case list:
		listFindings(stdout)
		return nil
	case cluster && o.file != "":
		return errors.New("check: -f checks a manifest and --cluster a cluster; use one of them")
	case cluster && all && k.namespace != "":
		return errors.New("check: -A checks all namespaces and -n one; use one of them")
	case planned != "" && !cluster:
		return errors.New("check: --plan needs --cluster; to check only the rules, use -f " + planned)
	case cluster:
		plan, err := readPlan(ctx, planned, o.inject, stdout)
		if err != nil {
			return err
		}
		return checkCluster(ctx, k, all, o.inject, plan, stdout)
	case all || k != (kube{}):
		return errors.New("check: -n, -A, --kubeconfig and --context need --cluster")
	}
	_, pods, err := o.look(ctx, "check", stdin)
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
			say(out, "%s: %s: has mistakes", o.name(), p.Object)
		case p.LeftAlone == ofRules:
			say(out, "%s: %s: can be used", o.name(), p.Object)
		case p.LeftAlone != "":
			say(out, "%s: %s: is left unchanged (%s)", o.name(), p.Object, p.LeftAlone)
		case p.Mended:
			injected++
			say(out, "%s: %s: has the sidecar; log-bridge restores what another webhook dropped", o.name(), p.Object)
		default:
			injected++
			say(out, "%s: %s: gets the sidecar", o.name(), p.Object)
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
		return errMistakes
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
