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
	// Doc is the reference's sentence.
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
		Doc: "The log files. Its presence asks for the bridge. Entries are separated by commas or newlines; an entry is `[container:]/absolute/path`, and the path may be a glob with `*`, `?`, `[…]`, `{a,b}` and `**`. Without a container: the one that `kubectl.kubernetes.io/default-container` names, else the first."},
	{Key: KeyStderrFiles, Kind: Entries, Flag: "stderr",
		Doc: "As `files`, but the lines go to the sidecar's stderr."},
	{Key: KeyMount, Kind: Enum, Values: []string{MountAuto, MountFile, MountDirectory}, Default: MountAuto,
		Doc: "How a path that no volume of the container covers is shared: the one `file`, its whole `directory`, or what fits (`auto`). What is shared outlives a restart of the container: with `directory` also a pid file or a socket beside the log."},
	{Key: KeySeed, Kind: Bool, Default: "true",
		Doc: "Copy what the image holds in a directory before a volume is mounted over it."},
	{Key: KeyFormat, Kind: Enum, Values: []string{string(Raw), string(Prefixed), string(JSON)}, Default: string(Raw), Flag: "format",
		Doc: "`raw`: the bytes as written. `prefix`: `container:/path ` before each line. `json`: one object a line."},
	{Key: KeyReclaim, Kind: Bool, Default: "false", Flag: "reclaim",
		Doc: "Free the disk blocks of bytes already delivered, while the application goes on appending."},
	{Key: KeySizeLimit, Kind: Quantity, Default: "none",
		Doc: "The emptyDir's sizeLimit. A pod that writes more is evicted by the kubelet."},
	{Key: KeyCPURequest, Kind: Request, Default: "chart value", Doc: "CPU request of the sidecar."},
	{Key: KeyCPULimit, Kind: Quantity, Default: "chart value", Doc: "CPU limit of the sidecar."},
	{Key: KeyMemoryRequest, Kind: Request, Default: "chart value", Doc: "Memory request of the sidecar."},
	{Key: KeyMemoryLimit, Kind: Quantity, Default: "chart value", Doc: "Memory limit of the sidecar."},
	{Key: KeyEphemeralRequest, Kind: Request, Default: "chart value",
		Doc: "Ephemeral-storage request of the sidecar, for what the kubelet keeps of its log. By default it has one where a container of the pod has an ephemeral-storage limit, or where each has a request."},
	{Key: KeyEphemeralLimit, Kind: Quantity, Default: "chart value",
		Doc: "Ephemeral-storage limit of the sidecar, where a container of the pod has one. The pod's limit is the sum of its containers' limits, and the sidecar's log counts."},
	{Key: KeyRunAsUser, Kind: ID, Default: "as the container it reads",
		Doc: "Numeric user id of the sidecar, where the files cannot be read otherwise."},
	{Key: KeyRunAsGroup, Kind: ID, Default: "as the container it reads",
		Doc: "Numeric group id of the sidecar."},
	{Key: KeyInject, Kind: Bool, Default: "true",
		Doc: "`false`: leave this pod alone although it has `files`."},
	{Key: KeyStatus, Kind: Status,
		Doc: "Written by the webhook, JSON: its version, and each entry with the way it is shared."},
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
		return Annotation{}, fmt.Errorf("%s: there is no such annotation; did you mean %s%s?", Brief(name), Prefix, near)
	}
	keys := make([]string, 0, len(Annotations))
	for _, a := range Annotations {
		keys = append(keys, a.Key)
	}
	slices.Sort(keys)
	return Annotation{}, fmt.Errorf("%s: unknown annotation; after %s, these are known: %s", Brief(name), Prefix, strings.Join(keys, ", "))
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
