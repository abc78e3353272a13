package inject

import (
	"context"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/webhook/internal/finding"
)

// wanted is an entry on its way to a Share.
type wanted struct {
	contract.Entry
	key    string // annotation that names it
	source source
	way    Way
	// dir is what is mounted, with ByDirectory.
	dir string
	// volume covers the entry, with ByVolume; fromEnd says that it outlives the pod.
	volume  string
	fromEnd bool
	// reached are the mounts of the pod's volumes in which its files may be.
	reached []*corev1.VolumeMount
}

// refuse is a mistake in the entry. The text follows the entry at once.
func (w *wanted) refuse(code finding.Code, format string, args ...any) *finding.Finding {
	f := finding.New(code, "%s: %s%s", annotation(w.key), w.Entry, finding.Say(format, args...))
	return &f
}

// router finds the way of each entry.
type router struct {
	pod   *pod
	set   settings
	found finding.List
	// globs is what comparing globs with mount paths has cost.
	globs int
}

// findWays finds the way of each entry, regardless of the others.
func findWays(ctx context.Context, p *pod, set settings) ([]*wanted, finding.List) {
	r := router{pod: p, set: set}
	var all []*wanted
	for _, list := range []struct {
		key     string
		entries []contract.Entry
	}{{contract.KeyFiles, set.files}, {contract.KeyStderrFiles, set.stderrFiles}} {
		for _, e := range list.entries {
			if ctx.Err() != nil {
				return all, r.found
			}
			w := &wanted{Entry: e, key: list.key}
			w.source, _ = p.source(e.Container)
			if f := r.find(ctx, w); f != nil {
				r.found.Append(*f)
				continue
			}
			all = append(all, w)
		}
	}
	return all, r.found
}

// find finds the way of one entry.
func (r *router) find(ctx context.Context, w *wanted) *finding.Finding {
	if f := kubeletFile(w); f != nil {
		return f
	}
	for _, d := range w.source.VolumeDevices {
		if contract.Covers(path.Clean("/"+d.DevicePath), w.Pattern) {
			return w.refuse(finding.PathOnBlockDevice, " is on block device %s of volume %s, whose files cannot be shared; name a file in a file system", d.DevicePath, d.Name)
		}
	}
	mounted := r.pod.mountsOf(w.source)
	if m, ok := mounted.covering(w.base()); ok {
		w.way = ByVolume
		return r.volume(ctx, w, m)
	}
	if contract.Covers("/dev", w.Pattern) {
		return w.refuse(finding.SharedMemory, ": /dev/shm belongs to this container alone, so its files cannot be shared; mount a volume at /dev/shm, such as an emptyDir with medium: Memory")
	}
	if f := otherName(r.pod, w); f != nil {
		return f
	}
	if f := mountedInside(mounted, w); f != nil {
		return f
	}
	parent := w.Dir()
	switch r.set.mount {
	case contract.MountFile:
		if w.IsGlob() {
			return w.refuse(finding.FileMountOfGlob, ": a glob needs the whole directory, but %s is %q; remove it, or list the files one by one", annotation(contract.KeyMount), contract.MountFile)
		}
		if contract.Sticky(parent) {
			return w.refuse(finding.FileInStickyDirectory, ": a single file cannot be mounted in the sticky directory %s because fs.protected_regular, which most nodes set, keeps the application from opening it; set %s to %q", parent, annotation(contract.KeyMount), contract.MountDirectory)
		}
		w.way = ByFile
	case contract.MountDirectory:
		w.way = ByDirectory
	default:
		w.way = ByFile
		if w.IsGlob() || contract.Sticky(parent) || inLogDirectory(parent) {
			w.way = ByDirectory
		}
	}
	at := w.Pattern
	if w.way == ByDirectory {
		w.dir, at = parent, parent
		if systemDirectory(parent) {
			remedy := finding.Words("let the application write its logs to a directory of its own")
			if !w.IsGlob() {
				remedy = finding.Say("remove %s, so that only the file is mounted", annotation(contract.KeyMount))
			} else if parent == "/" {
				remedy = "name the log directory before the first wildcard, such as /app/*.log"
			}
			return w.refuse(finding.SystemDirectory, ": a volume over %s would hide system files; %s", parent, remedy)
		}
		// A glob reaches into volumes that are mounted beneath its directory.
		if f := r.reach(ctx, w, parent); f != nil {
			return f
		}
	}
	// The marks of what is seeded must be out of the application's reach.
	if own := "/" + contract.SeedDir; contract.Covers(own, at) {
		return w.refuse(finding.SystemDirectory, ": %s is reserved for log-bridge; let the application write its logs to another directory", own)
	}
	if f := mountable(w, at); f != nil {
		return f
	}
	if w.way == ByFile && systemFile(w.Pattern) {
		return w.refuse(finding.SystemFile, ": this is a program or a configuration file of the system, and an empty file would be mounted over it; name a log file, such as one that ends in .log")
	}
	return nil
}

