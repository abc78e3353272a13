// Package discovery judges which of the files that a container writes are logs, and which annotations bridge them.
//
// In: a pod, the name of one of its containers, and the facts that `log-bridge look` has found there. Out: logs, each with the entry
// that bridges it, and the files that are no logs, each with the rule that says so. The package is pure.
package discovery

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/webhook/internal/inject"
)

// Log is a log that a container writes.
type Log struct {
	// Path is an entry of the annotation `files`, without the container: a path, or a glob where the name has a date.
	Path string `json:"path"`
	// Program has a file of it open; empty if none has.
	Program string `json:"program,omitempty"`
	// Size is of all its files, Grew by how much they grew while somebody watched; both in bytes.
	Size int64 `json:"size"`
	Grew int64 `json:"grew"`
	// Files is how many there are: the log, and what rotation left of it.
	Files int `json:"files"`
	// Owner and Mode are those of the newest file.
	Owner uint32 `json:"owner"`
	Mode  string `json:"mode"`
	// Rotates is how, as far as names or a rotation that was watched tell: rename, truncate, dates, or empty.
	Rotates string `json:"rotates,omitempty"`
	// Volume is the volume that covers it, empty without one.
	Volume string `json:"volume,omitempty"`
	// Bridged says that the pod's annotations name it already.
	Bridged bool `json:"bridged,omitempty"`
	// Why are the reasons, as sentences without a full stop.
	Why []string `json:"why"`

	newest contract.Seen
}

// Left is a file that is no log.
type Left struct {
	Path string `json:"path"`
	Why  string `json:"why"`
}

// Found is what was found in one container.
type Found struct {
	Container string `json:"container"`
	Logs      []Log  `json:"logs"`
	Left      []Left `json:"left,omitempty"`
	// Annotations bridge the logs of this container that are not bridged yet; empty if there are none. Keys are without the prefix.
	Annotations map[string]string `json:"annotations,omitempty"`
	// Why are reasons for annotations other than files.
	Why []string `json:"why,omitempty"`
}

// rule says that a file is no log, and why; empty if the rule does not apply.
type rule func(contract.Seen) string

// Rules are tried in this order. docs/kubectl.md lists them.
var rules = []rule{
	func(f contract.Seen) string {
		if compressed.MatchString(f.Path) {
			return "compressed"
		}
		return ""
	},
	func(f contract.Seen) string {
		if word := noLog.FindString(path.Base(f.Path)); word != "" {
			return "its name ends in " + word
		}
		return ""
	},
	func(f contract.Seen) string {
		if f.Content == contract.Binary {
			return "binary"
		}
		return ""
	},
	func(f contract.Seen) string {
		for dir := range strings.SplitSeq(path.Dir(f.Path), "/") {
			if slices.Contains(caches, dir) {
				return "in a directory named " + dir
			}
		}
		return ""
	},
	func(f contract.Seen) string {
		switch {
		case named(f.Path):
		case f.Program == "":
			return "nothing has it open, and its name is not that of a log"
		case f.ReadWrite && !f.Append:
			return "open for reading and writing, as a database does, and its name is not that of a log"
		case f.Grew == 0 && !f.Append:
			return "it did not grow, and its name is not that of a log"
		}
		return ""
	},
}

var (
	compressed = regexp.MustCompile(`\.(gz|bz2|xz|zst|lz4|zip|Z|br)$`)
	// noLog are ends of names of what programs keep beside their logs.
	noLog  = regexp.MustCompile(`\.(pid|lock|lck|sock|db|sqlite3?|ldb|sst|(db|sqlite3?)-(wal|shm|journal)|mdb|ibd|frm|MYD|MYI|rdb|aof|swp|tmp|part|class|jar|so|pyc|png|jpe?g|json|ya?ml|conf|cfg|ini|properties|xml|sh|py|js|css|html?|php|pem|key|crt)$`)
	caches = []string{"cache", ".cache", "__pycache__", "node_modules", ".git", "pg_wal", "pg_xact"}
	// logNames are names of logs, logDirs directories that hold nothing else.
	logNames = regexp.MustCompile(`(?i)(\.(log|out|err|trace|audit)([-._]|$)|(^|[-._])(log|logs|stdout|stderr|catalina|access|error)([-._]|$)|^(current|messages|syslog)$)`)
	logDirs  = regexp.MustCompile(`(?i)^(log|logs)$`)
)

// named says whether a path is named as logs are.
func named(name string) bool {
	if logNames.MatchString(path.Base(name)) {
		return true
	}
	return slices.ContainsFunc(strings.Split(path.Dir(name), "/"), logDirs.MatchString)
}

