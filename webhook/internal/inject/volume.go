package inject

import (
	"fmt"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/log-bridge/log-bridge/sidecar/contract"
)

// covering is the deepest mount that covers a path.
func covering(mounts []corev1.VolumeMount, of string) (corev1.VolumeMount, bool) {
	var best corev1.VolumeMount
	found := false
	for _, m := range mounts {
		if contract.Covers(mountPath(m), of) && (!found || len(mountPath(m)) > len(mountPath(best))) {
			best, found = m, true
		}
	}
	return best, found
}

func mountPath(m corev1.VolumeMount) string { return path.Clean("/" + m.MountPath) }

// shareVolume mounts the volume that covers an entry in the sidecar too.
func (p *planner) shareVolume(w *wanted, m corev1.VolumeMount) (Code, error) {
	v := p.volume(m.Name)
	at := mountPath(m)
	if kind := notForLogs(v); kind != "" {
		return LB0301, fmt.Errorf("%s lies in volume %s, a %s, which cannot hold logs; let the application write elsewhere, or mount an emptyDir there", w.Entry, m.Name, kind)
	}
	if m.ReadOnly {
		return LB0302, fmt.Errorf("%s: container %s mounts volume %s read-only at %s, so it writes nothing there; %s", w.Entry, w.Container, m.Name, at, p.writer(w, m))
	}
	if !w.IsGlob() {
		// A volume is a directory. With a subPath it may be one file of it.
		if at == w.Pattern && m.SubPath == "" && m.SubPathExpr == "" && !isHostFile(v) {
			return LB0303, fmt.Errorf("%s is where volume %s is mounted, so it is a directory; name the files in it, such as %s/*.log", w.Entry, m.Name, at)
		}
		for _, below := range w.source.VolumeMounts {
			if contract.Covers(w.Pattern, mountPath(below)) && mountPath(below) != at {
				return LB0304, fmt.Errorf("%s: volume %s is mounted at %s, so %s is a directory; name the files in it, such as %s/*.log", w.Entry, below.Name, mountPath(below), w.Pattern, w.Pattern)
			}
		}
	}
	w.share.Volume, w.share.FromEnd = m.Name, outlives(v)
	if code, err := p.view(w, m); err != nil {
		return code, err
	}
	return p.viewsBeneath(w, at)
}

// viewsBeneath adds the volumes that are mounted beneath a directory and that a
// glob may reach into. Those that cannot hold logs of this container are passed
// over: a glob does not claim that each of its directories has any.
func (p *planner) viewsBeneath(w *wanted, dir string) (Code, error) {
	if !w.IsGlob() {
		return "", nil
	}
	for _, m := range w.source.VolumeMounts {
		at := mountPath(m)
		if at == dir || !contract.Covers(dir, at) || !reaches(w.Pattern, at) || m.ReadOnly || notForLogs(p.volume(m.Name)) != "" {
			continue
		}
		if code, err := p.view(w, m); err != nil {
			return code, err
		}
	}
	return "", nil
}

// view lets the sidecar see what a container sees at one of its mounts.
func (p *planner) view(w *wanted, m corev1.VolumeMount) (Code, error) {
	at := mountPath(m)
	// An argument --view=CONTAINER:PATH=/DIR is cut at the first "=/".
	if strings.Contains(at, "=/") {
		return LB0309, fmt.Errorf("%s: log-bridge cannot follow files in a volume mounted at %s, a path with \"=/\"; mount it elsewhere", w.Entry, at)
	}
	dir := path.Join(contract.VolumesRoot, m.Name)
	switch {
	case m.SubPathExpr != "":
		expr, err := p.environment(w.source, m.SubPathExpr)
		if err != nil {
			return LB0305, fmt.Errorf("%s: container %s mounts volume %s with subPathExpr %s: %w", w.Entry, w.Container, m.Name, m.SubPathExpr, err)
		}
		dir += "/" + expr
	case m.SubPath != "":
		dir = escape(path.Join(dir, m.SubPath))
	}
	view := contract.View{Place: contract.Place{Container: w.Container, Path: escape(at)}, Dir: dir}
	if slices.Contains(p.tail.Views, view) {
		return "", nil
	}
	p.tail.Views = append(p.tail.Views, view)
	v := p.volume(m.Name)
	if outlives(v) && m.SubPathExpr == "" && p.hasSiblings(v) {
		p.find(LB0313, fmt.Sprintf("volume %s outlives the pod: if others write there too, each sidecar prints all lines; subPathExpr separates them", m.Name))
	}
	if slices.Contains(p.volumes, m.Name) {
		return "", nil
	}
	p.volumes = append(p.volumes, m.Name)
	if outlives(v) {
		p.tail.FromEnd = append(p.tail.FromEnd, path.Join(contract.VolumesRoot, m.Name))
	}
	return "", nil
}

