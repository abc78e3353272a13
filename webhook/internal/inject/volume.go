package inject

import (
	"path"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/webhook/internal/finding"
)

func mountPath(m corev1.VolumeMount) string { return path.Clean("/" + m.MountPath) }

// views are what the sidecar sees of the pod's volumes.
type views struct {
	list []view
	// volumes are those that the sidecar mounts, in the order in which they were needed.
	volumes []string
	// fromEnd are the directories, as the sidecar sees them, of volumes that outlive the pod.
	fromEnd []string
	// env are the variables that the sidecar needs for subPathExpr.
	env environment
}

// view is what a container sees at one of its mounts: a volume, or the directory of it that
// subPath or an expression names.
type view struct {
	contract.Place
	volume, subPath, expr string
}

// findViews gives the sidecar a view of each mount that an entry reaches.
func findViews(p *pod, all []*wanted) (views, finding.List) {
	var v views
	var found finding.List
	known, mounted := map[view]bool{}, map[string]bool{}
	for _, w := range all {
		for _, m := range w.reached {
			this, f := v.of(p, w, m)
			if f != nil {
				found.Append(*f)
				break
			}
			if known[this] {
				continue
			}
			known[this] = true
			v.list = append(v.list, this)
			volume := p.volume(m.Name)
			if outlives(volume) && m.SubPathExpr == "" && p.hasSiblings(volume) {
				found.Add(finding.VolumeOfSeveralPods, "volume %s outlives the pod: if other pods write to it too, each sidecar prints the lines of all; separate them with subPathExpr", m.Name)
			}
			if mounted[m.Name] {
				continue
			}
			mounted[m.Name] = true
			v.volumes = append(v.volumes, m.Name)
			if outlives(volume) {
				v.fromEnd = append(v.fromEnd, path.Join(contract.VolumesRoot, m.Name))
			}
		}
	}
	return v, found
}

// of is the view of one mount. It adds the variables that the view needs.
func (v *views) of(p *pod, w *wanted, m *corev1.VolumeMount) (view, *finding.Finding) {
	at := mountPath(*m)
	// An argument --view=CONTAINER:PATH=/DIR is cut at the first "=/".
	if strings.Contains(at, "=/") {
		return view{}, w.refuse(finding.PathNotMountable, ": log-bridge cannot follow files in a volume mounted at %s because the path contains \"=/\"; mount it elsewhere", at)
	}
	this := view{Place: contract.Place{Container: w.Container, Path: at}, volume: m.Name}
	switch {
	case m.SubPathExpr != "":
		expr, err := v.env.express(p, w.source, m.SubPathExpr)
		if err != nil {
			return view{}, w.refuse(finding.VariableUnavailable, ": container %s mounts volume %s with subPathExpr %s: %v", w.Container, m.Name, m.SubPathExpr, err)
		}
		this.expr = expr
	case m.SubPath != "":
		this.subPath = m.SubPath
	}
	return this, nil
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
