package inject

import (
	"crypto/sha256"
	"encoding/hex"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/webhook/internal/finding"
)

// binary is the sidecar's program in its image. It is not beneath contract.Root,
// where the volume would hide it.
const binary = "/bin/log-bridge"

// seedBinary is its copy of itself, which the seeding containers run.
const seedBinary = contract.Root + "/" + contract.BinDir + "/" + contract.BinName

// containers are those that the pod gets: the sidecar, then the seeding containers.
func containers(p *pod, set settings, plan plan, c Config) ([]corev1.Container, finding.List) {
	found := checkProcesses(p)
	plan.tail.Stats = c.Stats
	sidecar, f := sidecar(p, set, plan, c)
	found.Merge(f)
	added := append([]corev1.Container{sidecar}, seeders(p, plan.mounts, c.SeedLimit)...)
	found.Merge(checkAdded(added))
	return added, found
}

// sidecar is the container that follows the files.
func sidecar(p *pod, set settings, plan plan, config Config) (corev1.Container, finding.List) {
	resources, found := sidecarResources(p, set, len(plan.tail.Seeded) > 0, config.Resources)
	rights, f := sidecarRights(p, set)
	found.Merge(f)
	always := corev1.ContainerRestartPolicyAlways
	c := corev1.Container{
		Name:            contract.Container,
		Image:           config.Image,
		ImagePullPolicy: config.PullPolicy,
		Args:            plan.arguments(),
		Env:             plan.views.env.list,
		RestartPolicy:   &always,
		Resources:       resources,
		SecurityContext: rights,
		VolumeMounts:    []corev1.VolumeMount{{Name: contract.Volume, MountPath: contract.Root}},
	}
	for _, v := range plan.views.volumes {
		c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: v, MountPath: path.Join(contract.VolumesRoot, v), ReadOnly: true})
	}
	c.VolumeMounts = append(c.VolumeMounts, noToken())
	if mustWait(plan.tail) {
		c.Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{binary, "ready"}}}}
	}
	return c, found
}

// mustWait says whether the next container may start only once the sidecar is
// ready: where the kubelet would make a directory of a file that is not there yet,
// and where the end of an older file is to be found before new lines follow.
func mustWait(tail contract.Config) bool {
	return len(tail.Files)+len(tail.Dirs)+len(tail.Seeded)+len(tail.FromEnd) > 0
}

// noToken covers the path at which the API server would otherwise mount the
// service account's token.
func noToken() corev1.VolumeMount {
	return corev1.VolumeMount{Name: contract.Volume, MountPath: contract.TokenPath, SubPath: contract.TokenDir, ReadOnly: true}
}

