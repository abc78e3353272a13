// Package manifest finds the pods in a stream of Kubernetes objects, YAML or JSON,
// and changes them there.
//
// In: the text of one or many documents, with Pods, the built-in workload kinds and
// lists of them. Out: each pod as the API server would make it, and after patches
// the text again. A document that no patch touched comes out byte for byte. In one
// that was touched, comments, the order of keys and the way scalars are written stay;
// blank lines and the indentation of lists are made uniform.
package manifest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	yaml3 "go.yaml.in/yaml/v3"
	"gomodules.xyz/jsonpatch/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/webhook/internal/inject"
)

// Stream is a sequence of documents.
type Stream struct {
	docs []*document
}

type document struct {
	text []byte
	line int // of the stream, before the document
	json bool
	// tree is nil until a patch needs it.
	tree *yaml3.Node
}

// Pod is a pod in a stream, or the template of one.
type Pod struct {
	// Object is the kind and name of the object that holds it, such as
	// Deployment/web.
	Object string
	// Kind is the object's apiVersion and kind, such as apps/v1/Deployment.
	Kind string
	// Template says that the pod is the template of a workload.
	Template bool
	// Pod is what the API server would decode. For a template it has an owner if the
	// workload makes several pods at a time. It is nil for an object of a kind that is
	// not Kubernetes' own, in which something like a pod has an annotation of ours.
	Pod *corev1.Pod
	// TooMuch is the decision about an annotated pod that exceeds the bounds of package
	// inject, and whose Pod is therefore empty.
	TooMuch *inject.Result
	// Outer are the annotations of the workload itself.
	Outer map[string]string

	doc  *document
	path string // JSON pointer of the pod in the document
}

// Read takes a stream apart.
func Read(text []byte) *Stream {
	s := &Stream{}
	if first := bytes.TrimLeft(text, " \t\r\n"); len(first) > 0 && first[0] == '{' {
		d := json.NewDecoder(bytes.NewReader(text))
		for {
			var doc json.RawMessage
			err := d.Decode(&doc)
			if errors.Is(err, io.EOF) {
				return s
			}
			if err != nil {
				// `{` also begins a YAML document.
				break
			}
			before := text[:int(d.InputOffset())-len(doc)]
			s.docs = append(s.docs, &document{text: doc, json: true, line: bytes.Count(before, []byte("\n"))})
		}
		s.docs = nil
	}
	line := 0
	for _, doc := range split(text) {
		s.docs = append(s.docs, &document{text: doc, line: line})
		line += bytes.Count(doc, []byte("\n"))
	}
	return s
}

// split cuts before each line that starts a YAML document. Three dashes at the start of
// a line are nothing else, even in a block scalar. Directives (%YAML) stay with the
// document after them.
func split(text []byte) [][]byte {
	var docs [][]byte
	start, content := 0, false
	for at := 0; at < len(text); {
		line := text[at:]
		if i := bytes.IndexByte(line, '\n'); i >= 0 {
			line = line[:i+1]
		}
		mark := bytes.HasPrefix(line, []byte("---")) && (len(line) == 3 || strings.IndexByte(" \t\r\n", line[3]) >= 0)
		if mark && content {
			docs = append(docs, text[start:at])
			start = at
		}
		if mark || len(bytes.TrimSpace(line)) > 0 && line[0] != '%' && line[0] != '#' {
			content = true
		}
		at += len(line)
	}
	if start < len(text) {
		docs = append(docs, text[start:])
	}
	return docs
}

// Pods are all pods of the stream, in order. The error is a sentence that tells which
// document cannot be understood.
func (s *Stream) Pods() ([]*Pod, error) {
	var all []*Pod
	for i, d := range s.docs {
		pods, err := d.pods()
		if err != nil {
			if len(s.docs) > 1 {
				err = fmt.Errorf("document %d: %w", i+1, err)
			}
			return nil, err
		}
		all = append(all, pods...)
	}
	return all, nil
}

// Bytes is the text, with the patches applied.
func (s *Stream) Bytes() ([]byte, error) {
	var b bytes.Buffer
	for _, d := range s.docs {
		text, err := d.bytes()
		if err != nil {
			return nil, err
		}
		b.Write(text)
		if !bytes.HasSuffix(text, []byte("\n")) {
			b.WriteByte('\n')
		}
	}
	return b.Bytes(), nil
}

// templates are the kinds that hold a pod, and where.
var templates = map[string][]string{
	"v1/Pod":                   nil,
	"v1/PodTemplate":           {"template"},
	"v1/ReplicationController": {"spec", "template"},
	"apps/v1/Deployment":       {"spec", "template"},
	"apps/v1/ReplicaSet":       {"spec", "template"},
	"apps/v1/StatefulSet":      {"spec", "template"},
	"apps/v1/DaemonSet":        {"spec", "template"},
	"batch/v1/Job":             {"spec", "template"},
	"batch/v1/CronJob":         {"spec", "jobTemplate", "spec", "template"},
}

func (d *document) pods() ([]*Pod, error) {
	if err := d.readable(); err != nil {
		return nil, err
	}
	text, err := yaml.YAMLToJSON(d.text)
	if err != nil {
		return nil, d.notYAML(err)
	}
	var object any
	if err := json.Unmarshal(text, &object); err != nil {
		return nil, fmt.Errorf("this YAML cannot be converted to JSON: %w", err)
	}
	top, ok := object.(map[string]any)
	if !ok {
		if object == nil {
			return nil, nil
		}
		return nil, errors.New("this is not a Kubernetes object; it must be a mapping with apiVersion and kind")
	}
	return d.podsIn(top, "", "")
}

