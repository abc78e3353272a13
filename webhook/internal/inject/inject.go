// Package inject decides how the log files that a pod's annotations name are
// shared with a sidecar, and writes the JSON-patch operations that do it.
//
// In: a pod as the API server or a manifest holds it, and the administrator's
// Config. Out: a Result, which tells either why the pod is left alone, or what the
// user got wrong, or the way each entry is shared together with operations that
// only add. The package is pure: it calls nothing, logs nothing and keeps
// nothing; the same pod gives the same Result.
//
// The promise: an injected pod behaves exactly as before, and its log lines
// appear. Hence nothing of the pod is removed or replaced, no mount hides a file of
// an image or a volume, and a pod that already has our parts is left as it is.
package inject

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"gomodules.xyz/jsonpatch/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/log-bridge/log-bridge/sidecar/contract"
)

// Config is what the administrator decides.
type Config struct {
	// Version of the webhook, for the status annotation.
	Version string
	// Image of the sidecar. No annotation changes it.
	Image string
	// PullPolicy of the sidecar's image; empty is Kubernetes' own default.
	PullPolicy corev1.PullPolicy
	// Resources of the sidecar where no annotation says otherwise.
	Resources Resources
	// SeedLimit is how many bytes a seeding container copies at most; zero is the
	// sidecar program's own limit.
	SeedLimit resource.Quantity
	// Stats is how often the sidecar tells what it delivered; 0 is never.
	Stats time.Duration
}

// Resources are quantities of one container; zero is none.
type Resources struct {
	CPURequest, CPULimit, MemoryRequest, MemoryLimit resource.Quantity
}

// DefaultResources are those of a chart that nobody changed.
//
// The requests are what an idle sidecar uses, rounded up, so that an HPA has a
// number and a node is not filled with air. The memory limit is many times the
// need: a leak hits the sidecar before the node. There is no cpu limit, because a
// low one only makes the pod's start slower (the gate waits for the sidecar) and
// the delivery of a burst later.
func DefaultResources() Resources {
	return Resources{
		CPURequest:    resource.MustParse("5m"),
		MemoryRequest: resource.MustParse("16Mi"),
		MemoryLimit:   resource.MustParse("64Mi"),
	}
}

// Way is how an entry is shared.
type Way string

// The ways.
const (
	// ByVolume: a volume of the container covers the path; the sidecar mounts it too.
	ByVolume Way = "volume"
	// ByDirectory: the directory becomes a folder of our emptyDir.
	ByDirectory Way = "directory"
	// ByFile: the one file is mounted from our emptyDir.
	ByFile Way = "file"
)

// Share is one entry and the way it is shared. Its JSON form stands in the status
// annotation.
type Share struct {
	// Entry is CONTAINER:PATTERN, the container filled in.
	Entry string `json:"entry"`
	Way   Way    `json:"shared"`
	// Volume is the user's volume that is mounted too, with the way volume.
	Volume string `json:"volume,omitempty"`
	// FromEnd: what the volume already holds is skipped, since it outlives the pod.
	FromEnd bool `json:"fromEnd,omitempty"`
	// Directory is the mounted directory, with the way directory.
	Directory string `json:"directory,omitempty"`
	// Seeded: what the image has in Directory is copied first.
	Seeded bool `json:"seeded,omitempty"`
	// Stderr: the lines go to the sidecar's stderr.
	Stderr bool `json:"stderr,omitempty"`
}

// Explain says in a sentence what the way means for the application.
func (s Share) Explain() string {
	switch s.Way {
	case ByVolume:
		text := "volume " + s.Volume + " covers it; the sidecar mounts the volume too, read-only"
		if s.FromEnd {
			text += ", and skips what is older than the pod"
		}
		return text
	case ByDirectory:
		text := s.Directory + " becomes a folder of the pod's own volume"
		if s.Seeded {
			text += ", filled first with what the image has there"
		}
		return text
	}
	return "the one file is mounted from the pod's own volume and its directory stays as it is; appending and truncating work, renaming and deleting fail (EBUSY)"
}

// Reason is why a pod was left alone; empty where it was not.
type Reason string

// The reasons to leave a pod alone.
const (
	NotAsked  Reason = "not-asked"        // no files annotation
	Declined  Reason = "declined"         // inject: "false"
	Already   Reason = "already-injected" // it has our parts
	Windows   Reason = "windows"          // the sidecar runs on Linux
	MirrorPod Reason = "mirror-pod"       // its copy on the node is what runs
)

