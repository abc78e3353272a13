package inject

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/log-bridge/log-bridge/webhook/internal/finding"
)

// environment are the variables of the sidecar that subPathExpr needs.
type environment struct {
	list []corev1.EnvVar
	by   map[string][]corev1.EnvVar
	// given are the suffixes of what containers need, and last the number of the last one that
	// a name got.
	given map[string]string
	last  map[string]int
	size  int
}

// variables are those of one container, by name. A name may be there several times.
type variables struct {
	all []corev1.EnvVar
	by  map[string][]int
	// refer is what the value of each refers to, found when it is first asked for.
	refer map[int]reference
}

// reference is what a value refers to: variables of the container, and the first name that
// is none.
type reference struct {
	defined   []string
	undefined string
}

func (v *variables) references(at int) reference {
	r, ok := v.refer[at]
	if !ok {
		for _, name := range references(v.all[at].Value) {
			if len(v.by[name]) > 0 {
				r.defined = append(r.defined, name)
			} else if r.undefined == "" {
				r.undefined = name
			}
		}
		v.refer[at] = r
	}
	return r
}

// express gives the sidecar the variables that a container's subPathExpr needs,
// and returns the expression as it must stand in the sidecar's arguments. Kubelet
// expands $(VAR) in subPathExpr and in arguments by the same rules, so the text
// stays as it is unless two containers mean different things by one name.
func (e *environment) express(p *pod, s source, expr string) (string, error) {
	if len(expr) > maxPath {
		return "", finding.Sentence("it has %d bytes, too long for a path", len(expr))
	}
	need, indices, err := p.variablesOf(s).of(expr, len(s.EnvFrom) > 0)
	if err != nil {
		return "", err
	}
	if len(indices) == 0 {
		return expr, nil
	}
	key := s.Name + "\x00" + fmt.Sprint(indices)
	suffix, given := e.given[key]
	if !given {
		vars := make([]corev1.EnvVar, len(indices))
		for i, at := range indices {
			vars[i] = *s.Env[at].DeepCopy()
			e.size += vars[i].Size()
			// Without a name the reference means its own container.
			if from := vars[i].ValueFrom; from != nil && from.ResourceFieldRef != nil && from.ResourceFieldRef.ContainerName == "" {
				from.ResourceFieldRef.ContainerName = s.Name
			}
		}
		if e.size > MaxAdded {
			return "", finding.Sentence("the variables that it needs have more than %d bytes in total; use fewer or shorter ones", MaxAdded)
		}
		suffix = e.add(vars, need)
		e.given[key] = suffix
	}
	return rename(expr, need, suffix), nil
}

// of are the names of the variables that an expression needs, and the variables
// themselves, in order, as indices.
func (v *variables) of(expr string, envFrom bool) (need map[string]bool, indices []int, err error) {
	need = map[string]bool{}
	queue := references(expr)
	for _, name := range queue {
		need[name] = true
		switch {
		case len(v.by[name]) > 0:
		case envFrom:
			return nil, nil, finding.Sentence("$(%s) is not in the container's env; the sidecar cannot get a single variable from envFrom, so define %s in env", name, name)
		default:
			return nil, nil, finding.Sentence("$(%s) is not in the container's env; define %s there", name, name)
		}
	}
	// A literal value may refer to variables in its turn. One that is not in env
	// stays as text there, or is a service's variable, which the sidecar has as well.
	for i := 0; i < len(queue); i++ {
		for _, at := range v.by[queue[i]] {
			if indices = append(indices, at); len(indices) > maxVariables {
				return nil, nil, finding.Sentence("it needs more than %d variables; use fewer", maxVariables)
			}
			e := &v.all[at]
			if e.ValueFrom != nil && e.ValueFrom.FileKeyRef != nil {
				return nil, nil, finding.Sentence("%s comes from a file (fileKeyRef) that is written after the sidecar starts; set it to a value or to a field of the pod", e.Name)
			}
			if len(e.Value) > MaxAdded {
				return nil, nil, finding.Sentence("the value of %s has %d bytes; use a shorter one", e.Name, len(e.Value))
			}
			r := v.references(at)
			if name := r.undefined; name != "" && envFrom {
				return nil, nil, finding.Sentence("%s refers to $(%s), which is not in the container's env; the sidecar cannot get a single variable from envFrom, so define %s in env", e.Name, name, name)
			}
			if len(r.defined) > maxVariables {
				return nil, nil, finding.Sentence("it needs more than %d variables; use fewer", maxVariables)
			}
			for _, name := range r.defined {
				if !need[name] {
					need[name] = true
					queue = append(queue, name)
				}
			}
		}
	}
	slices.Sort(indices)
	return need, indices, nil
}