// volume finds a volume by name. One that is not there is a claim template of a
// StatefulSet whose manifest is looked at before it has pods.
func (p *planner) volume(name string) *corev1.Volume {
	i := slices.IndexFunc(p.pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == name })
	if i < 0 {
		return nil
	}
	return &p.pod.Spec.Volumes[i]
}

// notForLogs names the kind of a volume that an application cannot write logs to.
func notForLogs(v *corev1.Volume) string {
	switch {
	case v == nil:
		return ""
	case v.ConfigMap != nil:
		return "configMap"
	case v.Secret != nil:
		return "secret"
	case v.Projected != nil:
		return "projected volume"
	case v.DownwardAPI != nil:
		return "downwardAPI volume"
	case v.Image != nil:
		return "image volume"
	}
	return ""
}

// outlives says whether files in a volume may be older than the pod. An emptyDir and
// a claim that is made for the pod are as new as the pod.
func outlives(v *corev1.Volume) bool {
	return v == nil || v.EmptyDir == nil && v.Ephemeral == nil
}

func isHostFile(v *corev1.Volume) bool {
	if v == nil || v.HostPath == nil || v.HostPath.Type == nil {
		return false
	}
	return *v.HostPath.Type == corev1.HostPathFile || *v.HostPath.Type == corev1.HostPathFileOrCreate
}

// hasSiblings says whether other pods may well write the same volume: those of the
// same controller, unless the volume is the pod's own by construction.
func (p *planner) hasSiblings(v *corev1.Volume) bool {
	owner := metav1.GetControllerOfNoCopy(p.pod)
	if owner == nil || v == nil {
		return false
	}
	switch {
	case owner.Kind == "StatefulSet" && v.PersistentVolumeClaim != nil:
		return !strings.HasSuffix(v.PersistentVolumeClaim.ClaimName, "-"+p.pod.Name)
	case owner.Kind == "DaemonSet" && v.HostPath != nil:
		return false
	}
	return true
}

// writer names the entry that a read-only mount should have been.
func (p *planner) writer(w *wanted, m corev1.VolumeMount) string {
	const none = "name a path that the container can write"
	if m.SubPathExpr != "" {
		return none
	}
	inVolume := path.Join("/", m.SubPath, strings.TrimPrefix(w.Pattern, mountPath(m)))
	for _, s := range p.sources() {
		for _, o := range s.VolumeMounts {
			top := path.Join("/", o.SubPath)
			if o.Name != m.Name || o.ReadOnly || o.SubPathExpr != "" || !contract.Covers(top, inVolume) {
				continue
			}
			rest := strings.TrimPrefix(strings.TrimPrefix(inVolume, top), "/")
			return fmt.Sprintf("container %s can: write %s", s.Name, contract.Entry{Container: s.Name, Pattern: path.Join(mountPath(o), rest)})
		}
	}
	return none
}

// reaches says whether a glob may match something at or beneath dir.
func reaches(pattern, dir string) bool {
	want := strings.Split(strings.Trim(dir, "/"), "/")
	parts := strings.Split(strings.Trim(pattern, "/"), "/")
	for i, part := range parts {
		if part == "**" || i == len(want) {
			return true
		}
		if ok, err := path.Match(part, want[i]); err != nil || !ok {
			return false
		}
	}
	return len(parts) == len(want)
}
