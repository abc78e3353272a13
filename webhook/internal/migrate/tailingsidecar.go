package migrate

import (
	"bytes"
	"errors"
	"io"
	"path"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/log-bridge/log-bridge/sidecar/contract"
)

// sumoAnnotation is the annotation of SumoLogic's tailing-sidecar operator: VOLUME:PATH, NAME:VOLUME:PATH, or the name of a
// configuration, separated by semicolons. The path is as a container that mounts the volume sees it.
// Source: SumoLogic/tailing-sidecar, operator/handler/config.go.
const sumoAnnotation = "tailing-sidecar"

// sumoConfig is a TailingSidecarConfig, or a TailingSidecar as it was called before.
// Source: SumoLogic/tailing-sidecar, operator/api/v1/tailingsidecar_types.go and operator/examples.
type sumoConfig struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		AnnotationsPrefix string                 `json:"annotationsPrefix"`
		PodSelector       *metav1.LabelSelector  `json:"podSelector"`
		Configs           map[string]sumoSidecar `json:"configs"`
	} `json:"spec"`
}

type sumoSidecar struct {
	Path        string                      `json:"path"`
	VolumeMount corev1.VolumeMount          `json:"volumeMount"`
	Resources   corev1.ResourceRequirements `json:"resources"`
	Annotations map[string]string           `json:"annotations"`
	// File and Volume are the fields of a TailingSidecar.
	File   string `json:"file"`
	Volume string `json:"volume"`
}

func (s sumoSidecar) file() string   { return s.Path + s.File }
func (s sumoSidecar) volume() string { return s.VolumeMount.Name + s.Volume }

// decode takes a stream of YAML or JSON apart.
func decode(text []byte) (docs []map[string]any, err error) {
	d := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096)
	for {
		var doc map[string]any
		switch err := d.Decode(&doc); {
		case errors.Is(err, io.EOF):
			return docs, nil
		case err != nil:
			return nil, err
		case doc != nil:
			docs = append(docs, doc)
		}
	}
}

// configsIn are the configurations of the operator in a text.
func configsIn(text []byte) (configs []sumoConfig, err error) {
	err = objects(text, func(u unstructured.Unstructured) {
		group, _, _ := strings.Cut(u.GetAPIVersion(), "/")
		if group != "tailing-sidecar.sumologic.com" {
			return
		}
		var c sumoConfig
		// One that the operator's own API server would refuse says nothing.
		if runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &c) == nil {
			configs = append(configs, c)
		}
	})
	return configs, err
}

// rule is the rule for a configuration that selects pods.
func (c *sumoConfig) rule() (Rule, bool) {
	if c.Spec.PodSelector == nil {
		return Rule{}, false // pods name it in their annotation
	}
	r := Rule{Object: c.Kind + "/" + c.Name, Name: strings.ReplaceAll(c.Name, ".", "-"), PodSelector: c.Spec.PodSelector}
	if c.Namespace != "" {
		r.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": c.Namespace}}
	} else {
		r.Without = append(r.Without, "it has no namespace here, but applies to the pods of its own; add a namespaceSelector to the rule")
	}
	var entries []string
	resources, annotations := false, c.Spec.AnnotationsPrefix != ""
	for _, name := range sorted(c.Spec.Configs) {
		s := c.Spec.Configs[name]
		if s.file() != "" {
			entries = append(entries, "*:"+path.Clean(s.file()))
		}
		resources = resources || len(s.Resources.Requests)+len(s.Resources.Limits) > 0
		annotations = annotations || len(s.Annotations) > 0
	}
	r.Annotations = map[string]string{contract.KeyFiles: strings.Join(entries, ",")}
	if resources {
		r.Without = append(r.Without, "its resources are for each file; log-bridge has one container for all files. Set memory-limit and the like in the rule if its defaults do not fit")
	}
	if annotations {
		r.Without = append(r.Without, "its annotations for each file (annotationsPrefix) are not added to the pod; the lines of all files come from one container. Set format: json to have the file in each line")
	}
	return r, true
}

func (m *migration) tailingSidecar(configs []sumoConfig) {
	value, ok := m.pod.Annotations[sumoAnnotation]
	if !ok {
		return
	}
	m.from("the tailing-sidecar operator of SumoLogic")
	m.Remove = append(m.Remove, sumoAnnotation)
	for word := range strings.SplitSeq(value, ";") {
		word = strings.TrimSpace(word)
		parts := strings.Split(word, ":")
		volume, file := "", ""
		switch len(parts) {
		case 3:
			volume, file = parts[1], parts[2]
		case 2:
			volume, file = parts[0], parts[1]
		default:
			if word == "" {
				continue
			}
			found := false
			for i := range configs {
				if s, ok := configs[i].Spec.Configs[word]; ok && (configs[i].Namespace == m.Namespace || m.Namespace == "" || configs[i].Namespace == "") {
					volume, file, found = s.volume(), s.file(), true
				}
			}
			if !found {
				m.without("%q: no TailingSidecarConfig with such a configuration is given; add its manifest to the input", word)
				continue
			}
		}
		container, ok := m.sees(volume, file)
		if !ok {
			m.without("%q: no container mounts the volume %s over %s; name the container and the path yourself", word, volume, file)
			continue
		}
		m.follow(container, file)
	}
	m.apart = true
}

// sees is a container that mounts a volume over a path.
func (m *migration) sees(volume, file string) (container string, ok bool) {
	if !path.IsAbs(file) {
		return "", false
	}
	for _, c := range m.pod.Spec.Containers {
		for _, mount := range c.VolumeMounts {
			if mount.Name == volume && contract.Covers(path.Clean(mount.MountPath), path.Clean(file)) {
				return c.Name, true
			}
		}
	}
	return "", false
}
