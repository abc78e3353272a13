package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/webhook/internal/inject"
)

// bridge is the state of one bridged pod.
type bridge struct {
	Namespace string `json:"namespace"`
	Pod       string `json:"pod"`
	Image     string `json:"image"`
	// By is "annotations", or the rule.
	By      string   `json:"by"`
	Entries []string `json:"entries"`
	// Waiting is in bytes; -1 if it is not known.
	Waiting int64 `json:"waiting"`
	// Last is when the last line came; nil if none has, or it is not known.
	Last *time.Time `json:"last,omitempty"`
	// Problem is what is wrong; empty if nothing is.
	Problem string `json:"problem,omitempty"`
	// Unknown says why something could not be found out.
	Unknown string `json:"unknown,omitempty"`
}

func (o *options) status() *cobra.Command {
	var s selection
	var output string
	c := &cobra.Command{
		Use:   "status [POD | TYPE/NAME]…",
		Short: "Show what the sidecars of running pods follow, what waits, and when the last line came",
		Long: `Shows what the sidecars of running pods follow, how much waits to be delivered, and when the last line came. Pods with a problem
come first, of these the one whose last line is the oldest.

What waits is asked of the sidecar itself, which needs the verb create on pods/exec; the last line needs get on pods/log.`,
	}
	c.Flags().StringVarP(&s.selector, "selector", "l", "", "show pods with these `LABELS`")
	c.Flags().BoolVarP(&s.all, "all-namespaces", "A", false, "show pods of all namespaces")
	c.Flags().StringVarP(&output, "output", "o", "", "`FORMAT`: wide, json or yaml")
	c.RunE = func(c *cobra.Command, args []string) error {
		if !slices.Contains([]string{"", "wide", "json", "yaml"}, output) {
			return fmt.Errorf("unknown output format %q; use wide, json or yaml", output)
		}
		s.args = args
		return o.showStatus(c.Context(), s, output)
	}
	return c
}

func (o *options) showStatus(ctx context.Context, s selection, output string) error {
	config, api, err := o.client()
	if err != nil {
		return err
	}
	workloads, err := o.workloads(ctx, api, s)
	if err != nil {
		return err
	}
	pods := bridged(workloads)
	image := webhookImage(ctx, api)
	all := make([]*bridge, len(pods))
	slots := make(chan struct{}, 2*atOnce)
	var wait sync.WaitGroup
	for i, p := range pods {
		wait.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			all[i] = bridgeOf(ctx, config, api, p, image)
		})
	}
	wait.Wait()
	if err := ctx.Err(); err != nil {
		return err
	}
	slices.SortStableFunc(all, worstFirst)
	switch output {
	case "json":
		encoder := json.NewEncoder(o.Out)
		encoder.SetIndent("", "  ")
		err = encoder.Encode(all)
	case "yaml":
		err = writeYAML(o.Out, all)
	default:
		err = writeBridges(o.Out, all, output == "wide", time.Now())
	}
	if err == nil && slices.ContainsFunc(all, func(b *bridge) bool { return b.Problem != "" }) {
		return errProblem
	}
	return err
}

// worstFirst orders pods with a problem before those without, and of the former the longest silent first.
func worstFirst(a, b *bridge) int {
	if (a.Problem == "") != (b.Problem == "") {
		return cmp.Compare(b.Problem, a.Problem)
	}
	if a.Problem == "" {
		return 0
	}
	last := func(b *bridge) int64 {
		if b.Last == nil {
			return 0
		}
		return b.Last.UnixNano()
	}
	return cmp.Compare(last(a), last(b))
}

// stalled is how old the last line may be while lines wait. The sidecar delivers within a second.
const stalled = 30 * time.Second

