// Package inject decides how the log files that a pod's annotations name are
// shared with a sidecar, and writes the JSON-patch operations that do it.
//
// Whoever may create a pod may try to hurt the webhook, so the cost of each decision is
// bounded: bounds.go says by how much.
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
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"gomodules.xyz/jsonpatch/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/webhook/internal/finding"
)

// Config is what the administrator decides.
type Config struct {
	// Version of the webhook, for the status annotation.
	Version string
	// Release of the chart that the webhook belongs to, as NAMESPACE/NAME, for the status
	// annotation: a cluster may have several. Empty without one.
	Release string
	// Rule is that of the administrator by which the pod is injected, for the status
	// annotation; nil without one.
	Rule *Rule
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
	// EphemeralRequest and EphemeralLimit are of ephemeral storage. The limit is used only
	// in a pod of which a container has one.
	EphemeralRequest, EphemeralLimit resource.Quantity
}

// DefaultResources are those of a chart that nobody changed.
//
// The requests are what an idle sidecar uses, rounded up, so that an HPA has a
// number and a node is not filled with air. The memory limit is many times the
// need: a leak hits the sidecar before the node. There is no cpu limit, because a
// low one only makes the pod's start slower (the gate waits for the sidecar) and
// the delivery of a burst later.
//
// The ephemeral-storage limit covers what a kubelet with its own defaults keeps of the
// sidecar's log: five files of 10 MiB, and the one that it is compressing.
func DefaultResources() Resources {
	return Resources{
		CPURequest:    resource.MustParse("5m"),
		MemoryRequest: resource.MustParse("16Mi"),
		MemoryLimit:   resource.MustParse("64Mi"),

		EphemeralRequest: resource.MustParse("10Mi"),
		EphemeralLimit:   resource.MustParse("60Mi"),
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
	LeftAlone Reason
	// By is who injected the pod that came, where its status says so.
	By string
	// Mended: the pod has our parts, and Operations put back what another webhook dropped.
	Mended     bool
	Shares     []Share
	Operations []jsonpatch.Operation
	// List has what was found.
	finding.List
	// Err is why the context ended, if it ended first. Nothing else is decided then.
	Err error
}

// Pod decides for one pod. It does not change the pod, which shares memory with the Result.
// It ends early if the context does.
func Pod(ctx context.Context, pod *corev1.Pod, c Config) Result {
	p := &planner{ctx: ctx, whole: pod, pod: pod, config: c}
	if reason, done := p.leaveAlone(); done {
		if reason == Already {
			return p.already()
		}
		if p.found.Mistaken() {
			reason = ""
		}
		return p.result(Result{LeftAlone: reason})
	}
	p.takeOut()
	for _, phase := range []func(){p.checkBounds, p.share, p.addContainers, p.checkLeftovers} {
		phase()
		// A mistake that is told makes the next phase expensive, or without a sense.
		if p.ended() || p.found.Mistaken() {
			return p.result(Result{})
		}
	}
	return p.result(Result{Shares: p.shares, Operations: p.operations()})
}

// already decides about a pod that has our parts: what another webhook dropped is put back.
func (p *planner) already() Result {
	r := Result{LeftAlone: Already, By: p.status().by()}
	if p.found.Mistaken() {
		r.LeftAlone = ""
	} else if ops := p.mend(); len(ops) > 0 {
		r.LeftAlone, r.Mended, r.Operations = "", true, ops
	}
	return p.result(r)
}

// share finds the way of each entry.
func (p *planner) share() {
	p.readSettings()
	p.checkNames()
	p.shareAll()
}

// addContainers makes those that the pod gets.
func (p *planner) addContainers() {
	p.checkProcesses()
	p.added = append([]corev1.Container{p.sidecar()}, p.seeders()...)
	p.checkAdded()
}

// result adds what was found.
func (p *planner) result(r Result) Result {
	if p.ended() {
		return Result{Err: p.ctx.Err()}
	}
	r.List = p.found
	return r
}

// ended says whether the caller gave up. Loops over what a pod may have many of ask it.
func (p *planner) ended() bool { return p.ctx.Err() != nil }

// planner gathers what is decided for one pod. Its methods run once, in the order
// that Pod calls them.
type planner struct {
	ctx    context.Context
	whole  *corev1.Pod // as it came
	pod    *corev1.Pod // without what an earlier injection left
	config Config
	set    settings
	left   leftovers

	found finding.List

	// What is found by name, made when it is first asked for.
	all      []source
	byName   map[string]int
	byVolume map[string]int
	indices  map[string]*mountIndex
	writers  map[string][]writing
	vars     map[string]*variables

	shares []Share
	tail   contract.Config
	// mounts are the additions for each container that gets any, in order.
	mounts  []addition
	mounted map[string]int // index in mounts, by the container's name
	// views and volumes are what the sidecar sees of the user's volumes, the latter in order.
	views   map[contract.View]bool
	volumes []string
	viewed  map[string]bool // of volumes
	// env are the variables that the sidecar needs for subPathExpr.
	env environment
	// globs is what comparing globs with mount paths has cost.
	globs int
	// added are the containers that the pod gets: the sidecar, then the seeding ones.
	added []corev1.Container
}

// addition is what one container of the user is given.
type addition struct {
	source source
	mounts []corev1.VolumeMount
	at     map[string]bool // their paths
	seeded []string        // directories that its seeding container fills
}

// source is a container of the user.
type source struct {
	*corev1.Container
	init  bool
	index int
}

// sources are the containers whose files can be followed. The list is not to be changed.
func (p *planner) sources() []source {
	if p.all == nil {
		p.all = make([]source, 0, len(p.pod.Spec.Containers)+len(p.pod.Spec.InitContainers))
		for i := range p.pod.Spec.Containers {
			p.all = append(p.all, source{Container: &p.pod.Spec.Containers[i], index: i})
		}
		for i := range p.pod.Spec.InitContainers {
			p.all = append(p.all, source{Container: &p.pod.Spec.InitContainers[i], init: true, index: i})
		}
		p.byName = make(map[string]int, len(p.all))
		for i, s := range p.all {
			if _, twice := p.byName[s.Name]; !twice {
				p.byName[s.Name] = i
			}
		}
	}
	return p.all
}

func (p *planner) source(name string) (source, bool) {
	all := p.sources()
	i, ok := p.byName[name]
	if !ok {
		return source{}, false
	}
	return all[i], true
}

// read are the containers that the sidecar reads from, in the pod's order.
func (p *planner) read() []source {
	named := map[string]bool{}
	for _, e := range slices.Concat(p.set.files, p.set.stderrFiles) {
		named[e.Container] = true
	}
	return slices.DeleteFunc(slices.Clone(p.sources()), func(s source) bool { return !named[s.Name] })
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
		p.addIfAsked(finding.MirrorPod, "this is the mirror of a static pod, whose manifest on the node decides; annotate nothing here, and run `log-bridge-webhook inject -f` on that manifest")
		return MirrorPod, true
	}
	if p.isWindows() {
		p.addIfAsked(finding.WindowsPod, "this pod runs on Windows, the sidecar on Linux only; the pod is left as it is")
		return Windows, true
	}
	if p.injected() {
		p.compareStatus()
		p.checkParts()
		p.tellOrder()
		return Already, true
	}
	if !p.asked() {
		p.unasked()
		if p.found.Mistaken() {
			return "", true
		}
		return NotAsked, true
	}
	return "", false
}

