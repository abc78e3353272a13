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
	RestartForRule        Code = "LB0913"
	RuleNotRegistered     Code = "LB0914"
)

// Table documents each code, in the order of their numbers. docs/findings.md is made from it.
var Table = []Row{
	{UnknownAnnotation, Mistake, "Unknown log-bridge.dev annotation", "Use the key that the message suggests, or remove the annotation."},
	{InvalidValue, Mistake, "Invalid value of an annotation", "Use one of the values in the message."},
	{InvalidEntry, Mistake, "Entry that is not a path or a glob", "Write [container:]/absolute/path, without .. and control characters."},
	{SettingWithoutFiles, Warning, "Setting without log-bridge.dev/files", "Add log-bridge.dev/files, or remove the setting. The pod is left unchanged."},
	{EntryForBothStreams, Mistake, "Entry in both files and stderr-files", "Remove it from one of the two: each line is written once."},
	{RequestAboveLimit, Mistake, "Request above the limit", "Raise the limit or lower the request."},
	{AnnotationsTooLong, Mistake, "Annotations that are too long in total", "Remove some: Kubernetes allows 256 KiB per pod."},
	{ImplausibleQuantity, Mistake, "Quantity in the wrong unit", "Write memory with Mi, and CPU with m or without a suffix: 64m of memory is less than one byte."},
	{UnknownContainer, Mistake, "Container that the pod does not have", "Name one of the containers in the message."},
	{ContainerNameTaken, Mistake, "Another container named log-bridge", "Rename it: the sidecar needs this name."},
	{VolumeNameTaken, Mistake, "Another volume named log-bridge", "Rename it: the sidecar's volume needs this name."},
	{UnknownDefaultContainer, Mistake, "kubectl.kubernetes.io/default-container names no container of the pod", "Correct it, or name the container in the entry."},
	{VolumeMounted, Mistake, "Mount of the sidecar's volume", "Remove the mount of the volume named log-bridge: it would expose the sidecar's own files."},
	{LeftoversDiffer, Mistake, "Leftovers of an earlier injection that do not match", "Remove all parts of log-bridge from the manifest, or create the pod from its template."},
	{PodTooLarge, Mistake, "Pod that is too large", "Make it smaller. A pod may have 3.25 MiB of JSON, 30,000 fields and items, and 1,000 containers."},
	{NameTooLong, Mistake, "Name that is too long", "Shorten it. Kubernetes allows 63 characters for containers and volumes."},
	{AdditionsTooLarge, Mistake, "Too much to add", "List fewer files, or use globs."},
	{MountedBeforeSidecar, Warning, "Container that mounts the log-bridge volume before the sidecar starts", "Another webhook has added it. If it saw a directory in place of a file, the kubelet cannot restart it. Give that webhook's configuration a name that sorts first, or have it add the container without the application's mounts."},
	{SeededBeforeSidecar, Mistake, "Seeding container before the sidecar", "Another webhook has reordered the init containers. Make it keep their order."},
	{VolumeCannotHoldLogs, Mistake, "Volume that cannot hold logs", "Let the application write elsewhere, or mount an emptyDir there."},
	{MountIsReadOnly, Mistake, "Volume that the container mounts read-only", "Name the container that writes the file."},
	{PathIsMountPoint, Mistake, "Path where a volume is mounted", "It is a directory: name the files in it."},
	{PathIsDirectory, Mistake, "File path that is a directory", "Something is mounted or named inside it: name the files in it."},
	{VariableUnavailable, Mistake, "subPathExpr with a variable that the sidecar cannot get", "Define the variable in env of the container."},
	{SystemDirectory, Mistake, "System directory", "Let the application write its logs to a directory of its own."},
	{FileInStickyDirectory, Mistake, "mount: file in a sticky directory", "Remove log-bridge.dev/mount, or set it to directory."},
	{FileMountOfGlob, Mistake, "mount: file with a glob", "Remove log-bridge.dev/mount, or list the files one by one."},
	{PathNotMountable, Mistake, "Path that Kubernetes cannot mount", "Use a path without a colon, and file names of at most 255 bytes."},
	{KubeletFile, Mistake, "File of the kubelet", "Name a file that the application writes."},
	{PathOnBlockDevice, Mistake, "Path on a block device", "Name a file in a file system."},
	{PathThroughLink, Mistake, "Path through /var/run or /run that bypasses a volume", "Write the path under which the volume is mounted."},
	{VolumeOfSeveralPods, Warning, "Volume that several pods may write to", "Separate the pods with subPathExpr and a variable from metadata.name; otherwise each sidecar prints the lines of all."},
	{ImageDirectoryHidden, Warning, "Image directory hidden by seed: false", "Remove log-bridge.dev/seed if the application needs the files that its image has there."},
	{ReclaimWithoutEffect, Warning, "reclaim for files in a volume of the pod", "It has no effect there: let the application write elsewhere, or remove log-bridge.dev/reclaim."},
	{TooManyGlobs, Mistake, "Too many globs above too many mounts", "Name directories with fewer volume mounts, or files."},
	{SystemFile, Mistake, "System file", "Name a log file: one that is mounted over a program or a configuration file of the image would hide it."},
	{VolumeIsReadOnly, Mistake, "Read-only volume", "Remove readOnly from the volume, or name a path that the container can write to."},
	{SharedMemory, Mistake, "File in /dev/shm without a volume", "Mount a volume there, such as an emptyDir with medium: Memory."},
	{DirectoryOutlivesRestart, Warning, "Shared directory that may contain more than logs", "All its files survive a restart of the container. Keep PID files, locks and sockets elsewhere, or share less: the log alone, or a directory for logs only."},
	{ReclaimOfMoreThanLogs, Warning, "reclaim with a glob that may match more than logs", "Use a glob that matches only logs, such as /srv/app/*.log: what is delivered is freed, and reads as zeros afterwards."},
	{DifferentUsers, Warning, "Containers that run as different users", "Set log-bridge.dev/run-as-user if the sidecar must read files with mode 0600."},
	{RootForbidden, Mistake, "run-as-user 0 where the pod forbids root", "Use the application's user."},
	{GuaranteedLost, Mistake, "Request and limit that differ in a Guaranteed pod", "Make them equal: otherwise the pod would lose its QoS class."},
	{PodHasResources, Note, "Pod-level resources", "The sidecar shares them and has no requests of its own."},
	{QuantityOutOfRange, Mistake, "Quantity that is too large", "Write it with a suffix, such as 64Mi or 100m."},
	{ProcessesShared, Warning, "Processes that can reach the sidecar", "No action if the pod's containers trust one another: with shareProcessNamespace or hostPID, a process of the same user or of root can stop the sidecar."},
	{RootIsException, Warning, "Container that is an exception to runAsNonRoot", "Make the logs readable for others, or set log-bridge.dev/run-as-user to 0."},
	{EphemeralLimitAdded, Note, "Ephemeral-storage limit of the pod", "No action. The sidecar's log counts, so the sidecar gets a limit of its own; log-bridge.dev/ephemeral-storage-limit changes it."},
	{EphemeralLimitWithoutEffect, Warning, "ephemeral-storage-limit in a pod without such a limit", "Remove log-bridge.dev/ephemeral-storage-limit: without it, the pod's ephemeral storage stays unlimited."},
	{FieldsDropped, Warning, "Fields of the sidecar that another webhook dropped", "No immediate action: log-bridge restores them. Update the other webhook, whose Kubernetes types are too old."},
	{WindowsPod, Warning, "Windows pod", "No action: the sidecar needs Linux."},
	{MirrorPod, Warning, "Mirror pod of a static pod", "Run inject on the manifest on the node."},
	{AnnotationsEdited, Warning, "Annotations edited after the injection", "Remove all parts of log-bridge from the manifest, or edit the template."},
	{AnnotationOnWorkload, Mistake, "Annotation on a workload instead of its pod template", "Move it to spec.template.metadata.annotations. Only check, inject and the policy of the chart report this."},
	{UnknownKind, Warning, "Annotation in an object that check and inject do not read", "Correct apiVersion and kind. For a custom resource no action is needed: the webhook sees its pods."},
	{PodWithoutSidecar, Mistake, "Annotated pod that runs without the sidecar", "Delete the pod, so that its controller creates it again. It was created while no webhook answered, or before log-bridge was installed."},
	{NamespaceExcluded, Warning, "Annotated pod in an excluded namespace", "Remove the label log-bridge.dev/inject=false from the namespace, or the namespace from the chart's webhook.excludedNamespaces; then delete the pod."},
	{ImageNotPulled, Mistake, "Sidecar image that a node cannot pull", "Put the image where the node can pull it: image.repository, image.digest and prePull of the chart."},
	{ContainerNotRunning, Mistake, "Container of log-bridge that does not start or keeps ending", "Read its log, which has the reason and the fix."},
	{SidecarIsOrdinary, Mistake, "Sidecar that is an ordinary init container", "Update the webhook that drops restartPolicy from containers, then delete the pod."},
	{SidecarRemoved, Mistake, "Injected pod whose sidecar was removed", "If another webhook removed the container log-bridge, make it keep that container. If the pod is a copy, copy the init containers too: kubectl debug --copy-to needs --keep-init-containers=true."},
	{NotInstalled, Mistake, "Cluster without log-bridge", "Install the chart."},
	{NoCABundle, Mistake, "MutatingWebhookConfiguration without a usable caBundle", "certificates.mode self: check the webhook's pods, which write it. cert-manager: check its cainjector. provided: set certificates.provided.caBundle."},
	{CertificateRejected, Mistake, "Certificate that the API server does not accept", "Renew it, or add the CA that signed it to the caBundle, as the message says."},
	{CertificateExpiring, Warning, "Certificate that expires soon", "Renew it. In the modes self and cert-manager this should have happened automatically: check the webhook's log, or cert-manager's Certificate."},
	{NoWebhookReady, Mistake, "No ready webhook pod", "Check the pods in the message."},
	{WebhookPodNotReady, Warning, "Webhook pod that is not ready", "Check the pod. The others serve in the meantime."},
	{NotInjected, Mistake, "Webhook that does not inject", "If its pods are ready, the API server cannot reach them: allow it to reach webhook.port in firewalls and NetworkPolicies; if it cannot reach pods at all, set webhook.hostNetwork."},
	{ProbeRefused, Warning, "Probe that is refused", "Read the message: a quota, a policy or another webhook refuses the probe, and may refuse annotated pods too."},
	{NotPermitted, Warning, "Missing permission", "Ask for the permission in the message, or have somebody check who has it."},
	{SeveralReleases, Warning, "Several releases of log-bridge", "Uninstall all but one, or give each its own namespaces with webhook.excludedNamespaces."},
	{RestartPolicyDropped, Mistake, "Webhook that drops restartPolicy", "Update the other webhook, whose Kubernetes types are too old, or set its reinvocationPolicy to Never, so that log-bridge's second call restores the field."},
	{RuleUnreadable, Mistake, "Unreadable rule", "Write a list of rules, each with `name`, `namespaceSelector`, `podSelector` and `annotations`."},
	{RuleNameInvalid, Mistake, "Invalid name of a rule", "Give each rule a unique name of lower-case letters, digits and hyphens."},
	{RuleSelectsEveryPod, Mistake, "Rule that would select every pod", "Add a namespaceSelector or a podSelector."},
	{RuleSelectorInvalid, Mistake, "Invalid selector of a rule", "Correct it as the message says: `matchLabels`, or `matchExpressions` with In, NotIn, Exists or DoesNotExist."},
	{RuleAnnotationInvalid, Mistake, "Invalid annotation of a rule", "Write a key and a value that a pod could have, without the prefix log-bridge.dev/."},
	{TooManyRules, Mistake, "Too many rules", "Let one rule select more pods, with matchExpressions. The limit is 200."},
	{RuleShadowed, Warning, "Rule with the selectors of an earlier one", "Merge the two: the first one decides about all their pods."},
	{RuleDoesNotFit, Warning, "Rule that does not fit a pod", "The pod was created as if the rule did not exist. Correct the rule, or select fewer pods with it, then create the pod again."},
	{RulesOverlap, Warning, "Pod that several rules select", "No action if the first of them is right. Otherwise change their order or their selectors."},
	{RuleUnknown, Warning, "Rule that the webhook does not know", "A new rule reaches the webhook within about a minute: create the pod again. If the warning stays, check the metric log_bridge_rules_unreadable and the webhook's log."},
	{RestartForRule, Warning, "Pod that its rules would make different now", "Restart its workload, for example with `kubectl rollout restart`. Its pods are then created by the rules as they are now."},
	{RuleNotRegistered, Warning, "Rule that is in only one of its two objects", "Run helm upgrade, which writes both. If you write them by hand, give the rule a webhook in the MutatingWebhookConfiguration and an item in the ConfigMap."},
}
