package migrate

import (
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// tailerAnnotation is the annotation of kube-logging's tailer webhook: [CONTAINER:]/PATH, separated by commas; without a container
// it is the first one. What does not match its pattern, or names no container, is passed over without a word.
// Source: kube-logging/logging-operator, pkg/sdk/extensions/extensionsconfig/config.go and pkg/resources/annotation/annotation.go.
const tailerAnnotation = "sidecar.logging-extensions.banzaicloud.io/tail"

var tailerEntry = regexp.MustCompile(`^([a-zA-Z0-9-_]+:)?(/[a-zA-Z-0-9._-]+)+$`)

func (m *migration) tailer() {
	value, ok := m.pod.Annotations[tailerAnnotation]
	if !ok {
		return
	}
	m.from("the tailer webhook of kube-logging")
	m.Remove = append(m.Remove, tailerAnnotation)
	for word := range strings.SplitSeq(value, ",") {
		word = strings.TrimSpace(word)
		if word == "" {
			continue
		}
		container, file, named := strings.Cut(word, ":")
		if !named {
			container, file = "", word
		}
		switch {
		case !tailerEntry.MatchString(word):
			m.without("%q: the tailer webhook ignores it too, because it is not CONTAINER:/PATH; correct it", word)
			continue
		case named && !slices.ContainsFunc(m.pod.Spec.Containers, func(c corev1.Container) bool { return c.Name == container }):
			m.without("%q: the pod has no container %s, so the tailer webhook ignores it too; correct it", word, container)
			continue
		case !named && len(m.pod.Spec.Containers) > 0:
			container = m.pod.Spec.Containers[0].Name
		}
		m.follow(container, file)
	}
	m.apart = true
}
