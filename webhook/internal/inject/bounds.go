package inject

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"maps"
	"math"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	kjson "sigs.k8s.io/json"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/webhook/internal/finding"
)

// Bounds of a pod. One that exceeds them is refused with a sentence, so that no pod takes
// more than 100 ms and 16 MiB, whatever the API server sends. They are far above what a
// node can run.
const (
	// MaxPod is how many bytes a pod's JSON may have. The API server takes requests of 3 MiB and
	// adds defaults and managed fields; etcd stores no object of half the size.
	MaxPod = 3<<20 + 256<<10
	// MaxValues is how many values a pod's JSON may have: objects, and items and fields.
	// Without a bound, three bytes of it could become a few hundred of memory.
	MaxValues = 30_000
	// MaxContainers is how many containers of all kinds a pod may have. Three bytes of JSON
	// become one, which takes about a KiB.
	MaxContainers = 1000
	// MaxAnnotations is how many bytes all annotations of a pod may have together. It is
	// Kubernetes' own limit, which the API server enforces after the webhooks.
	MaxAnnotations = 256 << 10
	// MaxAdded is how many bytes the containers that are added may have together.
	MaxAdded = 256 << 10
	// maxQuantity is how many bytes a quantity may have, and maxExponent how many digits its
	// exponent. Comparing 1e999999999 computes a number of a billion digits.
	maxQuantity, maxExponent = 64, 2
	// maxGlobs bounds the comparisons of globs with mount paths, in the product of their
	// lengths: about 10,000 comparisons of usual ones.
	maxGlobs = 16 << 20
	// maxVariables is how many variables one subPathExpr may need.
	maxVariables = 64
	// maxName is how long a container's or a volume's name may be, and maxImage an image's.
	// maxPath is the longest path of Linux.
	maxName, maxImage, maxPath = 63, 1024, 4096
)

// Decode reads a pod from JSON. One that exceeds the bounds is not decoded, but decided
// about. The error is for text that is not a pod.
func Decode(text []byte) (*corev1.Pod, *Result, error) {
	if r := measure(text); r != nil {
		return nil, r, nil
	}
	var pod corev1.Pod
	// As the API server reads it: a field whose name has other capitals is none.
	if err := kjson.UnmarshalCaseSensitivePreserveInts(text, &pod); err != nil {
		return nil, nil, err
	}
	return &pod, nil, nil
}

// measure reads the JSON text of a pod once, without decoding it, and refuses it if it is
// not within the bounds. Of a text that is no JSON it says nothing that counts.
func measure(text []byte) *Result {
	m := meter{text: text}
	for m.next() {
	}
	tooMuch := func(n, most int, what string) finding.Finding {
		return finding.New(finding.PodTooLarge, "the pod has %d %s, more than the limit of %d; make it smaller, or remove the log-bridge.dev annotations", n, what, most)
	}
	var f finding.Finding
	switch {
	case len(text) > MaxPod:
		f = tooMuch(len(text), MaxPod, "bytes of JSON")
	case m.containers > MaxContainers:
		f = tooMuch(m.containers, MaxContainers, "containers")
	case m.values > MaxValues:
		f = tooMuch(m.values, MaxValues, "fields and items")
	case m.quantity != "":
		f = finding.New(finding.QuantityOutOfRange, "%v: the quantity has too many digits; use a suffix, such as 64Mi or 100m", m.quantity)
	default:
		return nil
	}
	// Such a pod is left alone whatever it holds. One with our status was within the bounds
	// before it had our parts.
	if m.alone != "" {
		return &Result{LeftAlone: m.alone}
	}
	return &Result{List: finding.Of(f)}
}

// meter goes through a JSON text from value to value.
type meter struct {
	text []byte
	at   int
	// levels are the objects and lists around the place, each by the name of its field.
	levels []string
	name   []byte // of the field at the place

	values, containers int
	quantity           finding.Words // the first one that must not be decoded, as a sentence begins
	alone              Reason        // why the pod is left alone
}

