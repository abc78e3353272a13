package inject

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/webhook/internal/finding"
)

// defaultContainer is kubectl's annotation for the container that is meant when
// none is named.
const defaultContainer = "kubectl.kubernetes.io/default-container"

// settings are the annotations of a pod, read. A nil pointer is an absent one.
type settings struct {
	files, stderrFiles []contract.Entry
	mount              string
	seed               bool
	format             contract.Format
	reclaim            bool
	sizeLimit          *resource.Quantity

	cpuRequest, cpuLimit, memoryRequest, memoryLimit *resource.Quantity
	ephemeralRequest, ephemeralLimit                 *resource.Quantity
	runAsUser, runAsGroup                            *int64
}

// checkUnasked looks at a pod without files. A misspelt key is a mistake, since it may
// have been meant as files. A mere setting is only warned of: it changes nothing,
// and a pod that does not ask for the bridge must not be blocked by it.
func checkUnasked(ctx context.Context, in *corev1.Pod) (found finding.List) {
	for _, key := range ourKeys(in) {
		if ctx.Err() != nil {
			return found
		}
		row, err := lookup(key, found.Full())
		switch {
		case err != nil:
			found.Add(finding.UnknownAnnotation, "%v", err)
		case row.Key != contract.KeyStatus && row.Key != contract.KeyInject:
			found.Add(finding.SettingWithoutFiles, "%s has no effect without %s; the pod is left unchanged", key, annotation(contract.KeyFiles))
		}
	}
	return found
}

// lookup finds the row of a key. Finding the nearest one takes a while, which is spent only
// on messages that are shown: not in a hurry.
func lookup(key string, hurry bool) (contract.Annotation, error) {
	if hurry && !slices.ContainsFunc(contract.Annotations, func(a contract.Annotation) bool { return a.Name() == key }) {
		return contract.Annotation{}, errors.New(key)
	}
	return contract.Lookup(key)
}

// readSettings reads each annotation of our domain as its row of the table says.
func readSettings(ctx context.Context, p *pod) (settings, finding.List) {
	set := settings{mount: contract.MountAuto, seed: true, format: contract.Raw}
	var found finding.List
	for _, key := range ourKeys(p.Pod) {
		if ctx.Err() != nil {
			return set, found
		}
		row, err := lookup(key, found.Full())
		if err != nil {
			found.Add(finding.UnknownAnnotation, "%v", err)
			continue
		}
		value := p.Annotations[key]
		if row.Kind != contract.Entries {
			value = strings.TrimSpace(value)
		}
		if code, err := set.read(row, value); err != nil {
			found.Add(code, "%s: %v", key, err)
		}
	}
	var f finding.List
	set.files, f = nameContainers(p, contract.KeyFiles, set.files)
	found.Merge(f)
	set.stderrFiles, f = nameContainers(p, contract.KeyStderrFiles, set.stderrFiles)
	found.Merge(f)
	found.Merge(checkStreams(set))
	return set, found
}

// checkStreams refuses an entry whose lines would go to both streams.
func checkStreams(set settings) (found finding.List) {
	both := map[contract.Entry]bool{}
	for _, e := range set.stderrFiles {
		both[e] = true
	}
	for _, e := range set.files {
		if both[e] {
			found.Add(finding.EntryForBothStreams, "%s: %s is also in %s; each line is written once, so remove it from one of them", annotation(contract.KeyFiles), e, annotation(contract.KeyStderrFiles))
		}
	}
	return found
}

// read sets what one annotation says. The error is a sentence without the key.
func (s *settings) read(row contract.Annotation, value string) (finding.Code, error) {
	switch row.Kind {
	case contract.Entries:
		entries, err := contract.ParseEntries(value)
		if row.Key == contract.KeyFiles {
			s.files = entries
		} else {
			s.stderrFiles = entries
		}
		return finding.InvalidEntry, err
	case contract.Enum:
		if !slices.Contains(row.Values, value) {
			return finding.InvalidValue, finding.Sentence("%q is not one of %s", value, finding.Words(strings.Join(row.Values, ", ")))
		}
		if row.Key == contract.KeyMount {
			s.mount = value
		} else {
			s.format = contract.Format(value)
		}
	case contract.Bool:
		b, err := parseBool(value)
		if err != nil {
			return finding.InvalidValue, err
		}
		switch row.Key {
		case contract.KeySeed:
			s.seed = b
		case contract.KeyReclaim:
			s.reclaim = b
		}
	case contract.Quantity, contract.Request:
		q, err := ParseQuantity(value)
		if err != nil {
			return finding.InvalidValue, finding.Sentence("%q is not a quantity; write one such as %s", value, exampleQuantity(row.Key))
		}
		// A limit of 0 reads as "no limit" to one and as "nothing allowed" to another. A request
		// of 0 means one thing.
		if row.Kind == contract.Request && q.Sign() < 0 {
			return finding.InvalidValue, finding.Sentence("%q is negative; write a quantity such as %s, or 0", value, exampleQuantity(row.Key))
		}
		if row.Kind == contract.Quantity && q.Sign() <= 0 {
			return finding.InvalidValue, finding.Sentence("%q is not positive; write a quantity such as %s, or remove the annotation", value, exampleQuantity(row.Key))
		}
		if wrong := implausible(row.Key, q); wrong != "" {
			return finding.ImplausibleQuantity, finding.Sentence("%q is %s; write a quantity such as %s", value, wrong, exampleQuantity(row.Key))
		}
		*s.quantity(row.Key) = &q
	case contract.ID:
		id, err := strconv.ParseInt(value, 10, 32)
		if err != nil || strings.Trim(value, "0123456789") != "" {
			return finding.InvalidValue, finding.Sentence("%q is not a numeric ID; write a number from 0 to 2147483647", value)
		}
		if row.Key == contract.KeyRunAsUser {
			s.runAsUser = &id
		} else {
			s.runAsGroup = &id
		}
	case contract.Status:
		// Ours; it is overwritten.
	}
	return "", nil
}

