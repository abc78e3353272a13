package inject

import (
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
	stderr bool
	source source
	way    Way
	dir    string // of the way directory
	share  Share
}

// shareAll finds the way of each entry and gathers what the containers and the
// sidecar need for it.
func (p *planner) shareAll() {
	var all []*wanted
	for _, e := range p.set.files {
		all = append(all, &wanted{Entry: e, key: contract.KeyFiles})
	}
	for _, e := range p.set.stderrFiles {
		all = append(all, &wanted{Entry: e, key: contract.KeyStderrFiles, stderr: true})
	}
	dirs := map[string][]string{}
	for _, w := range all {
		if p.ended() {
			return
		}
		w.source, _ = p.source(w.Container)
		w.share = Share{Entry: w.Entry.String(), Stderr: w.stderr}
		if code, err := p.way(w); err != nil {
			p.found.Add(code, "%s: %v", annotation(w.key), err)
			continue
		}
		if w.way == ByDirectory {
			dirs[w.Container] = append(dirs[w.Container], w.dir)
		}
	}
	if p.found.Mistaken() {
		return
	}

	// A directory that lies in another needs no mount of its own, and neither does
	// a file: with both, the file would be mounted into the folder, and its rename
	// refused there for no reason.
	top, files := map[string]paths{}, map[string]paths{}
	for name, d := range dirs {
		top[name] = topmost(d)
	}
	for _, w := range all {
		if w.way == ByFile {
			files[w.Container] = append(files[w.Container], w.Pattern)
		}
	}
	for _, f := range files {
		slices.Sort(f)
	}
	for _, w := range all {
		if w.way == ByVolume {
			continue
		}
		of := w.Pattern
		if w.way == ByDirectory {
			of = w.dir
		}
		if d, ok := top[w.Container].covering(of); ok {
			if w.way == ByFile && d == of {
				p.beneath(w, "another entry names files inside %s, so it is a directory", of)
			}
			w.way, w.dir = ByDirectory, d
			continue
		}
		if _, ok := top[w.Container].within(of); ok {
			p.beneath(w, "another entry names files inside %s, so it is a directory", of)
		} else if other, ok := files[w.Container].within(of); ok {
			p.beneath(w, "the entry %s is inside it, so it is a directory", contract.Entry{Container: w.Container, Pattern: other})
		}
	}
	if p.found.Mistaken() {
		return
	}

	for _, w := range all {
		w.share.Way = w.way
		switch w.way {
		case ByVolume:
			if p.set.reclaim {
				p.found.Add(finding.ReclaimWithoutEffect, "%s: nothing is freed of %s, which lies in the pod's own volume %s", annotation(contract.KeyReclaim), w.Entry, w.share.Volume)
			}
		case ByDirectory:
			if p.set.reclaim && w.IsGlob() && !namesLogs(w.Pattern) {
				p.found.Add(finding.ReclaimOfMoreThanLogs, "%s: %s may match files that are no logs, and what is delivered of those is freed too, so the application finds zeros there; write a glob that only logs match, such as %s/*.log", annotation(contract.KeyReclaim), w.Entry, w.dir)
			}
			w.share.Directory, w.share.Seeded = w.dir, p.set.seed
			p.mountDirectory(w.source, w.dir)
		case ByFile:
			p.mountFile(w.source, w.Pattern)
		}
		p.shares = append(p.shares, w.share)
		e := contract.Entry{Container: w.Container, Pattern: escape(w.Pattern)}
		if w.stderr {
			p.tail.Stderr = append(p.tail.Stderr, e)
		} else {
			p.tail.Stdout = append(p.tail.Stdout, e)
		}
	}
	p.tail.Format, p.tail.Reclaim, p.tail.Stats = p.set.format, p.set.reclaim, p.config.Stats
	p.tail.Roots = []string{contract.Root}
}