func (p *planner) addIfAsked(code finding.Code, sentence finding.Words) {
	if p.asked() {
		p.found.Add(code, "%v", sentence)
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
	return p.hasStatus() && slices.ContainsFunc(p.pod.Spec.InitContainers, isSidecar)
}

// status is what an earlier injection wrote; zero if it cannot be read.
func (p *planner) status() Status {
	var s Status
	// A text that is larger than we write is not ours. Three bytes of it could become a
	// hundred of memory.
	text := p.pod.Annotations[annotation(contract.KeyStatus)]
	if len(text) > MaxAnnotations || strings.Count(text, ",") > 32*contract.MaxEntries || json.Unmarshal([]byte(text), &s) != nil {
		return Status{}
	}
	return s
}

func (p *planner) hasStatus() bool {
	_, ok := p.pod.Annotations[annotation(contract.KeyStatus)]
	return ok
}

// compareStatus warns where the annotations of an injected pod were edited, as in a
// manifest that was taken from a running pod: the sidecar's arguments stay what they
// were.
func (p *planner) compareStatus() {
	status := p.status()
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
	var has []string
	exact, anyContainer := map[string]bool{}, map[string]bool{}
	for _, s := range status.Entries {
		has = append(has, s.Entry)
		exact[s.Entry] = true
		_, pattern, _ := strings.Cut(s.Entry, ":")
		anyContainer[pattern] = true
	}
	same := true
	wanted, wantedOfAny := map[string]bool{}, map[string]bool{}
	for _, e := range wants {
		wanted[e.String()] = true
		if e.Container == "" {
			wantedOfAny[e.Pattern] = true
			same = same && anyContainer[e.Pattern]
		} else {
			same = same && exact[e.String()]
		}
	}
	for _, s := range status.Entries {
		_, pattern, _ := strings.Cut(s.Entry, ":")
		same = same && (wanted[s.Entry] || wantedOfAny[pattern])
	}
	if !same {
		p.found.Add(finding.AnnotationsEdited, "the pod already has a sidecar, which follows %s and not what the annotations now say; take the log-bridge parts out of the manifest, or edit the template it comes from", finding.Names(has))
	}
}

func annotation(key string) string { return contract.Prefix + key }

// paths are sorted, clean and absolute.
type paths []string

// topmost keeps of some directories those that lie in no other of them, sorted.
func topmost(dirs []string) paths {
	slices.SortFunc(dirs, func(a, b string) int { return cmp.Compare(a+"/", b+"/") })
	var top []string
	for _, d := range dirs {
		if len(top) == 0 || !contract.Covers(top[len(top)-1], d) {
			top = append(top, d)
		}
	}
	slices.Sort(top)
	return top
}

// covering is the path that is of or lies above it.
func (p paths) covering(of string) (string, bool) {
	for dir := of; ; dir = parent(dir) {
		if _, ok := slices.BinarySearch(p, dir); ok {
			return dir, true
		}
		if dir == "/" {
			return "", false
		}
	}
}

// within is a path that lies beneath dir.
func (p paths) within(dir string) (string, bool) {
	i, _ := slices.BinarySearch(p, dir+"/")
	if i < len(p) && contract.Covers(dir, p[i]) {
		return p[i], true
	}
	return "", false
}
