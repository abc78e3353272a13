package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/webhook/internal/discovery"
	"github.com/log-bridge/log-bridge/webhook/internal/ephemeral"
)

func (o *options) tail() *cobra.Command {
	var container, format string
	var fromStart bool
	c := &cobra.Command{
		Use:   "tail POD[/CONTAINER] [PATH…]",
		Short: "Print the lines of log files of a running pod as they come",
		Long: `Prints the lines of log files of a running pod as they come, without changing or restarting it. PATH may be a glob. Without PATH, it
follows the logs that discover finds. Ctrl-C ends it.

The files are read through an ephemeral container, which cannot be removed from the pod again; its process ends with this command.`,
		Example: `  kubectl log-bridge tail web-7d4b9 /var/log/app/app.log
  kubectl log-bridge tail web-7d4b9/worker --from-start '/data/*.log'`,
		Args: cobra.MinimumNArgs(1),
	}
	o.looks(c)
	c.Flags().StringVarP(&container, "container", "c", "", "the `CONTAINER`, if it is not the default one")
	c.Flags().BoolVar(&fromStart, "from-start", false, "print the files from their beginning")
	c.Flags().StringVar(&format, "format", "", "`FORMAT` of the lines: raw, prefix or json (default: prefix for several files, else raw)")
	c.RunE = func(c *cobra.Command, args []string) error {
		pod, named, _ := strings.Cut(args[0], "/")
		if named != "" && container != "" && named != container {
			return fmt.Errorf("two containers are named, %s and %s; name one", named, container)
		}
		if named != "" {
			container = named
		}
		ctx, stop := untilSignal(c.Context())
		defer stop()
		return o.tailPod(ctx, pod, container, args[1:], fromStart, format)
	}
	return c
}

func (o *options) tailPod(ctx context.Context, name, container string, patterns []string, fromStart bool, format string) error {
	r, err := o.runner()
	if err != nil {
		return err
	}
	namespace, _, err := o.kube.ToRawKubeConfigLoader().Namespace()
	if err != nil {
		return err
	}
	pod, err := r.API.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if container == "" {
		container = discovery.DefaultContainer(pod)
	}
	for _, p := range patterns {
		if _, err := contract.ParseEntry(p); err != nil {
			return err
		}
	}
	target := &ephemeral.Target{Pod: pod, Container: container}
	if err := target.Runs(); err != nil {
		return err
	}
	pid := 1
	_, sure := target.Known()
	if len(patterns) == 0 || target.SharesProcesses() || !sure {
		watch := time.Duration(0)
		if len(patterns) == 0 {
			watch = time.Second
			say(o.ErrOut, "looking for the logs of container %s …", container)
		}
		found, err := lookInto(ctx, r, target, watch)
		if err != nil {
			return err
		}
		pid = found.PID
		if len(patterns) == 0 {
			for _, l := range discovery.Judge(pod, container, found.Files).Logs {
				patterns = append(patterns, l.Path)
			}
			if len(patterns) == 0 {
				return fmt.Errorf("no logs were found in container %s of pod %s; name a PATH, or see what was left out with: kubectl log-bridge discover %s -o wide", container, name, name)
			}
			say(o.ErrOut, "following %s", strings.Join(patterns, " "))
		}
	}
	root := fmt.Sprintf("/proc/%d/root", pid)
	config := contract.Config{
		Roots: []string{contract.Root}, Attached: true, Format: contract.Format(format),
		Views: []contract.View{{Place: contract.Place{Container: container, Path: "/"}, Dir: root}},
	}
	if !fromStart {
		config.FromEnd = []string{root}
	}
	for _, p := range patterns {
		e, err := contract.ParseEntry(p)
		if err != nil {
			return err
		}
		e.Container = container
		config.Stdout = append(config.Stdout, e)
		if format == "" && (len(patterns) > 1 || e.IsGlob()) {
			config.Format = contract.Prefixed
		}
	}
	c, err := r.Start(ctx, *target, "tail", true, append([]string{"tail"}, config.Args()...)...)
	if err != nil {
		return err
	}
	if err := c.Attach(ctx, o.Out, o.ErrOut); err != nil {
		return err
	}
	if ctx.Err() == nil {
		return errors.New("the pod or the ephemeral container ended")
	}
	return nil
}
