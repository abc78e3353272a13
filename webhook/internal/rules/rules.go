// Package rules bridges pods that nobody annotates: an administrator's rule selects pods by
// labels and gives them annotations.
//
// In: the text of the chart's values or of the rules file. Out: a Set, or findings with a number
// each; for a pod and the name of a rule, what to do. The API server selects by namespace
// and by labels before it calls, so that other pods never depend on the webhook. Labels of
// a namespace are not in a review: that selection is trusted. The labels of the pod are
// compared again, since a rule may have changed meanwhile.
//
// The package is pure but for the Store, which reads the file again when it changes.
package rules

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/yaml"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/webhook/internal/finding"
	"github.com/log-bridge/log-bridge/webhook/internal/inject"
)

// MaxRules is how many rules there may be: each is a webhook of its own for the API server, and
// all of them are one object, and etcd stores at most 1.5 MiB.
const MaxRules = 200

// Rule is one rule as it is written.
type Rule struct {
	Name              string                `json:"name"`
	NamespaceSelector *metav1.LabelSelector `json:"namespaceSelector,omitempty"`
	PodSelector       *metav1.LabelSelector `json:"podSelector,omitempty"`
	// Annotations by their keys without the prefix.
	Annotations map[string]value `json:"annotations"`

	namespaces, pods labels.Selector
}

// value is that of an annotation. YAML makes of an unquoted true or 1000 something else than
// a string; in a rule it is clear what is meant.
type value string

func (v *value) UnmarshalJSON(text []byte) error {
	switch {
	case text[0] == '"':
		var s string
		err := json.Unmarshal(text, &s)
		*v = value(s)
		return err
	case slices.Contains([]byte("[{n"), text[0]):
		return fmt.Errorf("the value %s is not a string", contract.Brief(string(text)))
	}
	*v = value(text)
	return nil
}

// Set is a list of rules, in their order.
type Set struct {
	Rules  []*Rule
	byName map[string]*Rule
}

// Get is the rule of a name, nil if there is none.
func (s *Set) Get(name string) *Rule { return s.byName[name] }

// Files says whether the rule names files. One that does not has defaults for pods that ask
// for the bridge themselves.
func (r *Rule) Files() bool {
	for _, key := range entryKeys {
		if _, ok := r.Annotations[key]; ok {
			return true
		}
	}
	return false
}

// Selects says whether the API server would call for a pod: namespace are the labels of
// the pod's namespace, annotations those that the pod has of its own.
func (r *Rule) Selects(namespace labels.Set, pod labels.Set, annotations map[string]string) bool {
	return r.namespaces.Matches(namespace) && r.pods.Matches(pod) && (r.Files() || inject.Asks(annotations))
}

var entryKeys = []string{contract.KeyFiles, contract.KeyStderrFiles}

// InValues says whether a text is YAML like the chart's values: a mapping that is no
// Kubernetes object and has rules.
func InValues(text []byte) bool {
	var top map[string]json.RawMessage
	if yaml.Unmarshal(text, &top) != nil {
		return false
	}
	_, kind := top["kind"]
	_, rules := top["rules"]
	return rules && !kind
}

// Parse reads the key rules of a mapping. It returns the rules that were read also if there
// are findings; only without mistakes among these may they be used.
func Parse(ctx context.Context, text []byte, c inject.Config) (*Set, []finding.Finding) {
	s := &Set{byName: map[string]*Rule{}}
	var findings []finding.Finding
	find := func(code finding.Code, format string, args ...any) {
		findings = append(findings, finding.New(code, format, args...))
	}
	var top struct {
		Rules []json.RawMessage `json:"rules"`
	}
	if err := yaml.Unmarshal(text, &top); err != nil {
		find(finding.RuleUnreadable, "rules: this is not a list of rules: %s", brief(err))
		return s, findings
	}
	if n := len(top.Rules); n > MaxRules {
		find(finding.TooManyRules, "rules: there are %d, but only %d are allowed; let one rule select more pods, with matchExpressions", n, MaxRules)
		return s, findings
	}
	seen := map[string]string{}
	for i, text := range top.Rules {
		r := &Rule{}
		where := finding.Say("rules[%d]", i)
		var named struct{ Name string }
		if json.Unmarshal(text, &named) == nil && named.Name != "" {
			where = finding.Say("rule %s", named.Name)
		}
		if err := strict(text, r); err != nil {
			find(finding.RuleUnreadable, "%s: %s; a rule has name, namespaceSelector, podSelector and annotations", where, brief(err))
			continue
		}
		s.Rules = append(s.Rules, r)
		switch wrong := validation.IsDNS1123Label(r.Name); {
		case len(wrong) > 0:
			find(finding.RuleNameInvalid, "%s: the name %q is not a DNS label: use at most 63 lower-case letters, digits and hyphens, such as tomcat", where, r.Name)
		case s.byName[r.Name] != nil:
			find(finding.RuleNameInvalid, "%s: another rule has this name; give each rule a unique name", where)
		default:
			s.byName[r.Name] = r
		}
		for _, sel := range []struct {
			name string
			of   *metav1.LabelSelector
			to   *labels.Selector
		}{{"namespaceSelector", r.NamespaceSelector, &r.namespaces}, {"podSelector", r.PodSelector, &r.pods}} {
			of := sel.of
			if of == nil {
				of = &metav1.LabelSelector{}
			}
			selector, err := metav1.LabelSelectorAsSelector(of)
			if err != nil {
				find(finding.RuleSelectorInvalid, "%s: %s: %s", where, sel.name, brief(err))
				selector = labels.Nothing()
			}
			*sel.to = selector
		}
		if r.namespaces.Empty() && r.pods.Empty() {
			find(finding.RuleSelectsEveryPod, "%s: both selectors are empty, so the rule would select every pod of the cluster; add a namespaceSelector or a podSelector", where)
		}
		findings = append(findings, r.check(ctx, where, c)...)
		// A rule with files and one of defaults with the same selectors do not compete: the latter
		// does not select a pod that does not ask. Otherwise the first one decides.
		key := fmt.Sprint(r.namespaces, "\x00", r.pods)
		if first, ok := seen[key]; ok {
			find(finding.RuleShadowed, "%s: the earlier rule %s has the same selectors, so this one applies only to pods that the other does not fit; merge the two", where, first)
		} else if r.Files() {
			seen[key] = r.Name
		}
	}
	return s, findings
}

