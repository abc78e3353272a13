package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/webhook/internal/discovery"
	"github.com/log-bridge/log-bridge/webhook/internal/ephemeral"
)

// discovered is what was found in one pod of a workload.
type discovered struct {
	Namespace  string            `json:"namespace"`
	Workload   string            `json:"workload"`
	Pod        string            `json:"pod,omitempty"`
	Containers []discovery.Found `json:"containers,omitempty"`
	// Annotations bridge all its logs; keys are as they are written on a pod.
	Annotations map[string]string `json:"annotations,omitempty"`
	// Problems say what could not be looked at.
	Problems []string `json:"problems,omitempty"`

	labels map[string]string
	of     *workload
}

// atOnce is how many pods are looked at at a time: each gets a container more.
const atOnce = 4

// defaultWatch is how long to watch what grows and rotates.
const defaultWatch = 5 * time.Second

func (o *options) discover() *cobra.Command {
	var s selection
	var container, output string
	var watch time.Duration
	c := &cobra.Command{
		Use:   "discover [POD | TYPE/NAME]…",
		Short: "Find the log files that running containers write, and the annotations that bridge them",
		Long: `Finds the log files that running containers write, and the annotations that bridge them.

It looks at files that processes have open for writing and at files that changed since the container started, and watches for some
seconds what grows and rotates. Of several pods of one workload it looks at one. Nothing is changed or restarted; an ephemeral
container of the sidecar's image stays listed in the pod, though its process has ended.`,
		Example: `  kubectl log-bridge discover deployment/shop
  kubectl log-bridge discover -A -o json
  kubectl log-bridge discover deployment/shop -o patch > patch.yaml && kubectl patch deployment shop --patch-file patch.yaml`,
	}
	o.looks(c)
	c.Flags().StringVarP(&s.selector, "selector", "l", "", "look at pods with these `LABELS`")
	c.Flags().BoolVarP(&s.all, "all-namespaces", "A", false, "look at pods of all namespaces")
	c.Flags().StringVarP(&container, "container", "c", "", "look at this `CONTAINER` only")
	c.Flags().DurationVar(&watch, "watch", defaultWatch, "how long to watch what grows and rotates")
	c.Flags().StringVarP(&output, "output", "o", "", "`FORMAT`: wide, json, yaml, patch (of the pod template), or rule (for the values of the chart)")
	c.RunE = func(c *cobra.Command, args []string) error {
		if !slices.Contains([]string{"", "wide", "json", "yaml", "patch", "rule"}, output) {
			return fmt.Errorf("unknown output format %q; use wide, json, yaml, patch or rule", output)
		}
		s.args = args
		return o.discoverAll(c.Context(), s, container, watch, output)
	}
	return c
}

func (o *options) discoverAll(ctx context.Context, s selection, container string, watch time.Duration, output string) error {
	r, err := o.runner()
	if err != nil {
		return err
	}
	workloads, err := o.workloads(ctx, r.API, s)
	if err != nil {
		return err
	}
	if len(workloads) == 0 {
		return errors.New("no pods were found; name one, or select some with -n, -l or -A")
	}
	say(o.ErrOut, "looking into %s for %v …", plural(len(workloads), "pod"), watch)
	all := make([]*discovered, len(workloads))
	slots := make(chan struct{}, atOnce)
	var wait sync.WaitGroup
	for i, w := range workloads {
		wait.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			all[i] = look(ctx, r, w, container, watch)
		})
	}
	wait.Wait()
	if err := ctx.Err(); err != nil {
		return err
	}
	switch output {
	case "json":
		encoder := json.NewEncoder(o.Out)
		encoder.SetIndent("", "  ")
		err = encoder.Encode(all)
	case "yaml":
		err = writeYAML(o.Out, all)
	case "patch":
		err = writePatches(o.Out, all)
	case "rule":
		err = writeRules(o.Out, all)
	default:
		err = o.writeTable(all, output == "wide")
	}
	if err != nil {
		return err
	}
	troubled := false
	for _, d := range all {
		for _, problem := range d.Problems {
			troubled = true
			say(o.ErrOut, "%s in namespace %s: %s", d.Workload, d.Namespace, problem)
		}
	}
	if troubled {
		return errProblem
	}
	return nil
}

