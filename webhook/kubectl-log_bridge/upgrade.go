package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/webhook/internal/inject"
)

func (o *options) upgrade() *cobra.Command {
	var s selection
	var image string
	var yes, dry bool
	var wait time.Duration
	c := &cobra.Command{
		Use:   "upgrade [POD | TYPE/NAME]…",
		Short: "Bring the sidecars of running pods to another version, without a restart of the applications",
		Long: `Brings the sidecars of running pods to another version. Kubernetes restarts only the sidecar of a pod whose image for it changes; the
application runs on, and the new sidecar continues where the old one stopped.

One pod is upgraded at a time. It waits until the new sidecar follows, and stops at the first one that does not; that pod gets its old
image back.`,
		Example: `  kubectl log-bridge upgrade -n shop --dry-run
  kubectl log-bridge upgrade -A --yes`,
	}
	c.Flags().StringVarP(&s.selector, "selector", "l", "", "upgrade pods with these `LABELS`")
	c.Flags().BoolVarP(&s.all, "all-namespaces", "A", false, "upgrade pods of all namespaces")
	c.Flags().StringVar(&image, "image", "", "the `IMAGE` to bring them to (default: that of the chart in the cluster)")
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	c.Flags().BoolVar(&dry, "dry-run", false, "only say what would be done")
	c.Flags().DurationVar(&wait, "timeout", 2*time.Minute, "how long to wait for each sidecar")
	c.RunE = func(c *cobra.Command, args []string) error {
		s.args = args
		ctx, stop := untilSignal(c.Context())
		defer stop()
		return o.upgradeAll(ctx, s, image, yes, dry, wait)
	}
	return c
}

func (o *options) upgradeAll(ctx context.Context, s selection, image string, yes, dry bool, wait time.Duration) error {
	_, api, err := o.client()
	if err != nil {
		return err
	}
	if image == "" {
		if image = webhookImage(ctx, api); image == "" {
			return errors.New("no single chart of log-bridge was found in the cluster, or you may not list Deployments; name the version with --image")
		}
	}
	workloads, err := o.workloads(ctx, api, s)
	if err != nil {
		return err
	}
	var pods []*corev1.Pod
	all := bridged(workloads)
	for _, p := range all {
		if inject.Sidecar(p).Image != image {
			pods = append(pods, p)
		}
	}
	say(o.Out, "%s with the sidecar; %d to bring to %s", plural(len(all), "pod"), len(pods), image)
	for _, p := range pods {
		say(o.Out, "  %s/%s: now %s", p.Namespace, p.Name, inject.Sidecar(p).Image)
	}
	if len(pods) == 0 || dry {
		return nil
	}
	if !yes && !o.confirmed("Restart these sidecars, one after the other?") {
		return errors.New("nothing was changed")
	}
	for i, p := range pods {
		took, err := upgradePod(ctx, api, p, image, wait)
		if err != nil {
			return fmt.Errorf("%s/%s: %w; %d of %d were upgraded before it", p.Namespace, p.Name, err, i, len(pods))
		}
		say(o.Out, "%s/%s: follows with %s after %v (%d of %d)", p.Namespace, p.Name, image, took.Round(time.Second), i+1, len(pods))
	}
	return nil
}

// confirmed asks a question. Without a person, the answer is no.
func (o *options) confirmed(question string) bool {
	fmt.Fprintf(o.Out, "%s [y/N] ", question)
	answer, _ := bufio.NewReader(o.In).ReadString('\n')
	return slices.Contains([]string{"y", "yes"}, strings.ToLower(strings.TrimSpace(answer)))
}

// upgradePod changes the image of one sidecar and waits until the new one is ready, or gives it back the old image.
func upgradePod(ctx context.Context, api kubernetes.Interface, p *corev1.Pod, image string, wait time.Duration) (took time.Duration, err error) {
	old, before := inject.Sidecar(p).Image, ""
	if s := sidecarStatus(p); s != nil {
		before = s.ContainerID
	}
	start := time.Now()
	if err := setImage(ctx, api, p, image); err != nil {
		return 0, err
	}
	gone, err := follows(ctx, api, p, before, wait)
	switch {
	case gone:
		return time.Since(start), nil // it has ended meanwhile, and needs no sidecar any more
	case err == nil:
		return time.Since(start), nil
	}
	// Also after Ctrl-C.
	back, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	if e := setImage(back, api, p, old); e != nil {
		return 0, fmt.Errorf("%w; its old image %s could not be given back: %w", err, old, e)
	}
	return 0, fmt.Errorf("%w; it has its old image %s again", err, old)
}

func setImage(ctx context.Context, api kubernetes.Interface, p *corev1.Pod, image string) error {
	patch, err := json.Marshal(map[string]any{"spec": map[string]any{"initContainers": []map[string]string{{"name": contract.Container, "image": image}}}})
	if err != nil {
		return err
	}
	_, err = api.CoreV1().Pods(p.Namespace).Patch(ctx, p.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	if apierrors.IsForbidden(err) {
		return fmt.Errorf("you may not change pods: ask for the verb patch on pods in namespace %s (%w)", p.Namespace, err)
	}
	return err
}

// follows waits until the sidecar is another container than before, and ready: its postStart hook has ended by then, which
// waits until it follows.
func follows(ctx context.Context, api kubernetes.Interface, p *corev1.Pod, before string, wait time.Duration) (gone bool, err error) {
	last := "the kubelet has not restarted it yet"
	for end := time.Now().Add(wait); ; {
		now, err := api.CoreV1().Pods(p.Namespace).Get(ctx, p.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			return true, nil
		case err != nil:
			return false, err
		case now.UID != p.UID || now.DeletionTimestamp != nil:
			return true, nil
		}
		if s := sidecarStatus(now); s != nil && s.ContainerID != before {
			if s.State.Running != nil && s.Ready && s.Started != nil && *s.Started {
				return false, nil
			}
			last = "it is not ready yet"
		} else if s != nil && s.State.Waiting != nil {
			last = strings.TrimSpace(s.State.Waiting.Reason + " " + s.State.Waiting.Message)
		}
		if s := sidecarStatus(now); s != nil && s.State.Waiting != nil &&
			slices.Contains([]string{"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "CreateContainerError", "CrashLoopBackOff"}, s.State.Waiting.Reason) {
			return false, fmt.Errorf("the new sidecar does not start (%s)", strings.TrimSpace(s.State.Waiting.Reason+" "+s.State.Waiting.Message))
		}
		// Of a sidecar that ran, the kubelet goes on to report how it ended while the new image cannot be pulled; its events tell.
		if s := sidecarStatus(now); s == nil || s.State.Running == nil {
			if why := pullFails(ctx, api, now); why != "" {
				return false, fmt.Errorf("the new sidecar does not start (%s)", why)
			}
		}
		if time.Now().After(end) {
			return false, fmt.Errorf("the new sidecar does not follow after %v (%s)", wait, last)
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// pullFails is what the kubelet says about an image of the sidecar that cannot be pulled; empty if it says nothing, or the person may
// not read events.
func pullFails(ctx context.Context, api kubernetes.Interface, p *corev1.Pod) string {
	list, err := api.CoreV1().Events(p.Namespace).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.uid=" + string(p.UID)})
	if err != nil {
		return ""
	}
	image := inject.Sidecar(p).Image
	for _, e := range list.Items {
		if e.Reason == "Failed" && strings.Contains(e.InvolvedObject.FieldPath, "{"+contract.Container+"}") && strings.Contains(e.Message, "\""+image+"\"") {
			return e.Message
		}
	}
	return ""
}
