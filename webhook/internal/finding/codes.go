package finding

// The codes. Their first two digits are the subject. A number is never given to another meaning.
const (
	// Annotations.
	UnknownAnnotation   Code = "LB0101"
	InvalidValue        Code = "LB0102"
	InvalidEntry        Code = "LB0103"
	SettingWithoutFiles Code = "LB0104"
	EntryForBothStreams Code = "LB0105"
	RequestAboveLimit   Code = "LB0106"
	AnnotationsTooLong  Code = "LB0107"
	ImplausibleQuantity Code = "LB0108"

	// Containers, volumes and names.
	UnknownContainer        Code = "LB0201"
	ContainerNameTaken      Code = "LB0202"
	VolumeNameTaken         Code = "LB0203"
	UnknownDefaultContainer Code = "LB0204"
	VolumeMounted           Code = "LB0205"
	LeftoversDiffer         Code = "LB0206"
	PodTooLarge             Code = "LB0207"
	NameTooLong             Code = "LB0208"
	AdditionsTooLarge       Code = "LB0209"
	MountedBeforeSidecar    Code = "LB0210"
	SeededBeforeSidecar     Code = "LB0211"

	// Sharing.
	VolumeCannotHoldLogs     Code = "LB0301"
	MountIsReadOnly          Code = "LB0302"
	PathIsMountPoint         Code = "LB0303"
	PathIsDirectory          Code = "LB0304"
	VariableUnavailable      Code = "LB0305"
	SystemDirectory          Code = "LB0306"
	FileInStickyDirectory    Code = "LB0307"
	FileMountOfGlob          Code = "LB0308"
	PathNotMountable         Code = "LB0309"
	KubeletFile              Code = "LB0310"
	PathOnBlockDevice        Code = "LB0311"
	PathThroughLink          Code = "LB0312"
	VolumeOfSeveralPods      Code = "LB0313"
	ImageDirectoryHidden     Code = "LB0314"
	ReclaimWithoutEffect     Code = "LB0315"
	TooManyGlobs             Code = "LB0316"
	SystemFile               Code = "LB0317"
	VolumeIsReadOnly         Code = "LB0318"
	SharedMemory             Code = "LB0319"
	DirectoryOutlivesRestart Code = "LB0320"
	ReclaimOfMoreThanLogs    Code = "LB0321"

	// Rights and resources of the sidecar.
	DifferentUsers              Code = "LB0401"
	RootForbidden               Code = "LB0402"
	GuaranteedLost              Code = "LB0403"
	PodHasResources             Code = "LB0404"
	QuantityOutOfRange          Code = "LB0405"
	ProcessesShared             Code = "LB0406"
	RootIsException             Code = "LB0407"
	EphemeralLimitAdded         Code = "LB0410"
	EphemeralLimitWithoutEffect Code = "LB0411"
	FieldsDropped               Code = "LB0412"

	// Pods that are left alone.
	WindowsPod        Code = "LB0501"
	MirrorPod         Code = "LB0502"
	AnnotationsEdited Code = "LB0503"

	// Manifests.
	AnnotationOnWorkload Code = "LB0601"
	UnknownKind          Code = "LB0602"

	// Pods that run in a cluster.
	PodWithoutSidecar   Code = "LB0701"
	NamespaceExcluded   Code = "LB0702"
	ImageNotPulled      Code = "LB0703"
	ContainerNotRunning Code = "LB0704"
	SidecarIsOrdinary   Code = "LB0710"
	SidecarRemoved      Code = "LB0720"

	// The webhook of a cluster.
	NotInstalled         Code = "LB0801"
	NoCABundle           Code = "LB0802"
	CertificateRejected  Code = "LB0803"
	CertificateExpiring  Code = "LB0804"
	NoWebhookReady       Code = "LB0805"
	WebhookPodNotReady   Code = "LB0806"
	NotInjected          Code = "LB0807"
	ProbeRefused         Code = "LB0808"
	NotPermitted         Code = "LB0809"
	SeveralReleases      Code = "LB0821"
	RestartPolicyDropped Code = "LB0822"

	// Rules.
	RuleUnreadable        Code = "LB0901"
	RuleNameInvalid       Code = "LB0902"
	RuleSelectsEveryPod   Code = "LB0903"
	RuleSelectorInvalid   Code = "LB0904"
	RuleAnnotationInvalid Code = "LB0905"
	TooManyRules          Code = "LB0906"
	RuleShadowed          Code = "LB0907"
	RuleDoesNotFit        Code = "LB0910"
	RulesOverlap          Code = "LB0911"
	RuleUnknown           Code = "LB0912"
)