// Judge judges the files of a container.
func Judge(pod *corev1.Pod, container string, seen []contract.Seen) Found {
	found := Found{Container: container}
	logs := map[string]*Log{}
files:
	for _, f := range seen {
		for _, r := range rules {
			if why := r(f); why != "" {
				found.Left = append(found.Left, Left{Path: f.Path, Why: why})
				continue files
			}
		}
		name, how := entryOf(f.Path)
		l := logs[name]
		if l == nil {
			l = &Log{Path: name}
			logs[name] = l
		}
		l.add(f, how)
	}
	entries := bridged(pod, container)
	for _, name := range slices.Sorted(maps.Keys(logs)) {
		l := logs[name]
		l.finish(pod, container)
		l.Bridged = slices.ContainsFunc(entries, func(e contract.Entry) bool { return e.Reaches(l.newest.Path) })
		found.Logs = append(found.Logs, *l)
	}
	found.suggest(pod)
	return found
}

// add counts a file to its log.
func (l *Log) add(f contract.Seen, how string) {
	l.Files++
	l.Size += f.Size
	l.Grew += f.Grew
	if l.Files == 1 || newer(f, l.newest) {
		l.newest = f
	}
	if l.Program == "" {
		l.Program = f.Program
	}
	if f.Rotated != "" {
		l.Rotates = string(f.Rotated)
	}
	if l.Rotates == "" {
		l.Rotates = how
	}
}

// newer says whether a is rather the log itself than b: what is open and grows, then what changed last.
func newer(a, b contract.Seen) bool {
	return cmp.Or(cmp.Compare(len(a.Program), len(b.Program)), cmp.Compare(a.Grew, b.Grew), cmp.Compare(a.Modified, b.Modified)) > 0
}

// finish says what is known once all files are there.
func (l *Log) finish(pod *corev1.Pod, container string) {
	f := l.newest
	l.Owner, l.Mode = f.Uid, fmt.Sprintf("%04o", f.Mode)
	l.Volume = volumeOf(pod, container, l.Path)
	why := func(format string, args ...any) { l.Why = append(l.Why, fmt.Sprintf(format, args...)) }
	switch {
	case l.Program != "" && f.Append:
		why("%s has it open to append", l.Program)
	case l.Program != "":
		why("%s has it open for writing", l.Program)
	default:
		why("it changed since the container started")
	}
	if l.Grew > 0 {
		why("it grew by %d bytes", l.Grew)
	}
	switch f.Rotated {
	case contract.Renamed:
		why("it was rotated by renaming")
	case contract.Truncated:
		why("it was truncated")
	}
	if l.Files > 1 {
		why("%d files of it, by their names", l.Files)
	}
	if strings.ContainsAny(l.Path, "*") {
		why("the glob stands for the date in the name")
	}
}

var (
	// number ends the name of a rotated file: app.log.1, app.log-3.
	number = regexp.MustCompile(`[-._]\d{1,3}$`)
	// date is a date, and perhaps a time, in a name: 20261127, 2026-11-27, 2026-11-27_13, 2026-11-27-13-05.
	date = regexp.MustCompile(`(19|20)\d\d([-._]?\d\d){1,5}`)
	// dateAtEnd is one that rotation appended to the name of a log.
	dateAtEnd = regexp.MustCompile(`^(.*\.[A-Za-z]\w*)[-._](19|20)\d\d([-._]?\d\d){1,5}$`)
)

// entryOf is the entry for a file: its own path, the path of the log that rotation made it of, or a glob if its name has a date.
func entryOf(name string) (entry, how string) {
	dir, base := path.Split(name)
	if m := dateAtEnd.FindStringSubmatch(base); m != nil {
		return literal(dir + m[1]), "rename"
	}
	if n := number.FindStringIndex(base); n != nil && logNames.MatchString(base[:n[0]]) && !date.MatchString(base) {
		return literal(dir + base[:n[0]]), "rename"
	}
	if at := date.FindStringIndex(base); at != nil {
		return literal(dir+base[:at[0]]) + "*" + literal(base[at[1]:]), "dates"
	}
	return literal(name), ""
}

// literal is a pattern that matches a name. What an entry cannot hold is written as ?: a backslash, a comma, and what deceives in a
// terminal or is not UTF-8. Spaces are written so too: at the end they would be trimmed.
func literal(name string) string {
	var out strings.Builder
	for _, r := range name {
		switch {
		case strings.ContainsRune("*?[{}", r):
			out.WriteString("[" + string(r) + "]")
		case strings.ContainsRune(`\,`, r) || unicode.IsSpace(r) || r < ' ' || r == 0x7f || r == utf8.RuneError || contract.Deceives(r):
			out.WriteByte('?')
		default:
			out.WriteRune(r)
		}
	}
	return out.String()
}