// base is what a volume must cover to hold the entry's files.
func (w *wanted) base() string {
	if w.IsGlob() {
		return w.Dir()
	}
	return w.Pattern
}

// volume finds out whether the volume that covers an entry can hold its files.
func (r *router) volume(ctx context.Context, w *wanted, m corev1.VolumeMount) *finding.Finding {
	v := r.pod.volume(m.Name)
	at := mountPath(m)
	if kind := notForLogs(v); kind != "" {
		return w.refuse(finding.VolumeCannotHoldLogs, " is in volume %s, a %s, which cannot hold logs; let the application write elsewhere, or mount an emptyDir there", m.Name, kind)
	}
	if m.ReadOnly {
		return w.refuse(finding.MountIsReadOnly, ": container %s mounts volume %s read-only at %s, so it cannot write there; %s", w.Container, m.Name, at, writer(r.pod, w, m, r.found.Full()))
	}
	if field := readOnly(v); field != "" {
		return w.refuse(finding.VolumeIsReadOnly, " is in volume %s, whose %s.readOnly is true, so the container cannot write there; remove readOnly, or name a path that the container can write to", m.Name, field)
	}
	if !w.IsGlob() {
		// A volume is a directory. With a subPath it may be one file of it.
		if at == w.Pattern && m.SubPath == "" && m.SubPathExpr == "" && !isHostFile(v) {
			return w.refuse(finding.PathIsMountPoint, " is the mount path of volume %s, so it is a directory; name the files in it, such as %s/*.log", m.Name, at)
		}
		if f := mountedInside(r.pod.mountsOf(w.source), w); f != nil {
			return f
		}
	}
	w.volume, w.fromEnd = m.Name, outlives(v)
	w.reached = append(w.reached, &m)
	return r.reach(ctx, w, at)
}

// mountedInside refuses a file inside which a volume is mounted: it is a directory.
func mountedInside(mounted *mountIndex, w *wanted) *finding.Finding {
	below, _ := mounted.beneath(w.Pattern)
	if w.IsGlob() || len(below) == 0 {
		return nil
	}
	m := mounted.all[below[0]]
	return w.isDirectory(finding.Say("volume %s is mounted at %s, so %s is a directory", m.Name, mountPath(m), w.Pattern))
}

// reach finds the volumes that are mounted beneath a directory and that a
// glob may reach into. Those that cannot hold logs of this container are passed
// over: a glob does not claim that each of its directories has any.
func (r *router) reach(ctx context.Context, w *wanted, dir string) *finding.Finding {
	if !w.IsGlob() {
		return nil
	}
	mounted := r.pod.mountsOf(w.source)
	below, weight := mounted.beneath(dir)
	if r.globs > maxGlobs {
		return nil // an earlier entry is refused for it
	}
	if r.globs += (len(w.Pattern) + 8) * weight; r.globs > maxGlobs {
		return w.refuse(finding.TooManyGlobs, ": too many globs above too many volume mounts (%d here); name directories with fewer volume mounts, or files", len(below))
	}
	below = slices.Sorted(slices.Values(below)) // in the pod's order
	for _, i := range below {
		if ctx.Err() != nil {
			break
		}
		m := &mounted.all[i]
		if !w.Reaches(mounted.at[i]) || m.ReadOnly || notForLogs(r.pod.volume(m.Name)) != "" || readOnly(r.pod.volume(m.Name)) != "" {
			continue
		}
		w.reached = append(w.reached, m)
	}
	return nil
}

