// Package inject decides how the log files that a pod's annotations name are
// shared with a sidecar, and writes the JSON-patch operations that do it.
//
// Anyone who may create a pod may try to hurt the webhook, so the cost of each decision is
// bounded: bounds.go says by how much.
//
// In: a pod as the API server or a manifest holds it, and the administrator's
// Config. Out: a Result, which has either the reason why the pod is left unchanged, or what the
// user got wrong, or the way each entry is shared together with operations that
// only add. The package is pure: it calls nothing, logs nothing and keeps
// nothing; the same pod gives the same Result.
//
// The promise: an injected pod behaves exactly as before, and its log lines
// appear. Hence nothing of the pod is removed or replaced, no mount hides a file of
// an image or a volume, and a pod that already has our parts is left as it is.
package inject

import (
	"context"
	"time"

	"gomodules.xyz/jsonpatch/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

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
	// Stats is how often the sidecar reports what it delivered; 0 is never.
	Stats time.Duration
}

// Resources are quantities of one container; zero is none.
type Resources struct {
	CPURequest, CPULimit, MemoryRequest, MemoryLimit resource.Quantity
	// EphemeralRequest and EphemeralLimit are of ephemeral storage. The limit is used only
	// in a pod where a container has one.
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
	// ByDirectory: the directory is mounted from our emptyDir.
	ByDirectory Way = "directory"
	// ByFile: the one file is mounted from our emptyDir.
	ByFile Way = "file"
)

// Share is one entry and the way it is shared. Its JSON form is in the status
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
		text := "it is in volume " + s.Volume + "; the sidecar mounts that volume too, read-only"
		if s.FromEnd {
			text += ", and skips what is older than the pod"
		}
		return text
	case ByDirectory:
		text := s.Directory + " is mounted from the log-bridge volume"
		if s.Seeded {
			text += ", into which the image's files are copied first"
		}
		return text
	}
	return "the file alone is mounted from the log-bridge volume; appending and truncating work, renaming and deleting fail (EBUSY)"
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
	r := decide(ctx, pod, c)
	if err := ctx.Err(); err != nil {
		return Result{Err: err}
	}
	return r
}

// decide goes from phase to phase. Each takes values and returns a value and what it found; a
// mistake ends the way where the next phase would be expensive or would make no sense.
func decide(ctx context.Context, in *corev1.Pod, c Config) Result {
	reason, found := leaveAlone(ctx, in)
	switch {
	case found.Mistaken():
		return Result{List: found}
	case reason != "":
		return Result{LeftAlone: reason, List: found}
	case injected(in):
		return restore(in)
	}

	p, left := setAside(in)
	if found = checkBounds(p); found.Mistaken() {
		return Result{List: found}
	}

	set, f := readSettings(ctx, p)
	found.Merge(f)
	found.Merge(checkNames(p, left))
	plan, f := share(ctx, p, set)
	found.Merge(f)
	if found.Mistaken() || ctx.Err() != nil {
		return Result{List: found}
	}

	added, f := containers(p, set, plan, c)
	found.Merge(f)
	if !found.Mistaken() {
		found.Merge(checkLeftovers(p, set, plan, left))
	}
	if found.Mistaken() {
		return Result{List: found}
	}

	ops := statusOperations(in, plan.shares, found, c)
	ops = append(ops, partOperations(in, set, plan, left, added)...)
	return Result{Shares: plan.shares, Operations: ops, List: found}
}