// volumeOf is the name of the volume that a container mounts over a path; empty without one.
func volumeOf(pod *corev1.Pod, container, name string) string {
	best := ""
	volume := ""
	for _, c := range containers(pod) {
		if c.Name != container {
			continue
		}
		for _, m := range c.VolumeMounts {
			if contract.Covers(path.Clean(m.MountPath), name) && len(m.MountPath) > len(best) {
				best, volume = m.MountPath, m.Name
			}
		}
	}
	return volume
}

func containers(pod *corev1.Pod) []corev1.Container {
	return slices.Concat(pod.Spec.Containers, pod.Spec.InitContainers)
}

// bridged are the entries that the pod's annotations have for a container.
func bridged(pod *corev1.Pod, container string) (all []contract.Entry) {
	for _, key := range []string{contract.KeyFiles, contract.KeyStderrFiles} {
		entries, _ := contract.ParseEntries(pod.Annotations[contract.Prefix+key])
		for _, e := range entries {
			if cmp.Or(e.Container, DefaultContainer(pod)) == container {
				all = append(all, e)
			}
		}
	}
	return all
}

// defaultContainerKey is kubectl's own annotation.
const defaultContainerKey = "kubectl.kubernetes.io/default-container"

// DefaultContainer is the container that kubectl takes if nobody names one.
func DefaultContainer(pod *corev1.Pod) string {
	if name := pod.Annotations[defaultContainerKey]; name != "" {
		return name
	}
	if len(pod.Spec.Containers) == 0 {
		return ""
	}
	return pod.Spec.Containers[0].Name
}

// suggest finds the annotations that bridge what is not bridged.
func (found *Found) suggest(pod *corev1.Pod) {
	prefix := ""
	if found.Container != DefaultContainer(pod) {
		prefix = found.Container + ":"
	}
	var entries []string
	private := map[uint32]string{}
	for _, l := range found.Logs {
		if l.Bridged {
			continue
		}
		entries = append(entries, prefix+l.Path)
		if l.newest.Mode&0o004 == 0 {
			private[l.Owner] = cmp.Or(private[l.Owner], fmt.Sprintf("%s has the mode %s, so only user %d may read it", l.Path, l.Mode, l.Owner))
		}
	}
	if len(entries) == 0 {
		return
	}
	if have := pod.Annotations[contract.Prefix+contract.KeyFiles]; have != "" {
		entries = slices.Insert(entries, 0, have)
	}
	found.Annotations = map[string]string{contract.KeyFiles: strings.Join(entries, ",")}
	for uid, why := range private {
		if len(private) > 1 {
			found.Why = append(found.Why, "files of several users may be read by their owners alone; the sidecar runs as one user, so let the application make them readable for all")
			break
		}
		if !runsAs(pod, found.Container, int64(uid)) {
			found.Annotations[contract.KeyRunAsUser] = fmt.Sprint(uid)
			found.Why = append(found.Why, why)
		}
	}
	for _, l := range found.Logs {
		if l.Bridged || l.Rotates != string(contract.Renamed) {
			continue
		}
		alone := func(s inject.Share) bool { return s.Way == inject.ByFile && s.Entry == found.Container+":"+l.Path }
		if slices.ContainsFunc(found.asked(pod).Shares, alone) {
			found.Annotations[contract.KeyMount] = "directory"
			found.Why = append(found.Why, l.Path+" is rotated by renaming, which a file that is mounted alone does not allow")
			break
		}
	}
	for _, f := range found.asked(pod).Findings {
		found.Why = append(found.Why, fmt.Sprintf("%s %s: %s", f.Severity(), f.Code, f.Text()))
	}
}

// asked is what log-bridge makes of the pod with the annotations that were found.
func (found *Found) asked(pod *corev1.Pod) inject.Result {
	asking := &corev1.Pod{ObjectMeta: *pod.ObjectMeta.DeepCopy(), Spec: pod.Spec}
	if asking.Annotations == nil {
		asking.Annotations = map[string]string{}
	}
	for key, value := range found.Annotations {
		asking.Annotations[contract.Prefix+key] = value
	}
	return inject.Pod(context.Background(), asking, inject.Config{Image: "x", Resources: inject.DefaultResources()})
}

// runsAs says whether the pod names the user of a container, which is then the sidecar's, too.
func runsAs(pod *corev1.Pod, container string, uid int64) bool {
	for _, c := range containers(pod) {
		if c.Name == container && c.SecurityContext != nil && c.SecurityContext.RunAsUser != nil {
			return *c.SecurityContext.RunAsUser == uid
		}
	}
	return pod.Spec.SecurityContext != nil && pod.Spec.SecurityContext.RunAsUser != nil && *pod.Spec.SecurityContext.RunAsUser == uid
}