// restricted are the fields that Pod Security `restricted` asks of each container,
// less runAsNonRoot, which depends on the user.
func restricted() *corev1.SecurityContext {
	yes, no := true, false
	return &corev1.SecurityContext{
		AllowPrivilegeEscalation: &no,
		Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		ReadOnlyRootFilesystem:   &yes,
		SeccompProfile:           &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
}

// sidecarRights are the sidecar's security context. A file with mode 0600 can be read by its
// owner only, so the sidecar runs as the user that the containers run as, if the
// pod says which. What the pod as a whole says is inherited, not repeated.
func sidecarRights(p *pod, set settings) (sc *corev1.SecurityContext, found finding.List) {
	sc = restricted()
	read := p.named(slices.Concat(set.files, set.stderrFiles)...)
	podUser, podGroup := p.podIDs()

	sc.RunAsUser = set.runAsUser
	user, sameUser := common(read, func(s source) *int64 { return p.user(s.Container) })
	if sc.RunAsUser == nil {
		if sameUser && !equal(user, podUser) {
			sc.RunAsUser = user
		}
		if !sameUser {
			found.Add(finding.DifferentUsers, "containers %s run as different users, so the sidecar cannot read files with mode 0600; if there are any, set %s to the user that writes them", names(read), annotation(contract.KeyRunAsUser))
		}
	}
	sc.RunAsGroup = set.runAsGroup
	if sc.RunAsGroup == nil {
		if group, same := common(read, func(s source) *int64 { return p.group(s.Container) }); same && !equal(group, podGroup) {
			sc.RunAsGroup = group
		}
	}
	if linux, same := commonSELinux(read); same {
		sc.SELinuxOptions = linux
	}

	effective := sc.RunAsUser
	if effective == nil {
		effective = podUser
	}
	yes, no := true, false
	switch {
	case effective == nil || *effective != 0:
		sc.RunAsNonRoot = &yes
	case set.runAsUser != nil && !slices.ContainsFunc(read, func(s source) bool { return !p.nonRoot(s.Container) }):
		found.Add(finding.RootForbidden, "%s is \"0\", but the pod has runAsNonRoot: true; set it to the ID of the application's user", annotation(contract.KeyRunAsUser))
	case !p.podNonRoot():
	case set.runAsUser != nil:
		// The annotation asks for it, and a container that is read is an exception already.
		sc.RunAsNonRoot = &no
	default:
		// A container that runs as root is an exception, which its author made. The
		// sidecar does not become another one unasked.
		sc.RunAsUser, sc.RunAsNonRoot = nil, &yes
		if podUser != nil && *podUser == 0 {
			sc.RunAsUser = &imageUser
		}
		found.Add(finding.RootIsException, "the pod has runAsNonRoot: true, so the sidecar does not run as root, although %s does, and cannot read files with mode 0600; make the logs readable for others, or set %s to \"0\" if the sidecar should run as root too", names(read), annotation(contract.KeyRunAsUser))
	}
	return sc, found
}

// imageUser is the USER of the sidecar's image.
var imageUser int64 = contract.User

// checkProcesses warns where other processes see the sidecar's. What it does against them, it
// cannot do against a signal.
func checkProcesses(p *pod) (found finding.List) {
	field := ""
	switch share := p.Spec.ShareProcessNamespace; {
	case p.Spec.HostPID:
		field = "hostPID"
	case share != nil && *share:
		field = "shareProcessNamespace"
	default:
		return found
	}
	found.Add(finding.ProcessesShared, "with %s: true, the pod's other containers see the sidecar's processes: as its user or as root they can stop it, and as root with CAP_SYS_PTRACE they can read its volumes; if you do not trust them, remove %s or run them as another user", field, field)
	return found
}

func common(read []source, of func(source) *int64) (id *int64, same bool) {
	for i, s := range read {
		switch this := of(s); {
		case i == 0:
			id = this
		case !equal(id, this):
			return nil, false
		}
	}
	return id, true
}

func commonSELinux(read []source) (*corev1.SELinuxOptions, bool) {
	var first *corev1.SELinuxOptions
	for i, s := range read {
		var this *corev1.SELinuxOptions
		if s.SecurityContext != nil {
			this = s.SecurityContext.SELinuxOptions
		}
		switch {
		case i == 0:
			first = this
		case (first == nil) != (this == nil) || first != nil && *first != *this:
			return nil, false
		}
	}
	return first, true
}

func equal(a, b *int64) bool {
	return a == nil && b == nil || a != nil && b != nil && *a == *b
}

func names(of []source) finding.Words {
	var all []string
	for _, s := range of {
		all = append(all, s.Name)
	}
	return finding.Names(all)
}

// seeders are the init containers that copy what an image holds in a directory
// before our volume is mounted over it. Each runs the image and the user of its
// application container, with our program from the volume.
func seeders(p *pod, mounts []addition, limit resource.Quantity) []corev1.Container {
	var all []corev1.Container
	made := map[string]bool{}
	for _, a := range mounts {
		if len(a.seeded) == 0 {
			continue
		}
		s := a.source
		bin := path.Join(contract.Root, contract.BinDir)
		all = append(all, corev1.Container{
			Name:            seederName(p, s.Name, made),
			Image:           s.Image,
			ImagePullPolicy: s.ImagePullPolicy,
			Command:         a.seedArguments(limit),
			Resources:       computeOnly(s.Resources),
			SecurityContext: seederRights(p, s.Container),
			VolumeMounts: []corev1.VolumeMount{
				{Name: contract.Volume, MountPath: bin, SubPath: contract.BinDir, ReadOnly: true},
				{Name: contract.Volume, MountPath: path.Join(contract.Root, s.Name), SubPath: s.Name},
				noToken(),
			},
		})
	}
	return all
}

// seederRights copies the user and restricts the rest. Capabilities are dropped as
// the application container drops them: an image whose program starts as root and
// changes to another user may have a log directory of that other user, and only
// root with its usual capabilities can read it and hand it on.
func seederRights(p *pod, c *corev1.Container) *corev1.SecurityContext {
	sc := restricted()
	if own := c.SecurityContext; own != nil {
		sc.RunAsUser, sc.RunAsGroup, sc.RunAsNonRoot = own.RunAsUser, own.RunAsGroup, own.RunAsNonRoot
		sc.SELinuxOptions = own.SELinuxOptions
	}
	user := p.user(c)
	if p.nonRoot(c) || user != nil && *user != 0 {
		return sc
	}
	sc.Capabilities = nil
	if own := c.SecurityContext; own != nil && own.Capabilities != nil && len(own.Capabilities.Drop) > 0 {
		sc.Capabilities = &corev1.Capabilities{Drop: own.Capabilities.Drop}
	}
	return sc
}

// seederName is at most 63 characters long and no other container's. The hash keeps
// two names apart that are equal where they are cut.
func seederName(p *pod, of string, made map[string]bool) string {
	taken := func(name string) bool {
		_, user := p.source(name)
		return user || made[name]
	}
	name := contract.SeedContainerPrefix + of
	for salt := 0; len(name) > 63 || taken(name); salt++ {
		sum := sha256.Sum256([]byte(of + strings.Repeat(".", salt)))
		name = contract.SeedContainerPrefix + of[:min(len(of), 63-len(contract.SeedContainerPrefix)-9)] + "-" + hex.EncodeToString(sum[:4])
	}
	made[name] = true
	return name
}
