package inject

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
)

// environment gives the sidecar the variables that a container's subPathExpr needs,
// and returns the expression as it must stand in the sidecar's arguments. Kubelet
// expands $(VAR) in subPathExpr and in arguments by the same rules, so the text
// stays as it is unless two containers mean different things by one name.
func (p *planner) environment(s source, expr string) (string, error) {
	need := references(expr)
	for _, name := range need {
		if !slices.ContainsFunc(s.Env, func(v corev1.EnvVar) bool { return v.Name == name }) {
			if len(s.EnvFrom) > 0 {
				return "", fmt.Errorf("$(%s) is not in the container's env; if it comes from envFrom, the sidecar cannot be given it alone, so define %s in env", name, name)
			}
			return "", fmt.Errorf("$(%s) is not in the container's env; define %s there", name, name)
		}
	}
	// A literal value may refer to variables in its turn. One that is not in env
	// stays as text there, or is a service's variable, which the sidecar has as well.
	for i := 0; i < len(need); i++ {
		for _, v := range s.Env {
			if v.Name != need[i] {
				continue
			}
			if v.ValueFrom != nil && v.ValueFrom.FileKeyRef != nil {
				return "", fmt.Errorf("%s comes from a file (fileKeyRef) that is written after the sidecar starts; define it by value or from a field of the pod", v.Name)
			}
			for _, name := range references(v.Value) {
				defined := slices.ContainsFunc(s.Env, func(v corev1.EnvVar) bool { return v.Name == name })
				if !defined && len(s.EnvFrom) > 0 {
					return "", fmt.Errorf("%s refers to $(%s), which is not in the container's env; if it comes from envFrom, the sidecar cannot be given it alone, so define %s in env", v.Name, name, name)
				}
				if defined && !slices.Contains(need, name) {
					need = append(need, name)
				}
			}
		}
	}
	var vars []corev1.EnvVar
	for _, v := range s.Env {
		if slices.Contains(need, v.Name) {
			v = *v.DeepCopy()
			// Without a name the reference means the container it stands in.
			if v.ValueFrom != nil && v.ValueFrom.ResourceFieldRef != nil && v.ValueFrom.ResourceFieldRef.ContainerName == "" {
				v.ValueFrom.ResourceFieldRef.ContainerName = s.Name
			}
			vars = append(vars, v)
		}
	}
	// All variables of one expression keep their names, or none does: a value that
	// stays the same may refer to one that does not.
	suffix := ""
	for n := 2; !p.fits(vars, suffix); n++ {
		suffix = fmt.Sprintf("_%d", n)
	}
	for _, v := range vars {
		v = renamed(v, need, suffix)
		if !slices.ContainsFunc(p.env, func(have corev1.EnvVar) bool { return equality.Semantic.DeepEqual(have, v) }) {
			p.env = append(p.env, v)
		}
	}
	return rename(expr, need, suffix), nil
}

// fits says whether variables, with a suffix to their names, mean what variables of
// these names already mean in the sidecar.
func (p *planner) fits(vars []corev1.EnvVar, suffix string) bool {
	var names []string
	for _, v := range vars {
		names = append(names, v.Name)
	}
	for _, name := range names {
		var have, want []corev1.EnvVar
		for _, v := range p.env {
			if v.Name == name+suffix {
				have = append(have, v)
			}
		}
		for _, v := range vars {
			if v.Name == name {
				want = append(want, renamed(v, names, suffix))
			}
		}
		if len(have) > 0 && !equality.Semantic.DeepEqual(have, want) {
			return false
		}
	}
	return true
}

func renamed(v corev1.EnvVar, names []string, suffix string) corev1.EnvVar {
	v.Name += suffix
	v.Value = rename(v.Value, names, suffix)
	return v
}

// references are the names in $(NAME) of a text, each once, by the rules of the
// kubelet: $$ is a dollar sign, and an open parenthesis without its end is text.
func references(text string) []string {
	var names []string
	expand(text, func(name string) string {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
		return ""
	})
	return names
}

// rename adds a suffix to some of the names that a text refers to.
func rename(text string, names []string, suffix string) string {
	return expand(text, func(name string) string {
		if slices.Contains(names, name) {
			name += suffix
		}
		return "$(" + name + ")"
	})
}

// expand replaces each $(NAME) of a text and keeps the rest, $$ included.
func expand(text string, with func(string) string) string {
	var b strings.Builder
	for len(text) > 0 {
		i := strings.IndexByte(text, '$')
		if i < 0 || i+1 == len(text) {
			break
		}
		b.WriteString(text[:i])
		text = text[i:]
		end := strings.IndexByte(text, ')')
		if text[1] == '(' && end > 0 {
			b.WriteString(with(text[2:end]))
			text = text[end+1:]
			continue
		}
		b.WriteString(text[:2])
		text = text[2:]
	}
	b.WriteString(text)
	return b.String()
}