// writer names the entry that a read-only mount should have been; in a hurry, nothing is searched.
func writer(p *pod, w *wanted, m corev1.VolumeMount, hurry bool) finding.Words {
	const none = "name a path that the container can write to"
	if m.SubPathExpr != "" || hurry {
		return none
	}
	inVolume := path.Join("/", m.SubPath, strings.TrimPrefix(w.Pattern, mountPath(m)))
	for _, o := range p.writings(m.Name) {
		if contract.Covers(o.top, inVolume) {
			rest := strings.TrimPrefix(strings.TrimPrefix(inVolume, o.top), "/")
			return finding.Say("container %s can, so name %s", o.source.Name, contract.Entry{Container: o.source.Name, Pattern: path.Join(o.at, rest)})
		}
	}
	return none
}

// kubeletFile refuses what the kubelet mounts into each container by itself.
func kubeletFile(w *wanted) *finding.Finding {
	switch w.Pattern {
	case "/etc/hosts", "/etc/hostname", "/etc/resolv.conf":
		return w.refuse(finding.KubeletFile, " is a file of the kubelet, not a log; name a file that the application writes")
	}
	if t := w.source.TerminationMessagePath; t != "" && path.Clean("/"+t) == w.Pattern {
		return w.refuse(finding.KubeletFile, " is the container's terminationMessagePath, where the kubelet mounts a file of its own; change one of the two paths")
	}
	return nil
}

// usualLinks are links that nearly all images have.
var usualLinks = []struct{ link, target string }{{"/var/run", "/run"}, {"/var/lock", "/run/lock"}}

// otherName refuses /var/run/x where a volume is mounted at /run/x, and the reverse:
// our mount would land on top of the user's volume and hide it.
func otherName(p *pod, w *wanted) *finding.Finding {
	for _, l := range usualLinks {
		for _, from := range []string{l.link, l.target} {
			to := l.target
			if from == l.target {
				to = l.link
			}
			if !contract.Covers(from, w.base()) {
				continue
			}
			m, ok := p.mountsOf(w.source).covering(to + strings.TrimPrefix(w.base(), from))
			if ok && contract.Covers(to, mountPath(m)) {
				return w.refuse(finding.PathThroughLink, ": %s is usually a link to %s, and volume %s is mounted at %s; write %s", l.link, l.target, m.Name, mountPath(m),
					contract.Entry{Container: w.Container, Pattern: to + strings.TrimPrefix(w.Pattern, from)})
			}
		}
	}
	return nil
}

// mountable refuses a path that Kubernetes or Linux cannot mount at.
func mountable(w *wanted, at string) *finding.Finding {
	if strings.Contains(at, ":") {
		return w.refuse(finding.PathNotMountable, ": Kubernetes cannot mount at a path with a colon; let the application write elsewhere")
	}
	if len(at) > 3072 {
		return w.refuse(finding.PathNotMountable, ": the path has %d bytes, but only 3072 can be mounted; use a shorter one", len(at))
	}
	for part := range strings.SplitSeq(at, "/") {
		if len(part) > 255 {
			return w.refuse(finding.PathNotMountable, ": a file name has %d bytes, but Linux allows only 255; use a shorter one", len(part))
		}
	}
	return nil
}

// inLogDirectory says whether a directory or one above it is named log or logs: such
// a directory holds logs and little else, and rotation by rename is usual there.
func inLogDirectory(dir string) bool {
	for part := range strings.SplitSeq(dir, "/") {
		if part == "log" || part == "logs" {
			return true
		}
	}
	return false
}

// systemDirectory says whether a volume over dir would take the system's programs
// or its configuration away, or copy them all. The last is the directory in which we
// keep what is being seeded.
func systemDirectory(dir string) bool {
	parts := strings.Split(strings.TrimPrefix(dir, "/"), "/")
	programs := []string{"bin", "sbin", "lib", "lib32", "lib64", "libx32"}
	switch parts[0] {
	case "", contract.SeedDir:
		return true
	case "etc":
		return len(parts) == 1
	case "usr":
		return len(parts) == 1 || len(parts) == 2 && slices.Contains(programs, parts[1])
	}
	return slices.Contains(programs, parts[0])
}

// systemFile says whether a file is one of the system's programs, libraries or settings, as
// far as a path can say it. A log may be anywhere, also in /etc, but then is called so.
func systemFile(file string) bool {
	name := strings.ToLower(path.Base(file))
	for _, part := range []string{"log", ".out", ".err", ".txt", ".json", "trace"} {
		if strings.Contains(name, part) {
			return false
		}
	}
	dir := parent(file)
	return contract.Covers("/etc", file) || dir != "/" && systemDirectory(dir)
}