func (s *settings) quantity(key string) **resource.Quantity {
	switch key {
	case contract.KeyCPURequest:
		return &s.cpuRequest
	case contract.KeyCPULimit:
		return &s.cpuLimit
	case contract.KeyMemoryRequest:
		return &s.memoryRequest
	case contract.KeyMemoryLimit:
		return &s.memoryLimit
	case contract.KeyEphemeralRequest:
		return &s.ephemeralRequest
	case contract.KeyEphemeralLimit:
		return &s.ephemeralLimit
	default:
		return &s.sizeLimit
	}
}

// implausible says what a quantity is that nobody can have meant: one of a unit that the
// resource does not have, as 64m of memory, which is less than a byte.
func implausible(key string, q resource.Quantity) finding.Words {
	if q.IsZero() {
		return "" // a request of nothing is meant
	}
	f := q.AsApproximateFloat64()
	switch key {
	case contract.KeyCPURequest, contract.KeyCPULimit:
		if f > 1e5 {
			return finding.Say("more CPUs than any machine has (CPU is counted in cores)")
		}
	case contract.KeyMemoryRequest, contract.KeyMemoryLimit:
		switch {
		case f < 1:
			return "less than one byte (m means thousandths, Mi mebibytes, M megabytes)"
		case f < 1<<20:
			return "less than 1 MiB, too little for any program to start"
		}
	case contract.KeySizeLimit, contract.KeyEphemeralRequest, contract.KeyEphemeralLimit:
		switch {
		case f < 1:
			return "less than one byte (m means thousandths, Mi mebibytes, M megabytes)"
		case f < 1<<12:
			return "less than one disk block, so the pod would be evicted at the first line"
		}
	}
	if f > 1<<60 {
		return "more than any machine has"
	}
	return ""
}

func exampleQuantity(key string) string {
	switch key {
	case contract.KeyCPURequest, contract.KeyCPULimit:
		return "100m"
	case contract.KeySizeLimit:
		return "1Gi"
	default:
		return "64Mi"
	}
}

// parseBool knows the two words of YAML's core schema only, so that nobody has to
// ask what "no" or "0" is.
func parseBool(value string) (bool, error) {
	switch strings.TrimSpace(value) {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, finding.Sentence("%q is neither \"true\" nor \"false\"", value)
}

// nameContainers fills in the default container, drops what is named twice, and
// refuses containers that the pod does not have.
func nameContainers(p *pod, key string, entries []contract.Entry) (named []contract.Entry, found finding.List) {
	twice := map[contract.Entry]bool{}
	for _, e := range entries {
		if e.Container == "" {
			name, f := defaultOf(p)
			found.Merge(f)
			if name == "" {
				continue
			}
			e.Container = name
		} else if _, ok := p.source(e.Container); !ok {
			found.Add(finding.UnknownContainer, "%s: %s: the pod has no container %q; it has %s", annotation(key), e, e.Container, containerNames(p, found.Full()))
			continue
		}
		if !twice[e] {
			twice[e] = true
			named = append(named, e)
		}
	}
	return named, found
}

// defaultOf is the container that kubectl takes when none is named. One
// that is set to our sidecar, so that `kubectl logs POD` shows the files, says
// nothing about whose files they are. Without a name there is a mistake.
func defaultOf(p *pod) (string, finding.List) {
	if name := p.Annotations[defaultContainer]; name != "" && name != contract.Container {
		if _, ok := p.source(name); !ok {
			return "", finding.Of(finding.New(finding.UnknownDefaultContainer, "%s: the pod has no container %q; it has %s", defaultContainer, name, containerNames(p, false)))
		}
		return name, finding.List{}
	}
	if len(p.Spec.Containers) == 0 {
		return "", finding.Of(finding.New(finding.UnknownContainer, "the pod has no containers"))
	}
	return p.Spec.Containers[0].Name, finding.List{}
}

func containerNames(p *pod, hurry bool) finding.Words {
	if hurry {
		return "others"
	}
	return names(p.sources)
}