// Table documents each code, in the order of their numbers. docs/findings.md is made from it.
var Table = []Row{
	{UnknownAnnotation, Mistake, "Unknown annotation of log-bridge.dev", "Write the key that the sentence proposes, or take it away."},
	{InvalidValue, Mistake, "Value that the annotation cannot have", "Write one of the values that the sentence names."},
	{InvalidEntry, Mistake, "Entry that is not a path or a glob", "Write [container:]/absolute/path, without .. and control characters."},
	{SettingWithoutFiles, Warning, "Setting without log-bridge.dev/files", "Add log-bridge.dev/files, or take the setting away. The pod is left alone."},
	{EntryForBothStreams, Mistake, "Entry in both files and stderr-files", "Decide for one of the two: a line is written once."},
	{RequestAboveLimit, Mistake, "Request above the limit", "Raise the limit or lower the request."},
	{AnnotationsTooLong, Mistake, "Annotations that are too long together", "Take some away: Kubernetes takes at most 256 KiB for a pod."},
	{ImplausibleQuantity, Mistake, "Quantity of a unit that the resource does not have", "Write memory with Mi, cpu with m or without a suffix: 64m of memory is less than a byte."},
	{UnknownContainer, Mistake, "Container that the pod does not have", "Name one of the containers that the sentence lists."},
	{ContainerNameTaken, Mistake, "Foreign container named log-bridge", "Rename it: the sidecar has this name."},
	{VolumeNameTaken, Mistake, "Foreign volume named log-bridge", "Rename it: the sidecar's volume has this name."},
	{UnknownDefaultContainer, Mistake, "kubectl.kubernetes.io/default-container names no container of the pod", "Correct it, or name the container in the entry."},
	{VolumeMounted, Mistake, "Mount of the sidecar's volume", "Take the mount of a volume named log-bridge away: it would show the sidecar's own files."},
	{LeftoversDiffer, Mistake, "Parts of an earlier injection that do not fit", "Take all parts of log-bridge out of the manifest, or make the pod from the template it came from."},
	{PodTooLarge, Mistake, "Pod that is too large", "Make it smaller. A pod has at most 3.25 MiB of JSON, 30,000 fields and items, and 1,000 containers."},
	{NameTooLong, Mistake, "Name that is too long", "Shorten it. Kubernetes takes 63 characters for containers and volumes."},
	{AdditionsTooLarge, Mistake, "Additions that are too large", "Write fewer files, or globs for many."},
	{MountedBeforeSidecar, Warning, "Container that mounts log-bridge's volume before the sidecar starts", "Another webhook has added it. Where it saw a directory in place of a file, the kubelet cannot start it a second time. Let that webhook's configuration come first in the order of names, or have it add the container without the application's mounts."},
	{SeededBeforeSidecar, Mistake, "Seeding container before the sidecar", "Another webhook has changed the order of the init containers. It has to keep it."},
	{VolumeCannotHoldLogs, Mistake, "Volume that cannot hold logs", "Let the application write elsewhere, or mount an emptyDir there."},
	{MountIsReadOnly, Mistake, "Volume that the container mounts read-only", "Name the container that writes the file."},
	{PathIsMountPoint, Mistake, "Path at which a volume is mounted", "It is a directory: name the files in it."},
	{PathIsDirectory, Mistake, "File path that is a directory", "Something is mounted or named inside it: name the files in it."},
	{VariableUnavailable, Mistake, "subPathExpr with a variable that the sidecar cannot be given", "Define the variable in env of the container."},
	{SystemDirectory, Mistake, "Directory of the system", "Let the application write its logs to a directory of its own."},
	{FileInStickyDirectory, Mistake, "mount: file in a sticky directory", "Take log-bridge.dev/mount away, or set it to directory."},
	{FileMountOfGlob, Mistake, "mount: file with a glob", "Take log-bridge.dev/mount away, or name the files one by one."},
	{PathNotMountable, Mistake, "Path that Kubernetes cannot mount", "Use a path without a colon, and names of at most 255 bytes."},
	{KubeletFile, Mistake, "File that belongs to the kubelet", "Name a file that the application writes."},
	{PathOnBlockDevice, Mistake, "Path on a block device", "Name a file in a file system."},
	{PathThroughLink, Mistake, "Path through /var/run or /run where a volume has the other name", "Write the path with the name under which the volume is mounted."},
	{VolumeOfSeveralPods, Warning, "Volume that several pods may write", "Separate them with subPathExpr and a variable from metadata.name, or know that each sidecar prints the lines of all."},
	{ImageDirectoryHidden, Warning, "Directory of the image hidden with seed: false", "Take log-bridge.dev/seed away if the application needs what its image has there."},
	{ReclaimWithoutEffect, Warning, "reclaim where a volume of the pod holds the files", "Nothing is freed there, since the volume is not log-bridge's: let the application write elsewhere, or take log-bridge.dev/reclaim away."},
	{TooManyGlobs, Mistake, "Too many globs above too many mounts", "Name directories in which fewer volumes are mounted, or files."},
	{SystemFile, Mistake, "File of the system", "Name a log file: mounting one over a program or a setting of the image would hide it."},
	{VolumeIsReadOnly, Mistake, "Volume that the pod has for reading only", "Take readOnly away from the volume, or name a path that the container can write."},
	{SharedMemory, Mistake, "File in /dev/shm without a volume", "Mount a volume there, such as an emptyDir with medium: Memory."},
	{DirectoryOutlivesRestart, Warning, "Shared directory that may hold more than logs", "A restart of the container finds in it what the container left. Keep pid files, locks and sockets elsewhere, or share less: the log alone, or a directory of the logs' own."},
	{ReclaimOfMoreThanLogs, Warning, "reclaim with a glob that may match more than logs", "Write a glob that only logs match, such as /srv/app/*.log: what is delivered is freed, and reads as zeros afterwards."},
	{DifferentUsers, Warning, "Containers that run as different users", "Set log-bridge.dev/run-as-user if files with mode 0600 must be read."},
	{RootForbidden, Mistake, "run-as-user 0 where no container may be root", "Use the application's user."},
	{GuaranteedLost, Mistake, "Unequal request and limit in a Guaranteed pod", "Make them equal: the pod would lose its QoS class."},
	{PodHasResources, Note, "Resources of the pod as a whole", "The sidecar lives in the pod's budget and has no requests of its own."},
	{QuantityOutOfRange, Mistake, "Quantity that cannot be compared", "Write it with a suffix, such as 64Mi or 100m."},
	{ProcessesShared, Warning, "Processes that can reach the sidecar", "Nothing, if the pod's containers trust one another: with shareProcessNamespace or hostPID, a process of the same user or of root can stop the sidecar."},
	{RootIsException, Warning, "Root by exception", "Let the application write logs that others may read, or set log-bridge.dev/run-as-user to 0."},
	{EphemeralLimitAdded, Note, "Ephemeral-storage limit of the pod", "Nothing. The sidecar's log counts, so the sidecar has a limit of its own; log-bridge.dev/ephemeral-storage-limit changes it."},
	{EphemeralLimitWithoutEffect, Warning, "ephemeral-storage-limit in a pod without such a limit", "Take log-bridge.dev/ephemeral-storage-limit away: without it the pod's ephemeral storage has no limit."},
	{FieldsDropped, Warning, "Sidecar whose fields another webhook has dropped", "Nothing at once: log-bridge puts them back. Update the other webhook, whose Kubernetes types are too old."},
	{WindowsPod, Warning, "Pod on Windows", "Nothing: the sidecar runs on Linux."},
	{MirrorPod, Warning, "Mirror of a static pod", "Run inject on the manifest on the node."},
	{AnnotationsEdited, Warning, "Annotations edited after the injection", "Take the log-bridge parts out of the manifest, or edit the template."},
	{AnnotationOnWorkload, Mistake, "Annotation on a workload rather than on its pod template", "Move it to spec.template.metadata.annotations. Only check and inject look there."},
	{UnknownKind, Warning, "Annotation in an object that check and inject do not look into", "Correct apiVersion and kind. With a kind that is not Kubernetes' own there is nothing to do: the webhook sees its pods."},
	{PodWithoutSidecar, Mistake, "Annotated pod that runs without the sidecar", "Delete the pod, so that its controller creates it again. It was made while no webhook answered, or before log-bridge was installed."},
	{NamespaceExcluded, Warning, "Annotated pod in a namespace that is left out", "Take the label log-bridge.dev/inject=false from the namespace, or the namespace out of the chart's webhook.excludedNamespaces; then delete the pod."},
	{ImageNotPulled, Mistake, "Sidecar's image that a node cannot pull", "Keep the image where the node can pull it: image.repository, image.digest and prePull of the chart."},
	{ContainerNotRunning, Mistake, "Container of log-bridge that does not start or does not stay", "Read the sentence in its log, which names the remedy."},
	{SidecarIsOrdinary, Mistake, "Sidecar that is an ordinary init container", "Update the webhook that drops restartPolicy from containers, then delete the pod."},
	{SidecarRemoved, Mistake, "Injected pod whose sidecar was removed", "Another webhook has removed the container log-bridge: have it leave that alone. Or the pod is a copy without its init containers: kubectl debug --copy-to needs --keep-init-containers=true."},
	{NotInstalled, Mistake, "Cluster without log-bridge", "Install the chart."},
	{NoCABundle, Mistake, "MutatingWebhookConfiguration without a usable caBundle", "Certificates of mode self: the webhook writes it, so look at its pods. cert-manager: look at its cainjector. provided: set certificates.provided.caBundle."},
	{CertificateRejected, Mistake, "Certificate that the API server does not accept", "Renew it, or put the authority that signed it into the caBundle, as the sentence says."},
	{CertificateExpiring, Warning, "Certificate that ends soon", "Renew it. In the modes self and cert-manager that should have happened by itself: look at the webhook's log, or at cert-manager's Certificate."},
	{NoWebhookReady, Mistake, "Webhook of which no pod is ready", "Look at the pods that the sentence names."},
	{WebhookPodNotReady, Warning, "Webhook pod that is not ready", "Look at the pod. The others serve meanwhile."},
	{NotInjected, Mistake, "Webhook that does not inject", "If its pods are ready, the API server cannot reach them: a firewall or a NetworkPolicy has to let it reach webhook.port; where it cannot reach pods at all, set webhook.hostNetwork."},
	{ProbeRefused, Warning, "Probe that somebody else refuses", "Read the sentence: a quota, a policy or another webhook refuses the probe, and may refuse annotated pods too."},
	{NotPermitted, Warning, "Part that you may not look at", "Ask for the permission that the sentence names, or have somebody check who has it."},
	{SeveralReleases, Warning, "Several releases of log-bridge", "Uninstall all but one, or give each its own namespaces with webhook.excludedNamespaces."},
	{RestartPolicyDropped, Mistake, "Webhook that drops restartPolicy", "Update the other webhook, whose Kubernetes types are too old, or set its reinvocationPolicy to Never, so that log-bridge's second call mends the pod."},
	{RuleUnreadable, Mistake, "Rule that cannot be read", "Write a list of rules, each with `name`, `namespaceSelector`, `podSelector` and `annotations`."},
	{RuleNameInvalid, Mistake, "Name that a rule cannot have", "Give each rule a name of its own, of lower-case letters, digits and hyphens."},
	{RuleSelectsEveryPod, Mistake, "Rule that would select every pod", "Write a namespaceSelector or a podSelector."},
	{RuleSelectorInvalid, Mistake, "Selector that Kubernetes does not accept", "Correct it as the sentence says: `matchLabels`, or `matchExpressions` with In, NotIn, Exists or DoesNotExist."},
	{RuleAnnotationInvalid, Mistake, "Annotation that a rule cannot have", "Write a key and a value that a pod could have, without the domain log-bridge.dev."},
	{TooManyRules, Mistake, "Too many rules", "Let one rule select more pods, with matchExpressions. There may be 200."},
	{RuleShadowed, Warning, "Rule with the selectors of an earlier one", "Join the two: the first one decides about all their pods."},
	{RuleDoesNotFit, Warning, "Rule that does not fit a pod", "The pod was created as if there were no rule. Correct the rule, or select fewer pods with it, then create the pod again."},
	{RulesOverlap, Warning, "Pod that several rules select", "Nothing, if the first of them is right. Otherwise change their order or their selectors."},
	{RuleUnknown, Warning, "Rule that the webhook does not know", "A new rule reaches the webhook within about a minute: create the pod again. If it stays, see the metric log_bridge_rules_unreadable and the webhook's log."},
}
