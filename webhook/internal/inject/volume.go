package inject

import (
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/webhook/internal/finding"
)

func mountPath(m corev1.VolumeMount) string { return path.Clean("/" + m.MountPath) }

// shareVolume mounts the volume that covers an entry in the sidecar too.
func (p *planner) shareVolume(w *wanted, m corev1.VolumeMount) (finding.Code, error) {
	v := p.volume(m.Name)
	at := mountPath(m)
	if kind := notForLogs(v); kind != "" {
		return finding.VolumeCannotHoldLogs, finding.Sentence("%s lies in volume %s, a %s, which cannot hold logs; let the application write elsewhere, or mount an emptyDir there", w.Entry, m.Name, kind)
	}
	if m.ReadOnly {
		return finding.MountIsReadOnly, finding.Sentence("%s: container %s mounts volume %s read-only at %s, so it writes nothing there; %s", w.Entry, w.Container, m.Name, at, p.writer(w, m))
	}
	if field := readOnly(v); field != "" {
		return finding.VolumeIsReadOnly, finding.Sentence("%s lies in volume %s, whose %s.readOnly is true, so nothing can be written there; take that away, or name a path that the container can write", w.Entry, m.Name, field)
	}
	if !w.IsGlob() {
		// A volume is a directory. With a subPath it may be one file of it.
		if at == w.Pattern && m.SubPath == "" && m.SubPathExpr == "" && !isHostFile(v) {
			return finding.PathIsMountPoint, finding.Sentence("%s is where volume %s is mounted, so it is a directory; name the files in it, such as %s/*.log", w.Entry, m.Name, at)
		}
		mounted := p.mountsOf(w.source)
		if below, _ := mounted.beneath(w.Pattern); len(below) > 0 {
			b := mounted.all[below[0]]
			return finding.PathIsDirectory, finding.Sentence("%s: volume %s is mounted at %s, so %s is a directory; name the files in it, such as %s/*.log", w.Entry, b.Name, mountPath(b), w.Pattern, w.Pattern)
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
func (p *planner) viewsBeneath(w *wanted, dir string) (finding.Code, error) {
	if !w.IsGlob() {
		return "", nil
	}
	mounted := p.mountsOf(w.source)
	below, weight := mounted.beneath(dir)
	if p.globs > maxGlobs {
		return "", nil // it is told
	}
	if p.globs += (len(w.Pattern) + 8) * weight; p.globs > maxGlobs {
		return finding.TooManyGlobs, finding.Sentence("%s: too many globs would have to be compared with the paths of too many volume mounts (%d here); name directories in which fewer volumes are mounted, or files", w.Entry, len(below))
	}
	below = slices.Sorted(slices.Values(below)) // in the pod's order
	for _, i := range below {
		if p.ended() {
			break
		}
		m := mounted.all[i]
		if !w.Reaches(mounted.at[i]) || m.ReadOnly || notForLogs(p.volume(m.Name)) != "" || readOnly(p.volume(m.Name)) != "" {
			continue
		}
		if code, err := p.view(w, m); err != nil {
			return code, err
		}
	}
	return "", nil
}

// view lets the sidecar see what a container sees at one of its mounts.
func (p *planner) view(w *wanted, m corev1.VolumeMount) (finding.Code, error) {
	at := mountPath(m)
	// An argument --view=CONTAINER:PATH=/DIR is cut at the first "=/".
	if strings.Contains(at, "=/") {
		return finding.PathNotMountable, finding.Sentence("%s: log-bridge cannot follow files in a volume mounted at %s, a path with \"=/\"; mount it elsewhere", w.Entry, at)
	}
	dir := path.Join(contract.VolumesRoot, m.Name)
	switch {
	case m.SubPathExpr != "":
		expr, err := p.environment(w.source, m.SubPathExpr)
		if err != nil {
			return finding.VariableUnavailable, finding.Sentence("%s: container %s mounts volume %s with subPathExpr %s: %v", w.Entry, w.Container, m.Name, m.SubPathExpr, err)
		}
		dir += "/" + expr
	case m.SubPath != "":
		dir = escape(path.Join(dir, m.SubPath))
	}
	view := contract.View{Place: contract.Place{Container: w.Container, Path: escape(at)}, Dir: dir}
	if p.views[view] {
		return "", nil
	}
	if p.views == nil {
		p.views, p.viewed = map[contract.View]bool{}, map[string]bool{}
	}
	p.views[view] = true
	p.tail.Views = append(p.tail.Views, view)
	v := p.volume(m.Name)
	if outlives(v) && m.SubPathExpr == "" && p.hasSiblings(v) {
		p.found.Add(finding.VolumeOfSeveralPods, "volume %s outlives the pod: if others write there too, each sidecar prints all lines; subPathExpr separates them", m.Name)
	}
	if p.viewed[m.Name] {
		return "", nil
	}
	p.viewed[m.Name] = true
	p.volumes = append(p.volumes, m.Name)
	if outlives(v) {
		p.tail.FromEnd = append(p.tail.FromEnd, path.Join(contract.VolumesRoot, m.Name))
	}
	return "", nil
}

// volume finds a volume by name. One that is not there is a claim template of a
// StatefulSet whose manifest is looked at before it has pods.
func (p *planner) volume(name string) *corev1.Volume {
	if p.byVolume == nil {
		p.byVolume = make(map[string]int, len(p.pod.Spec.Volumes))
		for i, v := range p.pod.Spec.Volumes {
			if _, twice := p.byVolume[v.Name]; !twice {
				p.byVolume[v.Name] = i
			}
		}
	}
	i, ok := p.byVolume[name]
	if !ok {
		return nil
	}
	return &p.pod.Spec.Volumes[i]
}

// readOnly names the source of a volume that the pod has mounted for reading only, whatever
// the mounts say.
func readOnly(v *corev1.Volume) string {
	yes := func(b *bool) bool { return b != nil && *b }
	switch {
	case v == nil:
	case v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ReadOnly:
		return "persistentVolumeClaim"
	case v.CSI != nil && yes(v.CSI.ReadOnly):
		return "csi"
	case v.NFS != nil && v.NFS.ReadOnly:
		return "nfs"
	case v.ISCSI != nil && v.ISCSI.ReadOnly:
		return "iscsi"
	case v.FC != nil && v.FC.ReadOnly:
		return "fc"
	case v.CephFS != nil && v.CephFS.ReadOnly:
		return "cephfs"
	case v.RBD != nil && v.RBD.ReadOnly:
		return "rbd"
	case v.Glusterfs != nil && v.Glusterfs.ReadOnly:
		return "glusterfs"
	case v.Cinder != nil && v.Cinder.ReadOnly:
		return "cinder"
	case v.FlexVolume != nil && v.FlexVolume.ReadOnly:
		return "flexVolume"
	case v.Quobyte != nil && v.Quobyte.ReadOnly:
		return "quobyte"
	case v.AzureDisk != nil && yes(v.AzureDisk.ReadOnly):
		return "azureDisk"
	case v.AzureFile != nil && v.AzureFile.ReadOnly:
		return "azureFile"
	case v.GCEPersistentDisk != nil && v.GCEPersistentDisk.ReadOnly:
		return "gcePersistentDisk"
	case v.AWSElasticBlockStore != nil && v.AWSElasticBlockStore.ReadOnly:
		return "awsElasticBlockStore"
	case v.PortworxVolume != nil && v.PortworxVolume.ReadOnly:
		return "portworxVolume"
	case v.ScaleIO != nil && v.ScaleIO.ReadOnly:
		return "scaleIO"
	case v.StorageOS != nil && v.StorageOS.ReadOnly:
		return "storageos"
	}
	return ""
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
func (p *planner) writer(w *wanted, m corev1.VolumeMount) finding.Words {
	const none = "name a path that the container can write"
	if m.SubPathExpr != "" || p.found.Full() {
		return none
	}
	inVolume := path.Join("/", m.SubPath, strings.TrimPrefix(w.Pattern, mountPath(m)))
	for _, o := range p.writings(m.Name) {
		if contract.Covers(o.top, inVolume) {
			rest := strings.TrimPrefix(strings.TrimPrefix(inVolume, o.top), "/")
			return finding.Say("container %s can: write %s", o.source.Name, contract.Entry{Container: o.source.Name, Pattern: path.Join(o.at, rest)})
		}
	}
	return none
}