func bridgeOf(ctx context.Context, config *rest.Config, api kubernetes.Interface, p *corev1.Pod, image string) *bridge {
	sidecar, told := inject.Sidecar(p), injectionOf(p)
	b := &bridge{Namespace: p.Namespace, Pod: p.Name, Image: sidecar.Image, By: "annotations", Waiting: -1}
	if told.Rule != nil {
		b.By = "rule " + told.Rule.Name
	}
	for _, e := range told.Entries {
		b.Entries = append(b.Entries, e.Entry)
	}
	switch s := sidecarStatus(p); {
	case s == nil:
		b.Problem = "not started"
		return b
	case s.State.Waiting != nil:
		b.Problem = s.State.Waiting.Reason
		return b
	case s.State.Terminated != nil:
		b.Problem = fmt.Sprintf("ended with exit code %d", s.State.Terminated.ExitCode)
		return b
	case !s.Ready:
		b.Problem = "not ready"
	}
	one := int64(1)
	stream, err := api.CoreV1().Pods(p.Namespace).GetLogs(p.Name, &corev1.PodLogOptions{Container: contract.Container, TailLines: &one, Timestamps: true}).Stream(ctx)
	if err != nil {
		b.Unknown = err.Error()
	} else {
		b.Last = timeOf(stream)
		stream.Close()
	}
	out, err := execute(ctx, config, api, p, append([]string{"/bin/log-bridge", "status"}, tailArgs(sidecar)...)...)
	if err != nil {
		b.Unknown = err.Error()
	} else {
		b.Waiting = waiting(out)
	}
	switch {
	case b.Problem != "":
	case b.Waiting > 0 && (b.Last == nil || time.Since(*b.Last) > stalled):
		b.Problem = "lines wait, and none comes"
	case image != "" && sidecar.Image != image:
		b.Problem = "not the chart's version; see kubectl log-bridge upgrade"
	}
	return b
}

// tailArgs are the sidecar's arguments behind the word tail.
func tailArgs(sidecar *corev1.Container) []string {
	if i := slices.Index(sidecar.Args, "tail"); i >= 0 {
		return sidecar.Args[i+1:]
	}
	return sidecar.Args
}

// timeOf is the time that begins a line of a container's log.
func timeOf(log io.Reader) *time.Time {
	line, _ := bufio.NewReader(io.LimitReader(log, 128)).ReadString(' ')
	t, err := time.Parse(time.RFC3339Nano, strings.TrimSpace(line))
	if err != nil {
		return nil
	}
	return &t
}

// waiting adds up what `log-bridge status` prints, in bytes.
func waiting(out string) (sum int64) {
	for line := range strings.Lines(out) {
		var delivered, left int64
		var entry string
		if _, err := fmt.Sscanf(line, contract.StatusLine, &delivered, &left, &entry); err == nil {
			sum += left
		}
	}
	return sum
}

func writeBridges(w io.Writer, all []*bridge, wide bool, now time.Time) error {
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	head := "NAMESPACE\tPOD\tVERSION\tBY\tFILES\tWAITING\tLAST LINE\tPROBLEM"
	if wide {
		head += "\tUNKNOWN"
	}
	fmt.Fprintln(table, head)
	for _, b := range all {
		row := []string{b.Namespace, b.Pod, tag(b.Image), b.By, files(b.Entries, wide), "-", "-", orDash(b.Problem)}
		if b.Waiting >= 0 {
			row[5] = size(b.Waiting)
		}
		if b.Last != nil {
			row[6] = now.Sub(*b.Last).Round(time.Second).String() + " ago"
		}
		if wide {
			row = append(row, orDash(b.Unknown))
		}
		for i := range row {
			row[i] = contract.Line(row[i])
		}
		fmt.Fprintln(table, strings.Join(row, "\t"))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	say(w, "%s with the sidecar", plural(len(all), "pod"))
	return nil
}

// files are the entries, or the first one and how many more.
func files(entries []string, all bool) string {
	if all || len(entries) < 2 {
		return strings.Join(entries, " ")
	}
	return fmt.Sprintf("%s and %d more", entries[0], len(entries)-1)
}

// tag is an image without its repository.
func tag(image string) string {
	name := image[strings.LastIndexByte(image, '/')+1:]
	if at := strings.IndexAny(name, ":@"); at >= 0 {
		return name[at+1:]
	}
	return name
}