// podsIn finds the pods of one object. The items of a typed list may leave out what they
// are; known says it then.
func (d *document) podsIn(object map[string]any, path, known string) ([]*Pod, error) {
	version, _ := object["apiVersion"].(string)
	kind, _ := object["kind"].(string)
	is := version + "/" + kind
	if version == "" && kind == "" {
		is = known
		kind = is[strings.LastIndexByte(is, '/')+1:]
	}
	if items, ok := object["items"].([]any); ok && strings.HasSuffix(kind, "List") {
		var all []*Pod
		for i, item := range items {
			if m, ok := item.(map[string]any); ok {
				pods, err := d.podsIn(m, path+"/items/"+strconv.Itoa(i), strings.TrimSuffix(is, "List"))
				if err != nil {
					return nil, err
				}
				all = append(all, pods...)
			}
		}
		return all, nil
	}
	where, ok := templates[is]
	name := text(object, "metadata", "name")
	if name == "" {
		name = text(object, "metadata", "generateName")
	}
	if !ok {
		if !hasPod(object) {
			return nil, nil
		}
		return []*Pod{{Object: kind + "/" + name, Kind: strings.TrimPrefix(is, "/")}}, nil
	}
	p := &Pod{Object: kind + "/" + name, Kind: is, Template: len(where) > 0, doc: d, path: path}
	inner := any(object)
	for _, key := range where {
		m, _ := inner.(map[string]any)
		inner = m[key]
		p.path += "/" + key
	}
	if inner == nil {
		inner = map[string]any{}
	}
	for _, of := range []struct {
		what string
		of   any
	}{{p.Object, object}, {p.Object + "'s pod template", inner}} {
		if err := stringsOnly(of.what, of.of); err != nil {
			return nil, err
		}
	}
	encoded, err := json.Marshal(inner)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(slices.Collect(maps.Keys(annotations(inner))), func(k string) bool { return strings.HasPrefix(k, contract.Prefix) }) {
		p.Pod, p.TooMuch, err = inject.Decode(encoded)
	} else {
		p.Pod = &corev1.Pod{}
		err = json.Unmarshal(encoded, p.Pod)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.Object, wrongType(err, inner, where))
	}
	if p.Pod == nil {
		p.Pod = &corev1.Pod{}
	}
	if p.Template {
		p.Outer = annotations(object)
		p.Pod.OwnerReferences = owner(kind, object)
	}
	return []*Pod{p}, nil
}

// Decide is what the webhook would decide about the pod.
func (p *Pod) Decide(ctx context.Context, c inject.Config) inject.Result {
	if p.TooMuch != nil {
		return *p.TooMuch
	}
	return inject.Pod(ctx, p.Pod, c)
}

// hasPod says whether something in an object is like a pod and has an annotation of ours.
func hasPod(v any) bool {
	switch v := v.(type) {
	case map[string]any:
		spec, _ := v["spec"].(map[string]any)
		if _, ok := spec["containers"].([]any); ok {
			for key := range annotations(v) {
				if strings.HasPrefix(key, contract.Prefix) {
					return true
				}
			}
		}
		return slices.ContainsFunc(slices.Collect(maps.Values(v)), hasPod)
	case []any:
		return slices.ContainsFunc(v, hasPod)
	}
	return false
}

// owner represents the controller that will own several pods at a time.
func owner(kind string, object map[string]any) []metav1.OwnerReference {
	many := kind == "DaemonSet"
	for _, field := range []string{"replicas", "parallelism"} {
		if spec, ok := object["spec"].(map[string]any); ok {
			n, ok := spec[field].(float64)
			many = many || ok && n > 1
		}
	}
	if !many {
		return nil
	}
	yes := true
	return []metav1.OwnerReference{{Kind: kind, Controller: &yes}}
}

func annotations(object any) map[string]string {
	all := map[string]string{}
	m, _ := object.(map[string]any)
	metadata, _ := m["metadata"].(map[string]any)
	values, _ := metadata["annotations"].(map[string]any)
	for k, v := range values {
		all[k], _ = v.(string)
	}
	return all
}

// stringsOnly refuses what YAML makes of an unquoted true or 5. The API server does so
// too, in words that do not say which annotation it is.
func stringsOnly(what string, object any) error {
	m, _ := object.(map[string]any)
	metadata, _ := m["metadata"].(map[string]any)
	values, _ := metadata["annotations"].(map[string]any)
	for _, k := range slices.Sorted(keys(values)) {
		if _, ok := values[k].(string); !ok && values[k] != nil { // null is the empty string
			return fmt.Errorf("%s: annotation %s: the value %v is not a string; put it in quotes", what, k, values[k])
		}
	}
	return nil
}

func keys(m map[string]any) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

func text(object map[string]any, path ...string) string {
	for _, key := range path[:len(path)-1] {
		object, _ = object[key].(map[string]any)
	}
	s, _ := object[path[len(path)-1]].(string)
	return s
}

// Apply changes the pod in its stream. The operations are additions, as package inject
// makes them; another operation, or a path that is not there, is an error.
func (p *Pod) Apply(ops []jsonpatch.Operation) error {
	if len(ops) == 0 {
		return nil
	}
	root, err := p.doc.root()
	if err != nil {
		return err
	}
	for _, op := range ops {
		value, err := ordered(op.Value)
		if err == nil && op.Operation != "add" {
			err = fmt.Errorf("operation %q", op.Operation)
		}
		if err == nil {
			err = add(root, strings.Split(p.path+op.Path, "/")[1:], value)
		}
		if err != nil {
			return fmt.Errorf("%s: patch at %s: %w", p.Object, op.Path, err)
		}
	}
	return nil
}
