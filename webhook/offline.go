package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/webhook/internal/inject"
	"github.com/log-bridge/log-bridge/webhook/internal/manifest"
)

// looked is a pod of a manifest and what is to be done with it.
type looked struct {
	*manifest.Pod
	inject.Result
}

// look reads a manifest and decides for each of its pods, as serve would.
func look(command string, args []string, stdin io.Reader, help io.Writer, more func(*flag.FlagSet)) (*manifest.Stream, []looked, string, error) {
	fs := flag.NewFlagSet(command, flag.ContinueOnError)
	name := ""
	fs.Func("f", "`FILE` with the manifest, YAML or JSON; - is standard input", func(s string) error {
		if name != "" {
			return errors.New("it takes one file; join several, as in: cat a.yaml b.yaml | log-bridge-webhook " + command + " -f -")
		}
		name = s
		return nil
	})
	var c inject.Config
	injectFlags(fs, &c)
	if more != nil {
		more(fs)
	}
	if err := parse(fs, args, help); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fmt.Fprint(help, exitCodes)
		}
		return nil, nil, "", err
	}
	var text []byte
	var err error
	switch name {
	case "":
		return nil, nil, "", fmt.Errorf("%s: no manifest; write -f FILE, or -f - for standard input", command)
	case "-":
		name = "standard input"
		text, err = io.ReadAll(stdin)
	default:
		text, err = os.ReadFile(name)
		if errors.Is(err, syscall.EISDIR) {
			err = fmt.Errorf("%s is a directory; name a file in it", name)
		}
	}
	if err != nil {
		return nil, nil, "", fmt.Errorf("%s: %w", command, err)
	}
	stream := manifest.Read(text)
	pods, err := stream.Pods()
	if err != nil {
		return nil, nil, "", fmt.Errorf("%s: %s: %w", command, name, err)
	}
	var all []looked
	for _, p := range pods {
		if p.Pod == nil {
			all = append(all, looked{Pod: p, Result: notLookedInto(p)})
			continue
		}
		r := inject.Pod(p.Pod, c)
		r.Findings = append(misplaced(p), r.Findings...)
		all = append(all, looked{Pod: p, Result: r})
	}
	return stream, all, name, nil
}

// misplaced finds our annotations on a workload itself, where they do nothing: Kubernetes
// does not hand them on to its pods. Tools that put annotations on everything also put
// them where they count.
func misplaced(p *manifest.Pod) []inject.Finding {
	var all []inject.Finding
	for _, key := range slices.Sorted(maps.Keys(p.Outer)) {
		if _, inside := p.Pod.Annotations[key]; strings.HasPrefix(key, contract.Prefix) && !inside {
			all = append(all, inject.Finding{Code: inject.LB0601, Text: key + " is on the workload itself and does nothing there; move it to the annotations of the pod template"})
		}
	}
	return all
}

// otherKind is why a pod in an object of a kind that is not Kubernetes' own is left alone.
const otherKind inject.Reason = "other-kind"

// notLookedInto warns of what would otherwise be passed over in silence: a kind that is
// misspelt as well as one that some operator knows.
func notLookedInto(p *manifest.Pod) inject.Result {
	version, kind := path.Split(p.Kind)
	return inject.Result{LeftAlone: otherKind, Findings: []inject.Finding{{Code: inject.LB0602, Text: fmt.Sprintf(
		"it has annotations of %s, but is not looked into, since Kubernetes has no kind %q of apiVersion %q; correct these two, or leave its pods to the webhook",
		strings.TrimSuffix(contract.Prefix, "/"), kind, strings.TrimSuffix(version, "/"))}}}
}

// injectCommand writes the manifest as it would be after admission. If anything in it
// is refused, it writes nothing: half a manifest is of no use.
func injectCommand(args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	stream, pods, name, err := look("inject", args, stdin, stdout, nil)
	if err != nil {
		return err
	}
	refused := false
	for _, p := range pods {
		for _, f := range p.Findings {
			if f.Severity() != inject.Note {
				fmt.Fprintf(stderr, "log-bridge-webhook: %s: %s: %s: %s\n", name, p.Object, f.Severity(), f)
			}
		}
		if len(p.Mistakes()) > 0 {
			refused = true
			continue
		}
		if err := p.Apply(p.Operations); err != nil {
			return fmt.Errorf("inject: %s: %w", name, err)
		}
	}
	if refused {
		return errMistakes
	}
	text, err := stream.Bytes()
	if err != nil {
		return fmt.Errorf("inject: %s: %w", name, err)
	}
	_, err = stdout.Write(text)
	return err
}

// checkCommand explains what would be done, and finds mistakes.
func checkCommand(args []string, stdin io.Reader, stdout io.Writer) error {
	list := false
	_, pods, name, err := look("check", args, stdin, stdout, func(fs *flag.FlagSet) {
		fs.BoolFunc("list", "print the table of findings, in Markdown, and end", func(string) error {
			list = true
			return errList
		})
	})
	out := bufio.NewWriter(stdout)
	if list {
		listFindings(out)
		return out.Flush()
	}
	if err != nil {
		return err
	}
	injected, mistaken := 0, 0
	for _, p := range pods {
		if p.LeftAlone == inject.NotAsked && len(p.Findings) == 0 {
			continue
		}
		fmt.Fprintf(out, "%s: %s: ", name, p.Object)
		switch {
		case len(p.Mistakes()) > 0:
			mistaken++
			fmt.Fprintln(out, "has mistakes")
		case p.LeftAlone != "":
			fmt.Fprintf(out, "is left alone (%s)\n", p.LeftAlone)
		default:
			injected++
			fmt.Fprintln(out, "gets the sidecar")
			for _, s := range p.Shares {
				fmt.Fprintf(out, "  %s\n    %s: %s\n", s.Entry, s.Way, s.Explain())
			}
		}
		for _, f := range p.Findings {
			fmt.Fprintf(out, "  %s %s: %s\n", f.Severity(), f.Code, f.Text)
		}
	}
	fmt.Fprintf(out, "%d with the sidecar, %d with mistakes, %d others\n", injected, mistaken, len(pods)-injected-mistaken)
	if err := out.Flush(); err != nil {
		return err
	}
	if mistaken > 0 {
		return errMistakes
	}
	return nil
}

// errList ends the reading of flags.
var errList = errors.New("list")

// listFindings writes the reference of findings.
func listFindings(w io.Writer) {
	fmt.Fprint(w, "| number | severity | what is the matter | remedy |\n|---|---|---|---|\n")
	for _, row := range inject.Codes {
		fmt.Fprintf(w, "| %s | %s | %s | %s |\n", row.Code, row.Severity, row.Title, row.Remedy)
	}
}