// Result is what is to be done with a pod. Exactly one holds: LeftAlone is not
// empty, Mistakes is not empty, or Operations is not empty.
type Result struct {
	LeftAlone  Reason
	Shares     []Share
	Operations []jsonpatch.Operation
	// Findings in the order found, mistakes and others.
	Findings []Finding
}

// Mistakes are the findings for which the pod is refused.
func (r Result) Mistakes() []Finding {
	return slices.DeleteFunc(slices.Clone(r.Findings), func(f Finding) bool { return f.Severity() != Mistake })
}

// Refusal is one text with the sentences of all mistakes; empty if there is none.
func (r Result) Refusal() string {
	var all []string
	for _, f := range r.Mistakes() {
		all = append(all, f.String())
	}
	return strings.Join(all, "; ")
}

// Pod decides for one pod. It does not change the pod, and the Result shares no
// memory with it.
func Pod(pod *corev1.Pod, c Config) Result {
	p := &planner{whole: pod, pod: pod.DeepCopy(), config: c}
	if reason, done := p.leaveAlone(); done {
		return Result{LeftAlone: reason, Findings: p.findings}
	}
	p.takeOut()
	p.readSettings()
	p.checkNames()
	p.shareAll()
	var sidecar corev1.Container
	if !p.mistaken() {
		sidecar = p.sidecar()
	}
	r := Result{Shares: p.shares, Findings: p.findings}
	if !p.mistaken() {
		r.Operations = p.operations(sidecar, p.seeders())
	}
	return r
}

// planner gathers what is decided for one pod. Its methods run once, in the order
// that Pod calls them.
type planner struct {
	whole    *corev1.Pod // as it came
	pod      *corev1.Pod // without what an earlier injection left
	config   Config
	set      settings
	findings []Finding
	shares   []Share
	tail     contract.Config
	// mounts are the additions for each container that gets any, in order.
	mounts []addition
	// volumes are the user's volumes that the sidecar mounts, in order.
	volumes []string
	// env are the variables that the sidecar needs for subPathExpr.
	env []corev1.EnvVar
}

// addition is what one container of the user is given.
type addition struct {
	source source
	mounts []corev1.VolumeMount
	seeded []string // directories that its seeding container fills
}

// source is a container of the user.
type source struct {
	*corev1.Container
	init  bool
	index int
}

func (p *planner) find(code Code, text string) {
	f := Finding{Code: code, Text: text}
	if !slices.Contains(p.findings, f) {
		p.findings = append(p.findings, f)
	}
}

func (p *planner) mistaken() bool {
	return slices.ContainsFunc(p.findings, func(f Finding) bool { return f.Severity() == Mistake })
}

// sources are the containers whose files can be followed.
func (p *planner) sources() []source {
	var all []source
	for i := range p.pod.Spec.Containers {
		all = append(all, source{Container: &p.pod.Spec.Containers[i], index: i})
	}
	for i := range p.pod.Spec.InitContainers {
		all = append(all, source{Container: &p.pod.Spec.InitContainers[i], init: true, index: i})
	}
	return all
}

func (p *planner) source(name string) (source, bool) {
	all := p.sources()
	i := slices.IndexFunc(all, func(s source) bool { return s.Name == name })
	if i < 0 {
		return source{}, false
	}
	return all[i], true
}

// read are the containers that the sidecar reads from, in the pod's order.
func (p *planner) read() []source {
	return slices.DeleteFunc(p.sources(), func(s source) bool {
		is := func(e contract.Entry) bool { return e.Container == s.Name }
		return !slices.ContainsFunc(p.set.files, is) && !slices.ContainsFunc(p.set.stderrFiles, is)
	})
}

// leaveAlone says why the pod is none of our business. Order matters: a pod that
// never asked must not be refused for anything else.
// done without a reason: it did not ask, but has a mistake to tell.
func (p *planner) leaveAlone() (reason Reason, done bool) {
	a := p.pod.Annotations
	if v, ok := a[annotation(contract.KeyInject)]; ok {
		if no, err := parseBool(v); err == nil && !no {
			return Declined, true
		}
	}
	if _, ok := a[corev1.MirrorPodAnnotationKey]; ok {
		p.findIfAsked(LB0502, "this is the mirror of a static pod, whose manifest on the node decides; annotate nothing here, and run `log-bridge-webhook inject -f` on that manifest")
		return MirrorPod, true
	}
	if p.isWindows() {
		p.findIfAsked(LB0501, "this pod runs on Windows, the sidecar on Linux only; the pod is left as it is")
		return Windows, true
	}
	if p.injected() {
		p.compareStatus()
		p.tellOrder()
		if p.mistaken() {
			return "", true
		}
		return Already, true
	}
	if !p.asked() {
		p.unasked()
		if p.mistaken() {
			return "", true
		}
		return NotAsked, true
	}
	return "", false
}

