package survey

import (
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/webhook/internal/finding"
	"github.com/log-bridge/log-bridge/webhook/internal/inject"
)

// Outcome is what became of a probe: the dry run of creating an annotated pod.
type Outcome string

// The outcomes.
const (
	// NotTried: it could not be sent, or no webhook would have been called.
	NotTried Outcome = "was not tried"
	// Injects: the probe came back with the sidecar.
	Injects Outcome = "injects"
	// Fails: it came back without, or not at all.
	Fails Outcome = "does not inject"
)

// cannotCreate is in what the API server says to somebody who has not the permission.
// Policies and quotas refuse with the same status, but in other words.
const cannotCreate = "cannot create resource"

// Probe asks the API server what it would make of an annotated pod, as a server-side dry
// run: nothing is stored. It tries again until the pod comes back with the sidecar, or until
// patience is over: an API server needs a moment to learn about a new webhook. No finding
// means that it did.
func Probe(ctx context.Context, config *rest.Config, namespace, image string, patience time.Duration) (Outcome, []finding.Finding, error) {
	api, err := dynamic.NewForConfig(Quiet(config))
	if err != nil {
		return NotTried, nil, fmt.Errorf("client for the cluster: %w", err)
	}
	pod, err := runtime.DefaultUnstructuredConverter.ToUnstructured(annotatedPod(image))
	if err != nil {
		return NotTried, nil, fmt.Errorf("create the probe: %w", err)
	}
	end := time.Now().Add(patience)
	for {
		outcome, findings, err := dryRun(ctx, api, namespace, &unstructured.Unstructured{Object: pod})
		if err != nil || outcome != Fails || !time.Now().Add(time.Second).Before(end) {
			return outcome, findings, err
		}
		select {
		case <-ctx.Done():
			return outcome, findings, ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// dryRun creates the pod once.
func dryRun(ctx context.Context, api dynamic.Interface, namespace string, pod *unstructured.Unstructured) (Outcome, []finding.Finding, error) {
	back, err := api.Resource(pods).Namespace(namespace).Create(ctx, pod.DeepCopy(), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	one := func(code finding.Code, format string, args ...any) []finding.Finding {
		return []finding.Finding{finding.New(code, format, args...)}
	}
	switch {
	case apierrors.IsForbidden(err) && strings.Contains(err.Error(), cannotCreate):
		return NotTried, one(finding.NotPermitted, "cannot check whether an annotated pod gets the sidecar: you may not create pods, which the dry run needs: %v", err), nil
	case err != nil && strings.Contains(err.Error(), notSidecar):
		// Validation, since the probe's sidecar has a lifecycle.
		return Fails, one(finding.RestartPolicyDropped, dropped+"%v", err), nil
	case err != nil && (strings.Contains(err.Error(), ours) || strings.Contains(err.Error(), "was admitted without the sidecar")):
		// The API server names the webhook that it could not call, our policy the pod that
		// nobody injected.
		return Fails, one(finding.NotInjected, "an annotated pod cannot be created: %v", err), nil
	case apierrors.IsForbidden(err), apierrors.IsInvalid(err), apierrors.IsBadRequest(err):
		return NotTried, one(finding.ProbeRefused, "cannot check whether an annotated pod gets the sidecar: a quota, a policy or another webhook refuses the probe: %v", err), nil
	case err != nil:
		return NotTried, nil, fmt.Errorf("probe in namespace %s: %w", namespace, err)
	}
	var got corev1.Pod
	if err := decode(back, &got); err != nil {
		return NotTried, nil, err
	}
	sidecar := inject.Sidecar(&got)
	if sidecar == nil {
		return Fails, one(finding.NotInjected, "an annotated pod does not get the sidecar: no log-bridge webhook answered, or the API server did not call one"), nil
	}
	if !inject.StaysUp(sidecar) {
		return Fails, one(finding.RestartPolicyDropped, dropped+"an annotated pod gets %s as an ordinary init container", contract.Container), nil
	}
	return Injects, nil, nil
}

// notSidecar is in what the API server says to a lifecycle of an init container that is
// no sidecar.
const notSidecar = "without restartPolicy=Always"

const dropped = "another admission webhook drops restartPolicy from the sidecar after log-bridge's last call, so annotated pods are refused or never start; update that webhook, or set its reinvocationPolicy to Never: "

// annotatedPod is one that no Pod Security level refuses, and no quota that has
// a little left.
func annotatedPod(image string) *corev1.Pod {
	yes, no := true, false
	user := int64(65532)
	little := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("64Mi")}
	return &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			GenerateName: "log-bridge-probe-",
			Annotations:  map[string]string{contract.Prefix + contract.KeyFiles: "/app/app.log"},
		},
		Spec: corev1.PodSpec{
			AutomountServiceAccountToken: &no,
			SecurityContext:              &corev1.PodSecurityContext{RunAsNonRoot: &yes, RunAsUser: &user, SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
			Containers: []corev1.Container{{
				Name: "app", Image: image,
				Resources:       corev1.ResourceRequirements{Requests: little, Limits: little},
				SecurityContext: &corev1.SecurityContext{AllowPrivilegeEscalation: &no, Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}},
			}},
		},
	}
}

// tryWebhook probes a namespace that a webhook serves: the one that is checked,
// else one in which log-bridge is installed, else default.
func (s *survey) tryWebhook(ctx context.Context, at []string) {
	s.Outcome = NotTried
	candidates := append(at, metav1.NamespaceDefault)
	if s.Namespace != "" {
		candidates = []string{s.Namespace}
	}
	for _, namespace := range candidates {
		if s.leftOut(ctx, namespace) {
			continue
		}
		outcome, findings, err := Probe(ctx, s.Rest, namespace, s.Inject.Image, s.Patience)
		s.Outcome = outcome
		s.find(namespace, "probe", findings...)
		if err != nil {
			s.Errors = append(s.Errors, err)
		}
		return
	}
	s.find(s.Namespace, "probe", finding.New(finding.NamespaceExcluded, "the webhook was not tried because log-bridge excludes %s; name another namespace with -n", finding.Words(strings.Join(candidates, " and "))))
}
