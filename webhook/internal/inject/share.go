package inject

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/webhook/internal/finding"
)

// plan is how the files of a pod are shared.
type plan struct {
	shares []Share
	// mounts are what containers mount of our volume.
	mounts []addition
	// views are what the sidecar sees of the pod's volumes.
	views views
	// tail is what the sidecar does with them; its Views are in views.
	tail contract.Config
}

// addition is what one container of the user is given.
type addition struct {
	source source
	mounts []corev1.VolumeMount
	seeded []string // directories that its seeding container fills
}

// share finds the way of each entry, and from it what the containers and the sidecar need.
func share(ctx context.Context, p *pod, set settings) (plan, finding.List) {
	all, found := findWays(ctx, p, set)
	views, f := findViews(p, all)
	found.Merge(f)
	if found.Mistaken() || ctx.Err() != nil {
		return plan{}, found
	}
	if found.Merge(nest(all)); found.Mistaken() {
		return plan{}, found
	}
	plan := plan{views: views}
	plan.tail.Roots = []string{contract.Root}
	plan.tail.Format, plan.tail.Reclaim, plan.tail.FromEnd = set.format, set.reclaim, views.fromEnd
	found.Merge(plan.mount(p, set, all))
	for _, w := range all {
		plan.shares = append(plan.shares, w.share(set))
		if w.key == contract.KeyStderrFiles {
			plan.tail.Stderr = append(plan.tail.Stderr, w.Entry)
		} else {
			plan.tail.Stdout = append(plan.tail.Stdout, w.Entry)
		}
	}
	return plan, found
}

// share is the entry in the status.
func (w *wanted) share(set settings) Share {
	s := Share{Entry: w.String(), Way: w.way, Volume: w.volume, FromEnd: w.fromEnd, Stderr: w.key == contract.KeyStderrFiles}
	if w.way == ByDirectory {
		s.Directory, s.Seeded = w.dir, set.seed
	}
	return s
}

// nest settles entries that lie in one another. A directory that lies in another needs no mount of
// its own, and neither does a file: with both, the file would be mounted into the
// directory, and its rename refused there for no reason.
func nest(all []*wanted) (found finding.List) {
	dirs, files, top := map[string][]string{}, map[string]paths{}, map[string]paths{}
	for _, w := range all {
		switch w.way {
		case ByDirectory:
			dirs[w.Container] = append(dirs[w.Container], w.dir)
		case ByFile:
			files[w.Container] = append(files[w.Container], w.Pattern)
		}
	}
	for name, d := range dirs {
		top[name] = topmost(d)
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
		const named = "another entry names files inside %s, so it is a directory"
		if d, ok := top[w.Container].covering(of); ok {
			if w.way == ByFile && d == of {
				found.Append(*w.isDirectory(finding.Say(named, of)))
			}
			w.way, w.dir = ByDirectory, d
			continue
		}
		if _, ok := top[w.Container].within(of); ok {
			found.Append(*w.isDirectory(finding.Say(named, of)))
		} else if other, ok := files[w.Container].within(of); ok {
			found.Append(*w.isDirectory(finding.Say("the entry %s is inside it, so it is a directory", contract.Entry{Container: w.Container, Pattern: other})))
		}
	}
	return found
}

// isDirectory refuses a file that is a directory.
func (w *wanted) isDirectory(why finding.Words) *finding.Finding {
	return w.refuse(finding.PathIsDirectory, ": %s; name the files in it, such as %s/*.log", why, w.Pattern)
}

// mount gives each container what it mounts of our volume, and the sidecar what it makes for that.
func (p *plan) mount(of *pod, set settings, all []*wanted) (found finding.List) {
	type place struct{ container, path string }
	mounted := map[place]bool{}
	index := map[string]int{} // in mounts, by the container's name
	// add is nil if the container has it already.
	add := func(s source, at string) *addition {
		if mounted[place{s.Name, at}] {
			return nil
		}
		mounted[place{s.Name, at}] = true
		i, ok := index[s.Name]
		if !ok {
			i = len(p.mounts)
			index[s.Name] = i
			p.mounts = append(p.mounts, addition{source: s})
		}
		a := &p.mounts[i]
		a.mounts = append(a.mounts, corev1.VolumeMount{Name: contract.Volume, MountPath: at, SubPath: s.Name + at})
		return a
	}
	for _, w := range all {
		found.Merge(checkReclaim(set, w))
		switch w.way {
		case ByFile:
			if add(w.source, w.Pattern) != nil {
				p.tail.Files = append(p.tail.Files, contract.Place{Container: w.Container, Path: w.Pattern})
			}
		case ByDirectory:
			a := add(w.source, w.dir)
			if a == nil {
				continue
			}
			found.Merge(checkDirectory(of, set, w))
			dir := contract.Place{Container: w.Container, Path: w.dir}
			if set.seed {
				p.tail.Seeded = append(p.tail.Seeded, dir)
				a.seeded = append(a.seeded, w.dir)
			} else {
				p.tail.Dirs = append(p.tail.Dirs, dir)
			}
		}
	}
	return found
}

// checkReclaim warns where reclaim does nothing, or more than is wanted.
func checkReclaim(set settings, w *wanted) (found finding.List) {
	switch {
	case !set.reclaim:
	case w.way == ByVolume:
		found.Add(finding.ReclaimWithoutEffect, "%s has no effect on %s because it is in the pod's volume %s", annotation(contract.KeyReclaim), w.Entry, w.volume)
	case w.way == ByDirectory && w.IsGlob() && !namesLogs(w.Pattern):
		found.Add(finding.ReclaimOfMoreThanLogs, "%s: %s may match files that are not logs; what is delivered of them is freed too, and reads as zeros; use a glob that matches only logs, such as %s/*.log", annotation(contract.KeyReclaim), w.Entry, w.dir)
	}
	return found
}

// checkDirectory warns where an application may miss or find something in a shared directory.
func checkDirectory(p *pod, set settings, w *wanted) finding.List {
	found := checkRestart(p, set, w.source, w.dir)
	if !set.seed && !contract.Sticky(w.dir) {
		found.Add(finding.ImageDirectoryHidden, "%s is \"false\", so the files that the image of container %s has in %s are hidden", annotation(contract.KeySeed), w.Container, w.dir)
	}
	return found
}
