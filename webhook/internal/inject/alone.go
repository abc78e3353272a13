package inject

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/webhook/internal/finding"
)

// leaveAlone says why log-bridge leaves the pod unchanged; empty if it may inject it. The order matters: a pod
// that did not ask must not be refused for anything else.
func leaveAlone(ctx context.Context, in *corev1.Pod) (reason Reason, found finding.List) {
	asked := Asks(in.Annotations)
	if v, ok := in.Annotations[annotation(contract.KeyInject)]; ok {
		if no, err := parseBool(v); err == nil && !no {
			return Declined, found
		}
	}
	if _, ok := in.Annotations[corev1.MirrorPodAnnotationKey]; ok {
		if asked {
			found.Add(finding.MirrorPod, "this is the mirror pod of a static pod, which only its manifest on the node can change; run `kubectl log-bridge inject -f` on that manifest")
		}
		return MirrorPod, found
	}
	if isWindows(in) {
		if asked {
			found.Add(finding.WindowsPod, "the pod runs on Windows, but the sidecar needs Linux; the pod is left unchanged")
		}
		return Windows, found
	}
	if !asked && !injected(in) {
		return NotAsked, checkUnasked(ctx, in)
	}
	return "", found
}

// Asks says whether a pod with these annotations wants the bridge.
func Asks(annotations map[string]string) bool {
	_, files := annotations[annotation(contract.KeyFiles)]
	_, stderr := annotations[annotation(contract.KeyStderrFiles)]
	return files || stderr
}

func isWindows(in *corev1.Pod) bool {
	if os := in.Spec.OS; os != nil {
		return os.Name == corev1.Windows
	}
	return in.Spec.NodeSelector[corev1.LabelOSStable] == string(corev1.Windows)
}
