package inject

import "github.com/log-bridge/log-bridge/sidecar/contract"

// Severity is what a finding leads to.
type Severity string

// The severities.
const (
	// Mistake: the pod is refused until it is put right. In a cluster: something does
	// not work.
	Mistake Severity = "mistake"
	// Warning: the pod is admitted; something will probably not be as wanted.
	Warning Severity = "warning"
	// Note: how things are, for the reader of `check`.
	Note Severity = "note"
)

// Code numbers a kind of finding. A number is never given to another kind.
type Code string

// Finding is one thing to tell the user.
type Finding struct {
	Code Code
	// Text is a sentence: what is wrong, where, and the remedy.
	Text string
}

// String is the sentence with its number behind it. It stays one line whatever names it holds: the API server passes it
// on to terminals, in errors, warnings and events.
func (f Finding) String() string { return contract.Line(f.Text) + " [" + string(f.Code) + "]" }

// Severity of the finding.
func (f Finding) Severity() Severity {
	if s, ok := severities[f.Code]; ok {
		return s
	}
	return Mistake
}

var severities = func() map[Code]Severity {
	all := map[Code]Severity{}
	for _, row := range Codes {
		all[row.Code] = row.Severity
	}
	return all
}()

// Row documents a Code.
type Row struct {
	Code     Code
	Severity Severity
	// Title is what is the matter, in a few words.
	Title string
	// Remedy is what to do.
	Remedy string
}

// The codes. 01: annotations. 02: containers and names. 03: sharing. 04: the
// sidecar's rights and resources. 05: pods left alone. 06: manifests. 07: pods that
// run in a cluster. 08: the webhook of a cluster. 09: rules.
const (
	LB0101 Code = "LB0101"
	LB0102 Code = "LB0102"
	LB0103 Code = "LB0103"
	LB0104 Code = "LB0104"
	LB0105 Code = "LB0105"
	LB0106 Code = "LB0106"
	LB0107 Code = "LB0107"
	LB0108 Code = "LB0108"
	LB0201 Code = "LB0201"
	LB0202 Code = "LB0202"
	LB0203 Code = "LB0203"
	LB0204 Code = "LB0204"
	LB0205 Code = "LB0205"
	LB0206 Code = "LB0206"
	LB0207 Code = "LB0207"
	LB0208 Code = "LB0208"
	LB0209 Code = "LB0209"
	LB0210 Code = "LB0210"
	LB0211 Code = "LB0211"
	LB0301 Code = "LB0301"
	LB0302 Code = "LB0302"
	LB0303 Code = "LB0303"
	LB0304 Code = "LB0304"
	LB0305 Code = "LB0305"
	LB0306 Code = "LB0306"
	LB0307 Code = "LB0307"
	LB0308 Code = "LB0308"
	LB0309 Code = "LB0309"
	LB0310 Code = "LB0310"
	LB0311 Code = "LB0311"
	LB0312 Code = "LB0312"
	LB0313 Code = "LB0313"
	LB0314 Code = "LB0314"
	LB0315 Code = "LB0315"
	LB0316 Code = "LB0316"
	LB0317 Code = "LB0317"
	LB0318 Code = "LB0318"
	LB0319 Code = "LB0319"
	LB0320 Code = "LB0320"
	LB0321 Code = "LB0321"
	LB0401 Code = "LB0401"
	LB0402 Code = "LB0402"
	LB0403 Code = "LB0403"
	LB0404 Code = "LB0404"
	LB0405 Code = "LB0405"
	LB0406 Code = "LB0406"
	LB0407 Code = "LB0407"
	LB0410 Code = "LB0410"
	LB0411 Code = "LB0411"
	LB0412 Code = "LB0412"
	LB0501 Code = "LB0501"
	LB0502 Code = "LB0502"
	LB0503 Code = "LB0503"
	LB0601 Code = "LB0601"
	LB0602 Code = "LB0602"
	LB0701 Code = "LB0701"
	LB0702 Code = "LB0702"
	LB0703 Code = "LB0703"
	LB0704 Code = "LB0704"
	LB0710 Code = "LB0710"
	LB0720 Code = "LB0720"
	LB0801 Code = "LB0801"
	LB0802 Code = "LB0802"
	LB0803 Code = "LB0803"
	LB0804 Code = "LB0804"
	LB0805 Code = "LB0805"
	LB0806 Code = "LB0806"
	LB0807 Code = "LB0807"
	LB0808 Code = "LB0808"
	LB0809 Code = "LB0809"
	LB0821 Code = "LB0821"
	LB0822 Code = "LB0822"
	LB0901 Code = "LB0901"
	LB0902 Code = "LB0902"
	LB0903 Code = "LB0903"
	LB0904 Code = "LB0904"
	LB0905 Code = "LB0905"
	LB0906 Code = "LB0906"
	LB0907 Code = "LB0907"
	LB0910 Code = "LB0910"
	LB0911 Code = "LB0911"
	LB0912 Code = "LB0912"
)