// look looks into one pod of a workload.
func look(ctx context.Context, r *ephemeral.Runner, w *workload, container string, watch time.Duration) *discovered {
	d := &discovered{Namespace: w.Namespace, Workload: w.Name, of: w}
	pod := w.running()
	if pod == nil {
		d.Problems = append(d.Problems, "no pod runs now; try again while one does")
		return d
	}
	d.Pod, d.labels = pod.Name, pod.Labels
	names := applications(pod)
	if container != "" {
		names = []string{container}
	}
	var parts []map[string]string
	for _, name := range names {
		found, err := lookInto(ctx, r, &ephemeral.Target{Pod: pod, Container: name}, watch)
		if err != nil {
			d.Problems = append(d.Problems, err.Error())
			continue
		}
		if found.Hidden > 0 {
			d.Problems = append(d.Problems, fmt.Sprintf("container %s: the open files of %s of other users could not be seen; only what changed on disk is listed for them", name, plural(found.Hidden, "process")))
		}
		if found.More {
			d.Problems = append(d.Problems, fmt.Sprintf("container %s has too many files; not all are listed", name))
		}
		judged := discovery.Judge(pod, name, found.Files)
		d.Containers = append(d.Containers, judged)
		parts = append(parts, judged.Annotations)
	}
	d.Annotations = merge(parts)
	return d
}

// merge makes the annotations of several containers those of their pod: the entries of all, and of the others the first.
func merge(parts []map[string]string) map[string]string {
	out := map[string]string{}
	for _, part := range parts {
		for key, value := range part {
			switch have, ok := out[contract.Prefix+key]; {
			case !ok:
				out[contract.Prefix+key] = value
			case key == contract.KeyFiles:
				out[contract.Prefix+key] = have + "," + value
			}
		}
	}
	return out
}