// strict decodes JSON, and refuses unknown fields.
func strict(text []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if _, more := d.Token(); err == nil && !errors.Is(more, io.EOF) {
		return errors.New("unexpected content after it")
	}
	return err
}

// brief is an error of the JSON and YAML libraries without their prefixes.
func brief(err error) finding.Words {
	text := err.Error()
	for _, prefix := range []string{"error converting YAML to JSON: ", "error unmarshaling JSON: ", "while decoding JSON: ", "json: "} {
		text = strings.TrimPrefix(text, prefix)
	}
	return finding.Words(contract.Cut(text, 256))
}

// anyContainer in the place of a container's name means each one. While a value is
// parsed, a name that no container has is in its place.
const (
	anyContainer = "*"
	placeholder  = "any-container-of-the-pod-of-log-bridge-rules"
)

// entries are those of one annotation; those of any container have the placeholder's name.
func entries(v value) ([]contract.Entry, error) {
	return contract.ParseEntries(marked(string(v)))
}

// marked puts the placeholder in the place of each *: that begins an entry.
func marked(v string) string {
	var b strings.Builder
	begins := true
	for i := 0; i < len(v); i++ {
		c := v[i]
		if begins && c == '*' {
			if rest := strings.TrimLeft(v[i+1:], " \t"); strings.HasPrefix(rest, ":") {
				b.WriteString(placeholder)
				begins = false
				continue
			}
		}
		b.WriteByte(c)
		begins = c == ',' || c == '\n' || c == '{' || begins && (c == ' ' || c == '\t' || c == '\r')
	}
	return b.String()
}

// check finds what is wrong with the annotations of a rule, whatever the pod: it decides about
// a plain pod that has each container the rule names.
func (r *Rule) check(ctx context.Context, where finding.Words, c inject.Config) (findings []finding.Finding) {
	if len(r.Annotations) == 0 {
		return []finding.Finding{finding.New(finding.RuleAnnotationInvalid, "%s: it has no annotations; add files, and other annotations of pods, without the prefix log-bridge.dev/", where)}
	}
	pod := &corev1.Pod{}
	pod.Annotations = map[string]string{}
	containers := map[string]bool{}
	for _, key := range slices.Sorted(maps.Keys(r.Annotations)) {
		v := r.Annotations[key]
		switch {
		case key == contract.KeyInject || key == contract.KeyStatus:
			findings = append(findings, finding.New(finding.RuleAnnotationInvalid, "%s: annotations: %s is for pods, not for rules; remove it", where, key))
			continue
		case strings.Contains(key, "/"):
			findings = append(findings, finding.New(finding.RuleAnnotationInvalid, "%s: annotations: write %q without its prefix, such as files", where, key))
			continue
		}
		pod.Annotations[contract.Prefix+key] = string(v)
		if !slices.Contains(entryKeys, key) {
			continue
		}
		pod.Annotations[contract.Prefix+key] = marked(string(v))
		list, err := entries(v)
		if err != nil {
			continue // told below
		}
		for _, e := range list {
			containers[e.Container] = true
		}
	}
	if !inject.Asks(pod.Annotations) {
		pod.Annotations[contract.Prefix+contract.KeyFiles] = "/var/log/app.log"
	}
	delete(containers, "")
	for _, name := range append(slices.Sorted(maps.Keys(containers)), "of-no-entry") {
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: name, Image: "image"})
	}
	for _, f := range inject.Pod(ctx, pod, c).Mistakes() {
		text := strings.ReplaceAll(strings.ReplaceAll(f.String(), placeholder, anyContainer), contract.Prefix, "")
		findings = append(findings, finding.New(finding.RuleAnnotationInvalid, "%s: annotations: %s", where, finding.Words(text)))
	}
	return findings
}
