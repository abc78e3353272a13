package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/webhook/internal/inject"
)

// sidecarStatus is the status of the sidecar's container; nil if the kubelet has none yet.
func sidecarStatus(p *corev1.Pod) *corev1.ContainerStatus {
	for i := range p.Status.InitContainerStatuses {
		if s := &p.Status.InitContainerStatuses[i]; s.Name == contract.Container {
			return s
		}
	}
	return nil
}

// injection is what the webhook wrote into the pod's status annotation.
type injection struct {
	Version string `json:"version"`
	Rule    *struct {
		Name string `json:"name"`
	} `json:"rule"`
	Entries []struct {
		Entry string `json:"entry"`
	} `json:"entries"`
}

func injectionOf(p *corev1.Pod) (i injection) {
	// Anybody may write there. What is no JSON says nothing.
	_ = json.Unmarshal([]byte(p.Annotations[contract.Prefix+contract.KeyStatus]), &i)
	return i
}

// bridged are the pods with the sidecar that are not ending, by namespace and name.
func bridged(workloads []*workload) (pods []*corev1.Pod) {
	for _, w := range workloads {
		for _, p := range w.Pods {
			if inject.Sidecar(p) != nil && p.DeletionTimestamp == nil && p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed {
				pods = append(pods, p)
			}
		}
	}
	slices.SortFunc(pods, func(a, b *corev1.Pod) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return pods
}

// execute runs a program in the sidecar and returns its output.
func execute(ctx context.Context, config *rest.Config, api kubernetes.Interface, p *corev1.Pod, args ...string) (string, error) {
	request := api.CoreV1().RESTClient().Post().Resource("pods").Namespace(p.Namespace).Name(p.Name).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Container: contract.Container, Command: args, Stdout: true, Stderr: true}, scheme.ParameterCodec)
	exec, err := remotecommand.NewSPDYExecutor(config, "POST", request.URL())
	if err != nil {
		return "", err
	}
	var out, problem bytes.Buffer
	if err := exec.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: &out, Stderr: &problem}); err != nil {
		return "", fmt.Errorf("%w %s", err, strings.TrimSpace(problem.String()))
	}
	return out.String(), nil
}

// webhookImage is the image of the sidecar that the webhooks of the cluster give to new pods; empty if the person may not see them, or
// they differ.
func webhookImage(ctx context.Context, api kubernetes.Interface) string {
	list, err := api.AppsV1().Deployments("").List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=log-bridge"})
	if err != nil {
		return ""
	}
	image := ""
	for _, d := range list.Items {
		for _, c := range d.Spec.Template.Spec.Containers {
			for _, arg := range c.Args {
				if value, ok := strings.CutPrefix(arg, "--image="); ok {
					if image != "" && image != value {
						return ""
					}
					image = value
				}
			}
		}
	}
	return image
}