func (p *planner) findIfAsked(code Code, text string) {
	if p.asked() {
		p.find(code, text)
	}
}

// asked says whether the pod wants the bridge.
func (p *planner) asked() bool {
	_, files := p.pod.Annotations[annotation(contract.KeyFiles)]
	_, stderr := p.pod.Annotations[annotation(contract.KeyStderrFiles)]
	return files || stderr
}

func (p *planner) isWindows() bool {
	if os := p.pod.Spec.OS; os != nil {
		return os.Name == corev1.Windows
	}
	return p.pod.Spec.NodeSelector[corev1.LabelOSStable] == string(corev1.Windows)
}

// injected recognises our own work: after a second call of the API server, in a
// copy of a running pod, or in the output of `inject`. The status annotation alone
// is not enough, since it may have been copied without the rest.
func (p *planner) injected() bool {
	return p.hasStatus() && slices.ContainsFunc(p.pod.Spec.InitContainers, func(c corev1.Container) bool {
		return c.Name == contract.Container &&
			slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == contract.Volume && m.MountPath == contract.Root })
	})
}

func (p *planner) hasStatus() bool {
	_, ok := p.pod.Annotations[annotation(contract.KeyStatus)]
	return ok
}

// compareStatus warns where the annotations of an injected pod were edited, as in a
// manifest that was taken from a running pod: the sidecar's arguments stay what they
// were.
func (p *planner) compareStatus() {
	var status Status
	if json.Unmarshal([]byte(p.pod.Annotations[annotation(contract.KeyStatus)]), &status) != nil {
		status = Status{}
	}
	var wants []contract.Entry
	for _, key := range []string{contract.KeyFiles, contract.KeyStderrFiles} {
		value, ok := p.pod.Annotations[annotation(key)]
		if !ok {
			continue
		}
		entries, err := contract.ParseEntries(value)
		if err != nil {
			return
		}
		wants = append(wants, entries...)
	}
	if len(wants) == 0 {
		return
	}
	// An entry without a container is one of any: another webhook may have put its own
	// container before the one that was the first.
	means := func(s Share, e contract.Entry) bool {
		return s.Entry == e.String() || e.Container == "" && strings.HasSuffix(s.Entry, ":"+e.Pattern)
	}
	var has []string
	same := true
	for _, s := range status.Entries {
		has = append(has, s.Entry)
		same = same && slices.ContainsFunc(wants, func(e contract.Entry) bool { return means(s, e) })
	}
	for _, e := range wants {
		same = same && slices.ContainsFunc(status.Entries, func(s Share) bool { return means(s, e) })
	}
	if !same {
		p.find(LB0503, "the pod already has a sidecar, which follows "+strings.Join(has, ", ")+" and not what the annotations now say; take the log-bridge parts out of the manifest, or edit the template it comes from")
	}
}

// takeOut forgets the volume and the mounts of an injection of which the sidecar is
// gone, as in a copy of a pod without its init containers. They are used again.
func (p *planner) takeOut() {
	i := slices.IndexFunc(p.pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == contract.Volume && v.EmptyDir != nil })
	if i < 0 || !p.hasStatus() {
		return
	}
	p.pod.Spec.Volumes = slices.Delete(p.pod.Spec.Volumes, i, i+1)
	for _, s := range p.sources() {
		s.VolumeMounts = slices.DeleteFunc(s.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == contract.Volume })
	}
}

// checkNames refuses a pod that uses our names for something else, and one in which
// there is nothing to name.
func (p *planner) checkNames() {
	if len(p.pod.Spec.Containers) == 0 {
		p.find(LB0201, "the pod has no container")
	}
	for _, s := range p.sources() {
		if s.Name == contract.Container {
			p.find(LB0202, "the pod already has a container named "+contract.Container+" that log-bridge did not make; rename it, or take the log-bridge.dev annotations away")
		}
	}
	for _, v := range p.pod.Spec.Volumes {
		if v.Name == contract.Volume {
			p.find(LB0203, "the pod already has a volume named "+contract.Volume+" that log-bridge did not make; rename it, or take the log-bridge.dev annotations away")
		}
	}
}

func annotation(key string) string { return contract.Prefix + key }

// topmost keeps of some directories those that lie in no other of them, sorted.
func topmost(dirs []string) []string {
	slices.SortFunc(dirs, func(a, b string) int { return cmp.Compare(a+"/", b+"/") })
	var top []string
	for _, d := range dirs {
		if len(top) == 0 || !contract.Covers(top[len(top)-1], d) {
			top = append(top, d)
		}
	}
	return top
}