// beneath refuses a file that is a directory for another entry.
func (p *planner) beneath(w *wanted, why string, arg any) {
	p.found.Add(finding.PathIsDirectory, "%s: %s: %s; name the files in it, such as %s/*.log", annotation(w.key), w.Entry, finding.Say(why, arg), w.Pattern)
}

// way decides how one entry is shared. The error is a sentence without the
// annotation's key.
func (p *planner) way(w *wanted) (finding.Code, error) {
	if code, err := p.kubeletFile(w); err != nil {
		return code, err
	}
	for _, d := range w.source.VolumeDevices {
		if contract.Covers(path.Clean("/"+d.DevicePath), w.Pattern) {
			return finding.PathOnBlockDevice, finding.Sentence("%s is on the block device %s of volume %s, which holds no files that can be shared; name a file in a file system", w.Entry, d.DevicePath, d.Name)
		}
	}
	mounted := p.mountsOf(w.source)
	if m, ok := mounted.covering(w.base()); ok {
		w.way = ByVolume
		return p.shareVolume(w, m)
	}
	if contract.Covers("/dev", w.Pattern) {
		return finding.SharedMemory, finding.Sentence("%s: the runtime keeps /dev/shm in memory for this container alone, so nothing there can be shared; mount a volume there, such as an emptyDir with medium: Memory at /dev/shm", w.Entry)
	}
	if code, err := p.otherName(w); err != nil {
		return code, err
	}
	if !w.IsGlob() {
		if below, _ := mounted.beneath(w.Pattern); len(below) > 0 {
			m := mounted.all[below[0]]
			return finding.PathIsDirectory, finding.Sentence("%s: volume %s is mounted at %s, so %s is a directory; name the files in it, such as %s/*.log", w.Entry, m.Name, mountPath(m), w.Pattern, w.Pattern)
		}
	}
	parent := w.Dir()
	switch p.set.mount {
	case contract.MountFile:
		if w.IsGlob() {
			return finding.FileMountOfGlob, finding.Sentence("%s: a glob needs the whole directory, but %s says %q; take that away or name the files one by one", w.Entry, annotation(contract.KeyMount), contract.MountFile)
		}
		if contract.Sticky(parent) {
			return finding.FileInStickyDirectory, finding.Sentence("%s: with fs.protected_regular, as on most nodes, an application may not open another user's file in %s for creation, so a single file cannot be mounted there; set %s to %q", w.Entry, parent, annotation(contract.KeyMount), contract.MountDirectory)
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
				remedy = finding.Say("take %s away, so that the one file is mounted", annotation(contract.KeyMount))
			} else if parent == "/" {
				remedy = "write the directory of the logs before the first wildcard, such as /app/*.log"
			}
			return finding.SystemDirectory, finding.Sentence("%s: no volume can be mounted over %s, where the system is; %s", w.Entry, parent, remedy)
		}
		// A glob reaches into volumes that are mounted beneath its directory.
		if code, err := p.viewsBeneath(w, parent); err != nil {
			return code, err
		}
	}
	// The marks of what is seeded must be out of the application's reach.
	if own := "/" + contract.SeedDir; contract.Covers(own, at) {
		return finding.SystemDirectory, finding.Sentence("%s: log-bridge keeps files of its own in %s of its volume; let the application write its logs to a directory of its own", w.Entry, own)
	}
	if code, err := mountable(w.Entry, at); err != nil {
		return code, err
	}
	if w.way == ByFile && systemFile(w.Pattern) {
		return finding.SystemFile, finding.Sentence("%s: an empty file would be mounted over what the image has there, a program or a setting of the system; name a log file (one whose name ends in .log, for instance)", w.Entry)
	}
	return "", nil
}

// base is what a volume must cover to hold the entry's files.
func (w *wanted) base() string {
	if w.IsGlob() {
		return w.Dir()
	}
	return w.Pattern
}