// next goes on by one token. It says false at the end.
func (m *meter) next() bool {
	if m.at >= len(m.text) {
		return false
	}
	c := m.text[m.at]
	m.at++
	switch {
	case c == '{' || c == '[':
		m.count()
		m.levels = append(m.levels, string(m.name))
		m.name = nil
		if c == '[' && m.listsContainers() && !bytes.HasPrefix(bytes.TrimLeft(m.text[m.at:min(m.at+16, len(m.text))], " \t\r\n"), []byte("]")) {
			m.containers++
		}
	case c == '}' || c == ']':
		if len(m.levels) > 0 {
			m.levels = m.levels[:len(m.levels)-1]
		}
		m.name = nil
	case c == ',':
		m.count()
		m.name = nil
		// A null takes as much memory as an object.
		if m.listsContainers() {
			m.containers++
		}
	case c == '"':
		end := closing(m.text, m.at)
		s := m.text[m.at:end]
		m.at = min(end+1, len(m.text))
		if rest := bytes.TrimLeft(m.text[m.at:min(m.at+16, len(m.text))], " \t\r\n"); len(rest) > 0 && rest[0] == ':' {
			m.name = unescaped(s)
			return true
		}
		m.scalar(s)
	case c >= '0' && c <= '9' || c == '-':
		begin := m.at - 1
		for m.at < len(m.text) && bytes.IndexByte([]byte("0123456789.eE+-"), m.text[m.at]) >= 0 {
			m.at++
		}
		m.scalar(m.text[begin:m.at])
	}
	return true
}

// listsContainers says whether the place is in one of the pod's lists of containers.
func (m *meter) listsContainers() bool {
	return len(m.levels) == 3 && m.levels[1] == "spec" && (m.levels[2] == "containers" || m.levels[2] == "initContainers" || m.levels[2] == "ephemeralContainers")
}

// count counts a value. What the API server notes about fields that somebody manages is
// kept as text, and takes no more memory than that.
func (m *meter) count() {
	if len(m.levels) > 4 && m.levels[2] == "managedFields" && m.levels[4] == "fieldsV1" {
		return
	}
	m.values++
}

// scalar sees a string or a number. Kubernetes has quantities at these places.
func (m *meter) scalar(s []byte) {
	n := len(m.levels)
	if n < 2 {
		return
	}
	inside, around := m.levels[n-1], m.levels[n-2]
	if n == 3 && inside == "annotations" && around == "metadata" {
		switch string(m.name) {
		case annotation(contract.KeyInject):
			if no, err := parseBool(string(unescaped(s))); err == nil && !no {
				m.alone = Declined
			}
		case corev1.MirrorPodAnnotationKey:
			m.alone = cmp.Or(m.alone, MirrorPod)
		case annotation(contract.KeyStatus):
			m.alone = cmp.Or(m.alone, Already)
		}
	}
	switch {
	case (inside == "limits" || inside == "requests") && around == "resources":
	case inside == "allocatedResources":
	case inside == "overhead" && around == "spec":
	case inside == "emptyDir" && string(m.name) == "sizeLimit":
	case inside == "resourceFieldRef" && string(m.name) == "divisor":
	default:
		return
	}
	// A text of any length is not copied: each of its characters may have six bytes here.
	begin := s[:min(len(s), 6*maxQuantity+1)]
	if m.quantity == "" && (len(begin) < len(s) || !comparable(string(unescaped(s)))) {
		m.quantity = finding.Say("%s: %s", string(m.name), string(begin))
	}
}

// closing is the place of the quote that ends the string that begins at a place.
func closing(text []byte, at int) int {
	for from := at; ; {
		i := bytes.IndexByte(text[from:], '"')
		if i < 0 {
			return len(text)
		}
		end := from + i
		slashes := 0
		for slashes < end-at && text[end-1-slashes] == '\\' {
			slashes++
		}
		if slashes%2 == 0 {
			return end
		}
		from = end + 1
	}
}

// unescaped is a string of JSON without its escapes.
func unescaped(s []byte) []byte {
	if bytes.IndexByte(s, '\\') < 0 {
		return s
	}
	var plain string
	if json.Unmarshal(slices.Concat([]byte{'"'}, s, []byte{'"'}), &plain) != nil {
		return s
	}
	return []byte(plain)
}

