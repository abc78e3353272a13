package contract

import (
	"fmt"
	"slices"
	"strings"
)

// Kind says how the value of an annotation is read.
type Kind int

// The kinds of annotation values.
const (
	Entries  Kind = iota // entries as ParseEntries reads them
	Enum                 // one of Annotation.Values
	Bool                 // "true" or "false"
	Quantity             // a Kubernetes quantity above zero, such as 64Mi
	Request              // a Kubernetes quantity of zero or more
	ID                   // a numeric user or group id, 0 to 2147483647
	Status               // JSON that the webhook itself writes
)

// Annotation is one row of the table of annotations.
type Annotation struct {
	// Key is the annotation's key without Prefix.
	Key  string
	Kind Kind
	// Values are the words that an Enum may have.
	Values []string
	// Default is what an absent annotation means, in words for the reference.
	Default string
	// Flag is the flag of `log-bridge tail` that carries the setting to the sidecar,
	// without dashes; empty where the webhook alone acts on it.
	Flag string
	// Doc is the sentence of the reference.
	Doc string
}

// Name is the whole annotation key.
func (a Annotation) Name() string { return Prefix + a.Key }

// Keys of the annotations, without Prefix.
const (
	KeyFiles            = "files"
	KeyMount            = "mount"
	KeySeed             = "seed"
	KeyFormat           = "format"
	KeyStderrFiles      = "stderr-files"
	KeyReclaim          = "reclaim"
	KeySizeLimit        = "size-limit"
	KeyCPURequest       = "cpu-request"
	KeyCPULimit         = "cpu-limit"
	KeyMemoryRequest    = "memory-request"
	KeyMemoryLimit      = "memory-limit"
	KeyEphemeralRequest = "ephemeral-storage-request"
	KeyEphemeralLimit   = "ephemeral-storage-limit"
	KeyRunAsUser        = "run-as-user"
	KeyRunAsGroup       = "run-as-group"
	KeyInject           = "inject"
	KeyStatus           = "status"
)

// Values of the mount annotation.
const (
	MountAuto      = "auto"
	MountFile      = "file"
	MountDirectory = "directory"
)

// Annotations is the table: every annotation that exists, in the order of the
// reference. Another key that starts with Prefix is a mistake of the user.
var Annotations = []Annotation{
	{Key: KeyFiles, Kind: Entries,
		Doc: "The log files to follow. A pod without this annotation or `stderr-files` gets no sidecar. Separate entries with commas or newlines. An entry is `[container:]/absolute/path`; the path may be a glob with `*`, `?`, `[…]`, `{a,b}` and `**`. The default container is the one named by `kubectl.kubernetes.io/default-container`, else the first."},
	{Key: KeyStderrFiles, Kind: Entries, Flag: "stderr",
		Doc: "Like `files`, but the lines go to the sidecar's stderr."},
	{Key: KeyMount, Kind: Enum, Values: []string{MountAuto, MountFile, MountDirectory}, Default: MountAuto,
		Doc: "How to share a path that no volume of the container covers: only the `file`, its whole `directory`, or whichever fits (`auto`). Shared files survive a container restart; with `directory`, this includes a pid file or socket beside the log."},
	{Key: KeySeed, Kind: Bool, Default: "true",
		Doc: "Copy the image's files into a shared directory before the volume is mounted over them."},
	{Key: KeyFormat, Kind: Enum, Values: []string{string(Raw), string(Prefixed), string(JSON)}, Default: string(Raw), Flag: "format",
		Doc: "`raw`: the bytes as written. `prefix`: `container:/path ` before each line. `json`: one object per line."},
	{Key: KeyReclaim, Kind: Bool, Default: "false", Flag: "reclaim",
		Doc: "Free the disk blocks of delivered bytes while the application keeps appending."},
	{Key: KeySizeLimit, Kind: Quantity, Default: "none",
		Doc: "The `sizeLimit` of the emptyDir. The kubelet evicts a pod that writes more."},
	{Key: KeyCPURequest, Kind: Request, Default: "chart value", Doc: "CPU request of the sidecar."},
	{Key: KeyCPULimit, Kind: Quantity, Default: "chart value", Doc: "CPU limit of the sidecar."},
	{Key: KeyMemoryRequest, Kind: Request, Default: "chart value", Doc: "Memory request of the sidecar."},
	{Key: KeyMemoryLimit, Kind: Quantity, Default: "chart value", Doc: "Memory limit of the sidecar."},
	{Key: KeyEphemeralRequest, Kind: Request, Default: "chart value",
		Doc: "Ephemeral-storage request of the sidecar, for the log files that the kubelet keeps for it. Set by default if a container of the pod has an ephemeral-storage limit, or if every container has a request."},
	{Key: KeyEphemeralLimit, Kind: Quantity, Default: "chart value",
		Doc: "Ephemeral-storage limit of the sidecar, if a container of the pod has one. The pod's limit is the sum of its containers' limits, and the sidecar's log counts towards it."},
	{Key: KeyRunAsUser, Kind: ID, Default: "same as the container it reads",
		Doc: "Numeric user ID of the sidecar, if it cannot read the files otherwise."},
	{Key: KeyRunAsGroup, Kind: ID, Default: "same as the container it reads",
		Doc: "Numeric group ID of the sidecar."},
	{Key: KeyInject, Kind: Bool, Default: "true",
		Doc: "`false`: do not inject this pod, even if it has `files`."},
	{Key: KeyStatus, Kind: Status,
		Doc: "Written by the webhook: its version, and how each entry is shared."},
}

// Lookup finds a row by its whole key. For a key that starts with Prefix but is not
// in the table the error names the nearest one.
func Lookup(name string) (Annotation, error) {
	key, ours := strings.CutPrefix(name, Prefix)
	if !ours {
		return Annotation{}, fmt.Errorf("%s is not an annotation of log-bridge", Brief(name))
	}
	for _, a := range Annotations {
		if a.Key == key {
			return a, nil
		}
	}
	near, best := "", len(key)
	for _, a := range Annotations {
		// No key of Kubernetes is longer, and the distance takes the product of both lengths.
		if len(key) > 63 {
			break
		}
		if d := distance(key, a.Key); d < best && d <= 1+len(a.Key)/3 {
			near, best = a.Key, d
		}
	}
	if near != "" {
		return Annotation{}, fmt.Errorf("%s: unknown annotation; did you mean %s%s?", Brief(name), Prefix, near)
	}
	keys := make([]string, 0, len(Annotations))
	for _, a := range Annotations {
		keys = append(keys, a.Key)
	}
	slices.Sort(keys)
	return Annotation{}, fmt.Errorf("%s: unknown annotation; the known ones are %s followed by %s", Brief(name), Prefix, strings.Join(keys, ", "))
}

// distance is the Levenshtein distance of two short ASCII words.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(diagonal+cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