// kubeletFile refuses what the kubelet mounts into each container by itself.
func (p *planner) kubeletFile(w *wanted) (finding.Code, error) {
	switch w.Pattern {
	case "/etc/hosts", "/etc/hostname", "/etc/resolv.conf":
		return finding.KubeletFile, finding.Sentence("%s is written by the kubelet and is no log; name a file that the application writes", w.Entry)
	}
	if t := w.source.TerminationMessagePath; t != "" && path.Clean("/"+t) == w.Pattern {
		return finding.KubeletFile, finding.Sentence("%s is the container's terminationMessagePath, where the kubelet mounts a file of its own; let one of the two have another path", w.Entry)
	}
	return "", nil
}

// usualLinks are links that nearly all images have.
var usualLinks = []struct{ link, target string }{{"/var/run", "/run"}, {"/var/lock", "/run/lock"}}

// otherName refuses /var/run/x where a volume is mounted at /run/x, and the reverse:
// our mount would land on top of the user's volume and hide it.
func (p *planner) otherName(w *wanted) (finding.Code, error) {
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
				return finding.PathThroughLink, finding.Sentence("%s: %s usually is a link to %s, and volume %s is mounted at %s; write %s", w.Entry, l.link, l.target, m.Name, mountPath(m),
					contract.Entry{Container: w.Container, Pattern: to + strings.TrimPrefix(w.Pattern, from)})
			}
		}
	}
	return "", nil
}

// mountable refuses a path that Kubernetes or Linux cannot mount at.
func mountable(e contract.Entry, at string) (finding.Code, error) {
	if strings.Contains(at, ":") {
		return finding.PathNotMountable, finding.Sentence("%s: Kubernetes mounts nothing at a path with a colon; let the application write elsewhere", e)
	}
	if len(at) > 3072 {
		return finding.PathNotMountable, finding.Sentence("%s: a path of %d bytes is too long to be mounted; use one of at most 3072", e, len(at))
	}
	for part := range strings.SplitSeq(at, "/") {
		if len(part) > 255 {
			return finding.PathNotMountable, finding.Sentence("%s: a file name has at most 255 bytes, one here has %d; use a shorter one", e, len(part))
		}
	}
	return "", nil
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
// or its configuration away, or copy them all. The last is the folder in which we
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

// mountDirectory gives a container a folder of our volume at dir, once.
func (p *planner) mountDirectory(s source, dir string) {
	if !p.mount(s, dir) {
		return
	}
	p.tellRestart(s, dir)
	place := contract.Place{Container: s.Name, Path: escape(dir)}
	if !p.set.seed {
		p.tail.Dirs = append(p.tail.Dirs, place)
		if !contract.Sticky(dir) {
			p.found.Add(finding.ImageDirectoryHidden, "%s is \"false\": what the image of container %s holds in %s is hidden", annotation(contract.KeySeed), s.Name, dir)
		}
		return
	}
	p.tail.Seeded = append(p.tail.Seeded, place)
	a := p.addition(s)
	a.seeded = append(a.seeded, dir)
}

// mountFile gives a container one file of our volume, once.
func (p *planner) mountFile(s source, file string) {
	if p.mount(s, file) {
		p.tail.Files = append(p.tail.Files, contract.Place{Container: s.Name, Path: escape(file)})
	}
}

func (p *planner) mount(s source, at string) bool {
	a := p.addition(s)
	if a.at[at] {
		return false
	}
	a.at[at] = true
	a.mounts = append(a.mounts, corev1.VolumeMount{Name: contract.Volume, MountPath: at, SubPath: s.Name + at})
	return true
}

func (p *planner) addition(s source) *addition {
	i, ok := p.mounted[s.Name]
	if !ok {
		if p.mounted == nil {
			p.mounted = map[string]int{}
		}
		i = len(p.mounts)
		p.mounted[s.Name] = i
		p.mounts = append(p.mounts, addition{source: s, at: map[string]bool{}})
	}
	return &p.mounts[i]
}

// escape writes a text such that the kubelet's expansion of $(VAR) in arguments
// gives it back: each dollar sign is doubled.
func escape(s string) string { return strings.ReplaceAll(s, "$", "$$") }