// comparable says whether the text of a quantity, if it is one, can be decoded and compared
// quickly.
func comparable(text string) bool {
	if len(text) > maxQuantity {
		return false
	}
	i := strings.IndexAny(text, "eE")
	return i < 0 || len(strings.TrimLeft(text[i+1:], "+-")) <= maxExponent
}

// ParseQuantity reads a quantity, and refuses one that takes long to be read.
func ParseQuantity(text string) (resource.Quantity, error) {
	if !comparable(text) {
		return resource.Quantity{}, errors.New("it has too many digits")
	}
	return resource.ParseQuantity(text)
}

// bounded says the same of a quantity that was decoded already.
func bounded(q resource.Quantity) bool {
	f := q.AsApproximateFloat64()
	return math.Abs(f) < 1e30 && (f != 0 || q.Sign() == 0)
}

// checkBounds refuses what the API server has not validated yet, but would refuse later: names of
// any length, which would be repeated for each entry, and quantities of any size.
func checkBounds(p *pod) (found finding.List) {
	total := 0
	for k, v := range p.Annotations {
		total += len(k) + len(v)
	}
	if total > MaxAnnotations {
		found.Add(finding.AnnotationsTooLong, "the pod's annotations have %d bytes in total, but Kubernetes allows only %d; remove some", total, MaxAnnotations)
	}
	if n := len(p.sources); n > MaxContainers {
		found.Add(finding.PodTooLarge, "the pod has %d containers, more than the limit of %d; make it smaller, or remove the log-bridge.dev annotations", n, MaxContainers)
	}
	for _, s := range p.sources {
		if len(s.Name) > maxName {
			found.Add(finding.NameTooLong, "container name %s has %d bytes, but Kubernetes allows only %d; shorten it", s.Name, len(s.Name), maxName)
		}
		if len(s.Image) > maxImage {
			found.Add(finding.NameTooLong, "container %s: image name %s has %d bytes, which is too long; shorten it", s.Name, s.Image, len(s.Image))
		}
		for _, m := range s.VolumeMounts {
			if n := max(len(m.MountPath), len(m.SubPath)); n > maxPath {
				found.Add(finding.PathNotMountable, "container %s mounts volume %s with a path of %d bytes, but Linux allows only %d; use a shorter one", s.Name, m.Name, n, maxPath)
			}
		}
		found.Merge(checkQuantities(finding.Say("container %s", s.Name), s.Resources.Requests, s.Resources.Limits))
	}
	if r := p.Spec.Resources; r != nil {
		found.Merge(checkQuantities("the pod-level resources", r.Requests, r.Limits))
	}
	for _, v := range p.Spec.Volumes {
		if len(v.Name) > maxName {
			found.Add(finding.NameTooLong, "volume name %s has %d bytes, but Kubernetes allows only %d; shorten it", v.Name, len(v.Name), maxName)
		}
		if v.EmptyDir != nil && v.EmptyDir.SizeLimit != nil && !bounded(*v.EmptyDir.SizeLimit) {
			found.Append(unbounded(finding.Say("volume %s", v.Name), "sizeLimit"))
		}
	}
	return found
}

func checkQuantities(where finding.Words, lists ...corev1.ResourceList) (found finding.List) {
	for _, l := range lists {
		for _, name := range slices.Sorted(maps.Keys(l)) {
			if !bounded(l[name]) {
				found.Append(unbounded(where, string(name)))
			}
		}
	}
	return found
}

func unbounded(where finding.Words, name string) finding.Finding {
	return finding.New(finding.QuantityOutOfRange, "%s: the quantity of %s is more than any machine has; write one such as 64Mi or 100m", where, name)
}

// checkAdded refuses to add more than the kernel passes to a program or the API server stores.
func checkAdded(added []corev1.Container) (found finding.List) {
	total := 0
	for i := range added {
		total += added[i].Size()
	}
	if total > MaxAdded {
		found.Add(finding.AdditionsTooLarge, "log-bridge would add more than %d bytes to the pod; list fewer files, or use globs", MaxAdded)
	}
	return found
}