// Codes is the table of findings, from which the reference is made.
var Codes = []Row{
	{LB0101, Mistake, "Unknown annotation of log-bridge.dev", "Write the key that the sentence proposes, or take it away."},
	{LB0102, Mistake, "Value that the annotation cannot have", "Write one of the values that the sentence names."},
	{LB0103, Mistake, "Entry that is not a path or a glob", "Write [container:]/absolute/path, without .. and control characters."},
	{LB0104, Warning, "Setting without log-bridge.dev/files", "Add log-bridge.dev/files, or take the setting away. The pod is left alone."},
	{LB0105, Mistake, "Entry in both files and stderr-files", "Decide for one of the two: a line is written once."},
	{LB0106, Mistake, "Request above the limit", "Raise the limit or lower the request."},
	{LB0107, Mistake, "Annotations that are too long together", "Take some away: Kubernetes takes at most 256 KiB for a pod."},
	{LB0108, Mistake, "Quantity of a unit that the resource does not have", "Write memory with Mi, cpu with m or without a suffix: 64m of memory is less than a byte."},
	{LB0201, Mistake, "Container that the pod does not have", "Name one of the containers that the sentence lists."},
	{LB0202, Mistake, "Foreign container named log-bridge", "Rename it: the sidecar has this name."},
	{LB0203, Mistake, "Foreign volume named log-bridge", "Rename it: the sidecar's volume has this name."},
	{LB0204, Mistake, "kubectl.kubernetes.io/default-container names no container of the pod", "Correct it, or name the container in the entry."},
	{LB0205, Mistake, "Mount of the sidecar's volume", "Take the mount of a volume named log-bridge away: it would show the sidecar's own files."},
	{LB0206, Mistake, "Parts of an earlier injection that do not fit", "Take all parts of log-bridge out of the manifest, or make the pod from the template it came from."},
	{LB0207, Mistake, "Pod that is too large", "Make it smaller. A pod has at most 3.25 MiB of JSON, 30,000 fields and items, and 1,000 containers."},
	{LB0208, Mistake, "Name that is too long", "Shorten it. Kubernetes takes 63 characters for containers and volumes."},
	{LB0209, Mistake, "Additions that are too large", "Write fewer files, or globs for many."},
	{LB0210, Warning, "Container that mounts log-bridge's volume before the sidecar starts", "Another webhook has added it. Where it saw a directory in place of a file, the kubelet cannot start it a second time. Let that webhook's configuration come first in the order of names, or have it add the container without the application's mounts."},
	{LB0211, Mistake, "Seeding container before the sidecar", "Another webhook has changed the order of the init containers. It has to keep it."},
	{LB0301, Mistake, "Volume that cannot hold logs", "Let the application write elsewhere, or mount an emptyDir there."},
	{LB0302, Mistake, "Volume that the container mounts read-only", "Name the container that writes the file."},
	{LB0303, Mistake, "Path at which a volume is mounted", "It is a directory: name the files in it."},
	{LB0304, Mistake, "File path that is a directory", "Something is mounted or named inside it: name the files in it."},
	{LB0305, Mistake, "subPathExpr with a variable that the sidecar cannot be given", "Define the variable in env of the container."},
	{LB0306, Mistake, "Directory of the system", "Let the application write its logs to a directory of its own."},
	{LB0307, Mistake, "mount: file in a sticky directory", "Take log-bridge.dev/mount away, or set it to directory."},
	{LB0308, Mistake, "mount: file with a glob", "Take log-bridge.dev/mount away, or name the files one by one."},
	{LB0309, Mistake, "Path that Kubernetes cannot mount", "Use a path without a colon, and names of at most 255 bytes."},
	{LB0310, Mistake, "File that belongs to the kubelet", "Name a file that the application writes."},
	{LB0311, Mistake, "Path on a block device", "Name a file in a file system."},
	{LB0312, Mistake, "Path through /var/run or /run where a volume has the other name", "Write the path with the name under which the volume is mounted."},
	{LB0313, Warning, "Volume that several pods may write", "Separate them with subPathExpr and a variable from metadata.name, or know that each sidecar prints the lines of all."},
	{LB0314, Warning, "Directory of the image hidden with seed: false", "Take log-bridge.dev/seed away if the application needs what its image has there."},
	{LB0315, Warning, "reclaim where a volume of the pod holds the files", "Nothing is freed there, since the volume is not log-bridge's: let the application write elsewhere, or take log-bridge.dev/reclaim away."},
	{LB0316, Mistake, "Too many globs above too many mounts", "Name directories in which fewer volumes are mounted, or files."},
	{LB0317, Mistake, "File of the system", "Name a log file: mounting one over a program or a setting of the image would hide it."},
	{LB0318, Mistake, "Volume that the pod has for reading only", "Take readOnly away from the volume, or name a path that the container can write."},
	{LB0319, Mistake, "File in /dev/shm without a volume", "Mount a volume there, such as an emptyDir with medium: Memory."},
	{LB0320, Warning, "Shared directory that may hold more than logs", "A restart of the container finds in it what the container left. Keep pid files, locks and sockets elsewhere, or share less: the log alone, or a directory of the logs' own."},
	{LB0321, Warning, "reclaim with a glob that may match more than logs", "Write a glob that only logs match, such as /srv/app/*.log: what is delivered is freed, and reads as zeros afterwards."},
	{LB0401, Warning, "Containers that run as different users", "Set log-bridge.dev/run-as-user if files with mode 0600 must be read."},
	{LB0402, Mistake, "run-as-user 0 where no container may be root", "Use the application's user."},
	{LB0403, Mistake, "Unequal request and limit in a Guaranteed pod", "Make them equal: the pod would lose its QoS class."},
	{LB0404, Note, "Resources of the pod as a whole", "The sidecar lives in the pod's budget and has no requests of its own."},
	{LB0405, Mistake, "Quantity that cannot be compared", "Write it with a suffix, such as 64Mi or 100m."},
	{LB0406, Warning, "Processes that can reach the sidecar", "Nothing, if the pod's containers trust one another: with shareProcessNamespace or hostPID, a process of the same user or of root can stop the sidecar."},
	{LB0407, Warning, "Root by exception", "Let the application write logs that others may read, or set log-bridge.dev/run-as-user to 0."},
	{LB0410, Note, "Ephemeral-storage limit of the pod", "Nothing. The sidecar's log counts, so the sidecar has a limit of its own; log-bridge.dev/ephemeral-storage-limit changes it."},
	{LB0411, Warning, "ephemeral-storage-limit in a pod without such a limit", "Take log-bridge.dev/ephemeral-storage-limit away: without it the pod's ephemeral storage has no limit."},
	{LB0412, Warning, "Sidecar whose fields another webhook has dropped", "Nothing at once: log-bridge puts them back. Update the other webhook, whose Kubernetes types are too old."},
	{LB0501, Warning, "Pod on Windows", "Nothing: the sidecar runs on Linux."},
	{LB0502, Warning, "Mirror of a static pod", "Run inject on the manifest on the node."},
	{LB0503, Warning, "Annotations edited after the injection", "Take the log-bridge parts out of the manifest, or edit the template."},
	{LB0601, Mistake, "Annotation on a workload rather than on its pod template", "Move it to spec.template.metadata.annotations. Only check and inject look there."},
	{LB0602, Warning, "Annotation in an object that check and inject do not look into", "Correct apiVersion and kind. With a kind that is not Kubernetes' own there is nothing to do: the webhook sees its pods."},
	{LB0701, Mistake, "Annotated pod that runs without the sidecar", "Delete the pod, so that its controller creates it again. It was made while no webhook answered, or before log-bridge was installed."},
	{LB0702, Warning, "Annotated pod in a namespace that is left out", "Take the label log-bridge.dev/inject=false from the namespace, or the namespace out of the chart's webhook.excludedNamespaces; then delete the pod."},
	{LB0703, Mistake, "Sidecar's image that a node cannot pull", "Keep the image where the node can pull it: image.repository, image.digest and prePull of the chart."},
	{LB0704, Mistake, "Container of log-bridge that does not start or does not stay", "Read the sentence in its log, which names the remedy."},
	{LB0710, Mistake, "Sidecar that is an ordinary init container", "Update the webhook that drops restartPolicy from containers, then delete the pod."},
	{LB0720, Mistake, "Injected pod whose sidecar was removed", "Another webhook has removed the container log-bridge: have it leave that alone. Or the pod is a copy without its init containers: kubectl debug --copy-to needs --keep-init-containers=true."},
	{LB0801, Mistake, "Cluster without log-bridge", "Install the chart."},
	{LB0802, Mistake, "MutatingWebhookConfiguration without a usable caBundle", "Certificates of mode self: the webhook writes it, so look at its pods. cert-manager: look at its cainjector. provided: set certificates.provided.caBundle."},
	{LB0803, Mistake, "Certificate that the API server does not accept", "Renew it, or put the authority that signed it into the caBundle, as the sentence says."},
	{LB0804, Warning, "Certificate that ends soon", "Renew it. In the modes self and cert-manager that should have happened by itself: look at the webhook's log, or at cert-manager's Certificate."},
	{LB0805, Mistake, "Webhook of which no pod is ready", "Look at the pods that the sentence names."},
	{LB0806, Warning, "Webhook pod that is not ready", "Look at the pod. The others serve meanwhile."},
	{LB0807, Mistake, "Webhook that does not inject", "If its pods are ready, the API server cannot reach them: a firewall or a NetworkPolicy has to let it reach webhook.port; where it cannot reach pods at all, set webhook.hostNetwork."},
	{LB0808, Warning, "Probe that somebody else refuses", "Read the sentence: a quota, a policy or another webhook refuses the probe, and may refuse annotated pods too."},
	{LB0809, Warning, "Part that you may not look at", "Ask for the permission that the sentence names, or have somebody check who has it."},
	{LB0821, Warning, "Several releases of log-bridge", "Uninstall all but one, or give each its own namespaces with webhook.excludedNamespaces."},
	{LB0822, Mistake, "Webhook that drops restartPolicy", "Update the other webhook, whose Kubernetes types are too old, or set its reinvocationPolicy to Never, so that log-bridge's second call mends the pod."},
	{LB0901, Mistake, "Rule that cannot be read", "Write a list of rules, each with `name`, `namespaceSelector`, `podSelector` and `annotations`."},
	{LB0902, Mistake, "Name that a rule cannot have", "Give each rule a name of its own, of lower-case letters, digits and hyphens."},
	{LB0903, Mistake, "Rule that would select every pod", "Write a namespaceSelector or a podSelector."},
	{LB0904, Mistake, "Selector that Kubernetes does not accept", "Correct it as the sentence says: `matchLabels`, or `matchExpressions` with In, NotIn, Exists or DoesNotExist."},
	{LB0905, Mistake, "Annotation that a rule cannot have", "Write a key and a value that a pod could have, without the domain log-bridge.dev."},
	{LB0906, Mistake, "Too many rules", "Let one rule select more pods, with matchExpressions. There may be 200."},
	{LB0907, Warning, "Rule with the selectors of an earlier one", "Join the two: the first one decides about all their pods."},
	{LB0910, Warning, "Rule that does not fit a pod", "The pod was created as if there were no rule. Correct the rule, or select fewer pods with it, then create the pod again."},
	{LB0911, Warning, "Pod that several rules select", "Nothing, if the first of them is right. Otherwise change their order or their selectors."},
	{LB0912, Warning, "Rule that the webhook does not know", "A new rule reaches the webhook within about a minute: create the pod again. If it stays, see the metric log_bridge_rules_unreadable and the webhook's log."},
}