func (o *options) writeTable(all []*discovered, wide bool) error {
	table := tabwriter.NewWriter(o.Out, 0, 8, 2, ' ', 0)
	head := "NAMESPACE\tWORKLOAD\tCONTAINER\tLOG\tSIZE\tGREW\tROTATES\tVOLUME\tBRIDGED"
	if wide {
		head += "\tFILES\tOWNER\tMODE\tPROGRAM\tWHY"
	}
	fmt.Fprintln(table, head)
	logs, left := 0, 0
	for _, d := range all {
		for _, c := range d.Containers {
			left += len(c.Left)
			for _, l := range c.Logs {
				logs++
				row := []string{d.Namespace, d.Workload, c.Container, l.Path, size(l.Size), grown(l.Grew), orDash(l.Rotates), orDash(l.Volume), yesNo(l.Bridged)}
				if wide {
					row = append(row, fmt.Sprint(l.Files), fmt.Sprint(l.Owner), l.Mode, orDash(l.Program), strings.Join(l.Why, ", "))
				}
				for i := range row {
					row[i] = contract.Line(row[i])
				}
				fmt.Fprintln(table, strings.Join(row, "\t"))
			}
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, d := range all {
		o.writeSuggestion(d)
		if wide {
			for _, c := range d.Containers {
				for _, l := range c.Left {
					say(o.Out, "%s: left out %s:%s (%s)", d.Workload, c.Container, l.Path, l.Why)
				}
			}
		}
	}
	say(o.Out, "%s in %s; %s left out%s", plural(logs, "log"), plural(len(all), "pod"), plural(left, "other file"), hint(left > 0 && !wide))
	return nil
}

func hint(is bool) string {
	if is {
		return ", which -o wide lists"
	}
	return ""
}

// writeSuggestion writes the annotations for one workload, and why.
func (o *options) writeSuggestion(d *discovered) {
	if len(d.Annotations) == 0 {
		return
	}
	fmt.Fprintln(o.Out)
	say(o.Out, "To bridge %s in namespace %s, add to %s:", d.Workload, d.Namespace, template(d.of.Kind))
	for _, key := range slices.Sorted(maps.Keys(d.Annotations)) {
		say(o.Out, "  %s: %s", key, quoted(d.Annotations[key]))
	}
	for _, c := range d.Containers {
		for _, why := range c.Why {
			say(o.Out, "  # %s: %s", c.Container, why)
		}
	}
	fmt.Fprintln(o.Out)
}

// template is where annotations of a kind's pods are.
func template(kind string) string {
	switch kind {
	case "Pod":
		return "metadata.annotations of its manifest"
	case "CronJob":
		return "spec.jobTemplate.spec.template.metadata.annotations"
	}
	return "spec.template.metadata.annotations"
}

// quoted writes a value as YAML has it.
func quoted(value string) string {
	text, err := yaml.Marshal(value)
	if err != nil {
		return fmt.Sprintf("%q", value)
	}
	return strings.TrimSpace(string(text))
}

func writeYAML(w io.Writer, value any) error {
	text, err := yaml.Marshal(value)
	if err != nil {
		return err
	}
	_, err = w.Write(text)
	return err
}

// writePatches writes strategic-merge patches, one document for each workload.
func writePatches(w io.Writer, all []*discovered) error {
	n := 0
	for _, d := range all {
		if len(d.Annotations) == 0 {
			continue
		}
		if n++; n > 1 {
			fmt.Fprintln(w, "---")
		}
		say(w, "# kubectl patch --namespace %s %s --patch-file FILE", d.Namespace, d.Workload)
		if err := writeYAML(w, patchOf(d.of.Kind, d.Annotations)); err != nil {
			return err
		}
	}
	return nil
}

// patchOf sets annotations on the pods of a kind.
func patchOf[V any](kind string, annotations map[string]V) map[string]any {
	patch := map[string]any{"metadata": map[string]any{"annotations": annotations}}
	if kind == "Pod" {
		return patch
	}
	patch = map[string]any{"spec": map[string]any{"template": patch}}
	if kind == "CronJob" {
		patch = map[string]any{"spec": map[string]any{"jobTemplate": patch}}
	}
	return patch
}

// writeRules writes rules for the values of the chart: one for each workload, with the labels that do not change from one
// rollout to the next.
func writeRules(w io.Writer, all []*discovered) error {
	var rules []map[string]any
	for _, d := range all {
		if len(d.Annotations) == 0 {
			continue
		}
		labels := map[string]string{}
		for key, value := range d.labels {
			if !slices.Contains(passing, key) {
				labels[key] = value
			}
		}
		annotations := map[string]string{}
		for key, value := range d.Annotations {
			annotations[strings.TrimPrefix(key, contract.Prefix)] = value
		}
		name := strings.ReplaceAll(d.of.Bare, ".", "-")
		rules = append(rules, map[string]any{
			"name":              name[:min(len(name), 63)],
			"namespaceSelector": map[string]any{"matchLabels": map[string]string{"kubernetes.io/metadata.name": d.Namespace}},
			"podSelector":       map[string]any{"matchLabels": labels},
			"annotations":       annotations,
		})
	}
	return writeYAML(w, map[string]any{"rules": rules})
}

// passing are labels that controllers give, and that change.
var passing = []string{
	"pod-template-hash", "controller-revision-hash", "pod-template-generation", "statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index",
	"controller-uid", "job-name", "batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name", "batch.kubernetes.io/job-completion-index",
}

func size(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	value, unit := float64(n), 0
	for value >= 1024 && unit < len(units)-1 {
		value, unit = value/1024, unit+1
	}
	if unit == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", value, units[unit])
}

func grown(n int64) string {
	if n == 0 {
		return "-"
	}
	return "+" + size(n)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// plural counts things: "1 pod", "2 pods", "0 processes".
func plural(n int, thing string) string {
	switch {
	case n == 1:
	case strings.HasSuffix(thing, "s"):
		thing += "es"
	default:
		thing += "s"
	}
	return fmt.Sprintf("%d %s", n, thing)
}
