package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/cli-runtime/pkg/resource"

	"github.com/log-bridge/log-bridge/webhook/internal/migrate"
)

func (o *options) migrate() *cobra.Command {
	file, all := "", false
	c := &cobra.Command{
		Use:   "migrate {-f FILE | -A}",
		Short: "Turn the configuration of similar products into annotations and rules",
		Long: `Turns the configuration of similar products into patches of workloads and rules for the chart's values, and prints them. Each thing that
has no equivalent is a comment. Nothing is changed.

It knows the annotation of kube-logging's tailer webhook, the annotation and TailingSidecarConfig of SumoLogic's tailing-sidecar operator, and
containers that only run tail -F on a volume that they share with another container.`,
		Example: `  kubectl log-bridge migrate -f deployment.yaml
  kubectl log-bridge migrate -A > migration.yaml`,
		Args: onlyFlags,
	}
	c.Flags().StringVarP(&file, "filename", "f", "", "`FILE` with manifests, YAML or JSON; - is standard input")
	c.Flags().BoolVarP(&all, "all-namespaces", "A", false, "read the workloads of all namespaces of the cluster")
	c.RunE = func(c *cobra.Command, _ []string) error {
		var text []byte
		var err error
		switch {
		case all == (file != ""):
			return errors.New("migrate: use -f FILE for manifests, or -A for a cluster")
		case all:
			text, err = o.everything()
		case file == "-":
			text, err = io.ReadAll(o.In)
		default:
			text, err = os.ReadFile(file)
		}
		if err != nil {
			return fmt.Errorf("migrate: %w", err)
		}
		return o.migrateText(c.Context(), text)
	}
	return c
}

// everything is a list of all workloads and configurations of a cluster, as JSON.
func (o *options) everything() ([]byte, error) {
	var items []any
	for _, kind := range []string{
		"deployments.apps", "statefulsets.apps", "daemonsets.apps", "cronjobs.batch", "tailingsidecarconfigs.tailing-sidecar.sumologic.com",
	} {
		infos, err := resource.NewBuilder(o.kube).Unstructured().AllNamespaces(true).ResourceTypeOrNameArgs(true, kind).Flatten().Do().Infos()
		switch {
		case meta.IsNoMatchError(err) || err != nil && strings.Contains(err.Error(), "the server doesn't have a resource type"):
			continue // the operator is not installed
		case err != nil:
			return nil, fmt.Errorf("list %s: %w", kind, err)
		}
		for _, info := range infos {
			items = append(items, info.Object)
		}
	}
	return json.Marshal(map[string]any{"apiVersion": "v1", "kind": "List", "items": items})
}

func (o *options) migrateText(ctx context.Context, text []byte) error {
	result, err := migrate.Convert(ctx, text)
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	sep := func() func() {
		n := 0
		return func() {
			if n++; n > 1 {
				say(o.Out, "---")
			}
		}
	}()
	without := 0
	for _, c := range result.Changes {
		sep()
		namespace := ""
		if c.Namespace != "" {
			namespace = " --namespace " + c.Namespace
		}
		say(o.Out, "# %s, from %s", c.Object, strings.Join(c.From, " and "))
		without += o.sayWithout(c.Without)
		if len(c.Annotations) == 0 {
			continue
		}
		if c.Kind == "Pod" || c.Kind == "Job" {
			say(o.Out, "# Change its manifest so and create it again: a running %s keeps its containers.", c.Kind)
		} else {
			say(o.Out, "# kubectl patch%s %s --patch-file FILE", namespace, strings.ToLower(c.Kind)+c.Object[len(c.Kind):])
		}
		if err := writeYAML(o.Out, c.Patch()); err != nil {
			return err
		}
	}
	if len(result.Rules) > 0 {
		sep()
		say(o.Out, "# Values of the chart:")
		for _, r := range result.Rules {
			say(o.Out, "# rule %s, from %s", r.Name, r.Object)
			without += o.sayWithout(r.Without)
		}
		if err := writeYAML(o.Out, map[string]any{"rules": result.Rules}); err != nil {
			return err
		}
	}
	say(o.ErrOut, "%s, %s; %s without an equivalent", plural(len(result.Changes), "workload"), plural(len(result.Rules), "rule"), plural(without, "thing"))
	return nil
}

// sayWithout writes what has no equivalent, as comments.
func (o *options) sayWithout(all []string) int {
	for _, s := range all {
		say(o.Out, "# no equivalent: %s", s)
	}
	return len(all)
}