// add gives the sidecar some variables, and returns the suffix that their names get. All
// variables of one expression keep their names, or none does: a value that stays the same
// may refer to one that does not.
func (e *environment) add(vars []corev1.EnvVar, names map[string]bool) (suffix string) {
	if e.by == nil {
		e.by, e.given, e.last = map[string][]corev1.EnvVar{}, map[string]string{}, map[string]int{}
	}
	n := 1
	if !e.fits(vars, names, "") {
		// Suffixes before the last one mostly mean something else, and trying each would take
		// the square of their number.
		n = 2
		for _, v := range vars {
			n = max(n, e.last[v.Name])
		}
		for !e.fits(vars, names, numbered(n)) {
			n++
		}
		suffix = numbered(n)
	}
	for _, v := range vars {
		e.last[v.Name] = max(n, e.last[v.Name])
	}
	there := map[string]bool{}
	for _, v := range vars {
		there[v.Name] = len(e.by[v.Name+suffix]) > 0
	}
	for _, v := range vars {
		if there[v.Name] {
			continue // with the same meaning
		}
		v = renamed(v, names, suffix)
		e.by[v.Name] = append(e.by[v.Name], v)
		e.list = append(e.list, v)
	}
	return suffix
}

func numbered(n int) string { return fmt.Sprintf("_%d", n) }

// fits says whether variables, with a suffix to their names, mean what variables of
// these names already mean in the sidecar.
func (e *environment) fits(vars []corev1.EnvVar, names map[string]bool, suffix string) bool {
	want := map[string][]corev1.EnvVar{}
	for _, v := range vars {
		if len(e.by[v.Name+suffix]) > 0 {
			want[v.Name] = append(want[v.Name], renamed(v, names, suffix))
		}
	}
	for name, w := range want {
		if !equality.Semantic.DeepEqual(e.by[name+suffix], w) {
			return false
		}
	}
	return true
}

func renamed(v corev1.EnvVar, names map[string]bool, suffix string) corev1.EnvVar {
	v.Name += suffix
	v.Value = rename(v.Value, names, suffix)
	return v
}

// references are the names in $(NAME) of a text, each once, by the rules of the
// kubelet: $$ is a dollar sign, and an open parenthesis without its end is text.
func references(text string) []string {
	var names []string
	seen := map[string]bool{}
	expand(text, func(name string) string {
		if !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
		return ""
	})
	return names
}

// rename adds a suffix to some of the names that a text refers to.
func rename(text string, names map[string]bool, suffix string) string {
	if suffix == "" {
		return text
	}
	return expand(text, func(name string) string {
		if names[name] {
			name += suffix
		}
		return "$(" + name + ")"
	})
}

// expand replaces each $(NAME) of a text and keeps the rest, $$ included.
func expand(text string, with func(string) string) string {
	var b strings.Builder
	// After the last parenthesis there is no end to search for.
	last := strings.LastIndexByte(text, ')')
	for at := 0; ; {
		i := strings.IndexByte(text[at:], '$')
		if i < 0 || at+i+1 >= len(text) {
			b.WriteString(text[at:])
			return b.String()
		}
		i += at
		b.WriteString(text[at:i])
		if text[i+1] == '(' && i < last {
			end := i + strings.IndexByte(text[i:], ')')
			b.WriteString(with(text[i+2 : end]))
			at = end + 1
			continue
		}
		b.WriteString(text[i : i+2])
		at = i + 2
	}
}
