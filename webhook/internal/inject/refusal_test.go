package inject_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/log-bridge/log-bridge/webhook/internal/inject"
)

// TestSayings has a line or more for each code: annotations and a pod, and each
// sentence that is said.
func TestSayings(t *testing.T) {
	var long strings.Builder
	for i := range 80 {
		fmt.Fprintf(&long, "{name: v, mountPath: /logs/%d, subPath: %s}, ", i, strings.Repeat("a", 4000))
	}
	const app = "containers: [{name: app, image: a}]"
	mounted := func(mount, volume string) string {
		return "containers: [{name: app, image: a, volumeMounts: [{name: v, " + mount + "}]}, {name: writer, image: w, volumeMounts: [{name: v, mountPath: /w}]}]\nvolumes: [{name: v, " + volume + "}]"
	}
	const ours = "log-bridge.dev/files: /app/app.log\nlog-bridge.dev/status: '{\"entries\":[{\"entry\":\"app:/app/app.log\"}]}'"
	const has = "containers: [{name: app, image: a}]\ninitContainers: [{name: log-bridge, image: s, restartPolicy: Always, volumeMounts: [{name: log-bridge, mountPath: /log-bridge}]}]\nvolumes: [{name: log-bridge, emptyDir: {}}]"
	files := func(v string) string { return "log-bridge.dev/files: " + v }
	for _, c := range []struct {
		name, annotations, spec string
		want                    []string
	}{
		{"a misspelt key, though nothing is asked", "log-bridge.dev/file: /app/app.log", app, []string{
			"log-bridge.dev/file: there is no such annotation; did you mean log-bridge.dev/files? [LB0101]"}},
		{"a key nobody can guess", files("/x\nlog-bridge.dev/wibble: x"), app, []string{
			"log-bridge.dev/wibble: unknown annotation; after log-bridge.dev/, these are known: cpu-limit, cpu-request, ephemeral-storage-limit, ephemeral-storage-request, files, format, inject, memory-limit, memory-request, mount, reclaim, run-as-group, run-as-user, seed, size-limit, status, stderr-files [LB0101]"}},
		{"a word that is not in the list", files("/x\nlog-bridge.dev/mount: volume"), app, []string{
			`log-bridge.dev/mount: "volume" is none of auto, file, directory [LB0102]`}},
		{"no boolean", files("/x\nlog-bridge.dev/reclaim: 'yes'"), app, []string{
			`log-bridge.dev/reclaim: "yes" is neither "true" nor "false" [LB0102]`}},
		{"inject with neither word", files("/x\nlog-bridge.dev/inject: 'no'"), app, []string{
			`log-bridge.dev/inject: "no" is neither "true" nor "false" [LB0102]`}},
		{"no quantity", files("/x\nlog-bridge.dev/memory-limit: 64 MB"), app, []string{
			`log-bridge.dev/memory-limit: "64 MB" is not a quantity; write one such as 64Mi [LB0102]`}},
		{"a quantity of zero", files("/x\nlog-bridge.dev/cpu-limit: '0'"), app, []string{
			`log-bridge.dev/cpu-limit: "0" is not above zero; write a quantity such as 100m, or take the annotation away [LB0102]`}},
		{"a negative quantity", files("/x\nlog-bridge.dev/size-limit: '-1'"), app, []string{
			`log-bridge.dev/size-limit: "-1" is not above zero; write a quantity such as 1Gi, or take the annotation away [LB0102]`}},
		{"a negative request", files("/x\nlog-bridge.dev/cpu-request: -5m"), app, []string{
			`log-bridge.dev/cpu-request: "-5m" is below zero; write a quantity such as 100m, or 0 [LB0102]`}},
		{"no id", files("/x\nlog-bridge.dev/run-as-user: nginx"), app, []string{
			`log-bridge.dev/run-as-user: "nginx" is not a numeric id; write a number from 0 to 2147483647 [LB0102]`}},
		{"an id out of range", files("/x\nlog-bridge.dev/run-as-group: '2147483648'"), app, []string{
			`log-bridge.dev/run-as-group: "2147483648" is not a numeric id; write a number from 0 to 2147483647 [LB0102]`}},
		{"all mistakes are told at once", files("app.log\nlog-bridge.dev/seed: x"), app, []string{
			`log-bridge.dev/files: "app.log" is not an absolute path; write the whole path, such as /app/app.log [LB0103]`,
			`log-bridge.dev/seed: "x" is neither "true" nor "false" [LB0102]`}},
		{"no entry", files("','"), app, []string{
			"log-bridge.dev/files: names no file; write the path of a log file, such as /app/app.log [LB0103]"}},
		{"stdout", files("/dev/stdout"), app, []string{
			`log-bridge.dev/files: "/dev/stdout" already is the container's own stdout; kubectl logs shows it without log-bridge, so take the entry out [LB0103]`}},
		{"a setting without files", "log-bridge.dev/format: json", app, []string{
			"log-bridge.dev/format does nothing without log-bridge.dev/files; the pod is left as it is [LB0104]"}},
		{"an entry for both streams", files("/x\nlog-bridge.dev/stderr-files: app:/x"), app, []string{
			"log-bridge.dev/files: app:/x is also in log-bridge.dev/stderr-files; each line is written once, so remove it from one of them [LB0105]"}},
		{"a request above the limit", files("/x\nlog-bridge.dev/cpu-request: '2'\nlog-bridge.dev/cpu-limit: '1'"), app, []string{
			"log-bridge.dev/cpu-request: 2 is more than the limit of 1 in log-bridge.dev/cpu-limit; raise the limit or lower the request [LB0106]"}},
		{"more text than a pod has room for", files("/x\nexample.com/large: " + strings.Repeat("x", 256<<10)), app, []string{
			"the annotations of the pod have 262183 bytes together, and Kubernetes takes at most 262144; take some away [LB0107]"}},
		{"a value too long", files("/x" + strings.Repeat("x,/x", 10_000)), app, []string{
			"log-bridge.dev/files: has 40002 bytes, more than 32768; write a glob such as /var/log/app/*.log for many files [LB0103]"}},
		{"thousandths of a byte", files("/x\nlog-bridge.dev/memory-limit: 64m"), app, []string{
			`log-bridge.dev/memory-limit: "64m" is less than a byte (m means thousandths; Mi and M are mebibytes and megabytes); write a quantity such as 64Mi [LB0108]`}},
		{"a few bytes", files("/x\nlog-bridge.dev/memory-request: '64'"), app, []string{
			`log-bridge.dev/memory-request: "64" is less than a MiB, with which no program starts; write a quantity such as 64Mi [LB0108]`}},
		{"bytes of a processor", files("/x\nlog-bridge.dev/cpu-limit: 64Mi"), app, []string{
			`log-bridge.dev/cpu-limit: "64Mi" is more processors than any computer has (cpu is counted in cores); write a quantity such as 100m [LB0108]`}},
		{"thousandths of a disk", files("/x\nlog-bridge.dev/size-limit: 500m"), app, []string{
			`log-bridge.dev/size-limit: "500m" is less than a byte (m means thousandths; Mi and M are mebibytes and megabytes); write a quantity such as 1Gi [LB0108]`}},
		{"a disk of a few bytes", files("/x\nlog-bridge.dev/size-limit: '500'"), app, []string{
			`log-bridge.dev/size-limit: "500" is less than a block of a disk, so that the first line would have the pod evicted; write a quantity such as 1Gi [LB0108]`}},
		{"exbibytes", files("/x\nlog-bridge.dev/memory-limit: 64Ei"), app, []string{
			`log-bridge.dev/memory-limit: "64Ei" is more than any computer has; write a quantity such as 64Mi [LB0108]`}},
		{"a number with a billion digits", files("/x\nlog-bridge.dev/memory-limit: 1e999999999"), app, []string{
			`log-bridge.dev/memory-limit: "1e999999999" is not a quantity; write one such as 64Mi [LB0102]`}},
		{"a number of a billionth with a billion digits", files("/x\nlog-bridge.dev/cpu-limit: '1.000000000000000000001e-999999999'"), app, []string{
			`log-bridge.dev/cpu-limit: "1.000000000000000000001e-999999999" is not a quantity; write one such as 100m [LB0102]`}},
		{"a user of minus nothing", files("/x\nlog-bridge.dev/run-as-user: '-0'"), app, []string{
			`log-bridge.dev/run-as-user: "-0" is not a numeric id; write a number from 0 to 2147483647 [LB0102]`}},

		{"a container that is not there", files("web:/x"), app + "\ninitContainers: [{name: init, image: i}]", []string{
			`log-bridge.dev/files: web:/x: the pod has no container "web"; it has app, init [LB0201]`}},
		{"no container", files("/x, init:/x"), "initContainers: [{name: init, image: i}]", []string{
			"the pod has no container [LB0201]"}},
		{"a container of our name", files("/x"), "containers: [{name: log-bridge, image: a}]", []string{
			"the pod already has a container named log-bridge that log-bridge did not make; rename it, or take the log-bridge.dev annotations away [LB0202]"}},
		{"a volume of our name", files("/x"), app + "\nvolumes: [{name: log-bridge, emptyDir: {}}]", []string{
			"the pod already has a volume named log-bridge that log-bridge did not make; rename it, or take the log-bridge.dev annotations away [LB0203]"}},
		{"a default container that is not there", files("/x\nkubectl.kubernetes.io/default-container: web"), app, []string{
			`kubectl.kubernetes.io/default-container: the pod has no container "web"; it has app [LB0204]`}},
		{"a mount of a volume that we would add", files("/x"), "containers: [{name: app, image: a}, {name: spy, image: a, volumeMounts: [{name: log-bridge, mountPath: /spy}]}]", []string{
			"container spy mounts a volume named log-bridge, which the pod does not have and log-bridge adds for itself; take that mount away [LB0205]"}},
		{"the same with a copied status", files("/x\nlog-bridge.dev/status: '{}'"), "containers: [{name: app, image: a, volumeMounts: [{name: log-bridge, mountPath: /spy}]}]", []string{
			"container app mounts a volume named log-bridge, which the pod does not have and log-bridge adds for itself; take that mount away [LB0205]"}},
		{"the whole volume, with a copied status", files("/x\nlog-bridge.dev/status: '{}'"), "containers: [{name: app, image: a, volumeMounts: [{name: log-bridge, mountPath: /spy}]}]\nvolumes: [{name: log-bridge, emptyDir: {}}]", []string{
			"container app mounts the volume log-bridge of an earlier injection at /spy (), which the annotations do not ask for now; take all parts of log-bridge out of the manifest, or make the copy from the template that the pod came from [LB0206]"}},
		{"a copy with a file where the annotation now wants its directory", files("/app/app.log\nlog-bridge.dev/mount: directory\nlog-bridge.dev/status: '{}'"), "containers: [{name: app, image: a, volumeMounts: [{name: log-bridge, mountPath: /app/app.log, subPath: app/app/app.log}]}]\nvolumes: [{name: log-bridge, emptyDir: {}}]", []string{
			"/app of container app is shared whole, so its files outlive a restart of the container, also a pid file, lock or socket; keep those elsewhere, such as in /run, or remove log-bridge.dev/mount, so that only the log is shared [LB0320]",
			"container app mounts the volume log-bridge of an earlier injection at /app/app.log (app/app/app.log), which the annotations do not ask for now; take all parts of log-bridge out of the manifest, or make the copy from the template that the pod came from [LB0206]"}},
		{"a copy with a renamed container", files("/app/app.log\nlog-bridge.dev/status: '{}'"), "containers: [{name: new, image: a, volumeMounts: [{name: log-bridge, mountPath: /app/app.log, subPath: app/app/app.log}]}]\nvolumes: [{name: log-bridge, emptyDir: {}}]", []string{
			"container new mounts the volume log-bridge of an earlier injection at /app/app.log (app/app/app.log), which the annotations do not ask for now; take all parts of log-bridge out of the manifest, or make the copy from the template that the pod came from [LB0206]"}},
		{"a copy with another size limit", files("/app/app.log\nlog-bridge.dev/size-limit: 1Gi\nlog-bridge.dev/status: '{}'"), "containers: [{name: app, image: a, volumeMounts: [{name: log-bridge, mountPath: /app/app.log, subPath: app/app/app.log}]}]\nvolumes: [{name: log-bridge, emptyDir: {sizeLimit: 500Mi}}]", []string{
			"the volume log-bridge is of an earlier injection and has another medium or sizeLimit (500Mi) than log-bridge.dev/size-limit says now; take all parts of log-bridge out of the manifest, or make the copy from the template that the pod came from [LB0206]"}},
		{"a copy with a container that an annotation no longer names", files("app:/app/app.log\nlog-bridge.dev/status: '{}'"), "containers: [{name: app, image: a}, {name: old, image: a, volumeMounts: [{name: log-bridge, mountPath: /x, subPath: old/x}]}]\nvolumes: [{name: log-bridge, emptyDir: {}}]", []string{
			"container old mounts the volume log-bridge of an earlier injection at /x (old/x), which the annotations do not ask for now; take all parts of log-bridge out of the manifest, or make the copy from the template that the pod came from [LB0206]"}},
		{"a copy that has the sidecar and lost the mount", files("/app/app.log\nlog-bridge.dev/status: '{\"entries\":[{\"entry\":\"app:/app/app.log\"}]}'"), "containers: [{name: app, image: a}]\n" + sidecarOf("--file=app:/app/app.log, app:/app/app.log"), []string{
			"the sidecar follows app:/app/app.log, but no container mounts that from the volume log-bridge any more; take all parts of log-bridge out of the manifest, or make the pod from its template [LB0206]"}},
		{"a copy that has the sidecar and another mount", files("/app/app.log\nlog-bridge.dev/status: '{\"entries\":[{\"entry\":\"app:/app/app.log\"}]}'"), "containers: [{name: app, image: a, volumeMounts: [{name: log-bridge, mountPath: /app/app.log, subPath: app/app/app.log}, {name: log-bridge, mountPath: /spy}]}]\n" + sidecarOf("--file=app:/app/app.log, app:/app/app.log"), []string{
			`container app mounts the volume log-bridge at /spy (""), which the sidecar of this pod does not make; take all parts of log-bridge out of the manifest, or make the pod from its template [LB0206]`}},
		{"a copy that has the sidecar and lost the seeding container", files("/logs/*.log\nlog-bridge.dev/status: '{\"entries\":[{\"entry\":\"app:/logs/*.log\"}]}'"), "containers: [{name: app, image: a, volumeMounts: [{name: log-bridge, mountPath: /logs, subPath: app/logs}]}]\n" + sidecarOf("--seeded=app:/logs, 'app:/logs/*.log'"), []string{
			"the container that fills app:/logs with what the image has there is gone; take all parts of log-bridge out of the manifest, or make the pod from its template [LB0206]"}},
		{"more containers than a node runs", files("/x"), "containers: [" + strings.Repeat("{name: a}, ", 1001) + "]", []string{
			"the pod has 1001 containers, and log-bridge takes at most 1000; make it smaller, or take the log-bridge.dev annotations away [LB0207]"}},
		{"a name longer than Kubernetes takes", files("/x"), "containers: [{name: " + strings.Repeat("a", 64) + ", image: a}]", []string{
			"the container's name " + strings.Repeat("a", 64) + " has 64 bytes, and Kubernetes takes at most 63 [LB0208]"}},
		{"an image's name that is none", files("/x"), "containers: [{name: app, image: " + strings.Repeat("a", 1025) + "}]", []string{
			"container app: the image's name " + strings.Repeat("a", 128) + "… has 1025 bytes, which is more than an image's name can have [LB0208]"}},
		{"a volume's name longer than Kubernetes takes", files("/x"), app + "\nvolumes: [{name: " + strings.Repeat("a", 64) + ", emptyDir: {}}]", []string{
			"the volume's name " + strings.Repeat("a", 64) + " has 64 bytes, and Kubernetes takes at most 63 [LB0208]"}},
		{"a subPath that Linux cannot have", files("/logs/**"), "containers: [{name: app, image: a, volumeMounts: [{name: v, mountPath: /logs/v, subPath: " + strings.Repeat("a", 5000) + "}]}]\nvolumes: [{name: v, emptyDir: {}}]", []string{
			"container app mounts volume v at a path of 5000 bytes, and Linux takes at most 4096; use a shorter one [LB0309]"}},
		{"subPaths that no program could be told", files("/logs/**"), "containers: [{name: app, image: a, volumeMounts: [" + long.String() + "]}]\nvolumes: [{name: v, emptyDir: {}}]", []string{
			"log-bridge would add more than 262144 bytes to the pod; write fewer files, or globs for many [LB0209]"}},

		{"a ConfigMap", files("/c/x.log"), mounted("mountPath: /c", "configMap: {name: c}"), []string{
			"log-bridge.dev/files: app:/c/x.log lies in volume v, a configMap, which cannot hold logs; let the application write elsewhere, or mount an emptyDir there [LB0301]"}},
		{"a Secret", files("/c/*.log"), mounted("mountPath: /c", "secret: {secretName: c}"), []string{
			"log-bridge.dev/files: app:/c/*.log lies in volume v, a secret, which cannot hold logs; let the application write elsewhere, or mount an emptyDir there [LB0301]"}},
		{"a read-only mount that another container writes", files("/c/d/x.log"), mounted("mountPath: /c, readOnly: true", "emptyDir: {}"), []string{
			"log-bridge.dev/files: app:/c/d/x.log: container app mounts volume v read-only at /c, so it writes nothing there; container writer can: write writer:/w/d/x.log [LB0302]"}},
		{"a read-only mount that nobody writes", files("/c/x.log"),
			"containers: [{name: app, image: a, volumeMounts: [{name: v, mountPath: /c, readOnly: true}]}]\nvolumes: [{name: v, emptyDir: {}}]", []string{
				"log-bridge.dev/files: app:/c/x.log: container app mounts volume v read-only at /c, so it writes nothing there; name a path that the container can write [LB0302]"}},
		{"a volume's own mount point", files("/c"), mounted("mountPath: /c/", "emptyDir: {}"), []string{
			"log-bridge.dev/files: app:/c is where volume v is mounted, so it is a directory; name the files in it, such as /c/*.log [LB0303]"}},
		{"a path above a mount", files("/c"), mounted("mountPath: /c/d", "emptyDir: {}"), []string{
			"log-bridge.dev/files: app:/c: volume v is mounted at /c/d, so /c is a directory; name the files in it, such as /c/*.log [LB0304]"}},
		{"a path above another entry", files("/c, /c/x.log"), app, []string{
			"log-bridge.dev/files: app:/c: the entry app:/c/x.log is inside it, so it is a directory; name the files in it, such as /c/*.log [LB0304]"}},
		{"a path that another entry's glob has for its directory", files("/c, /c/*.log"), app, []string{
			"log-bridge.dev/files: app:/c: another entry names files inside /c, so it is a directory; name the files in it, such as /c/*.log [LB0304]"}},
		{"subPathExpr from envFrom", files("/c/x"),
			"containers: [{name: app, image: a, envFrom: [{configMapRef: {name: m}}], volumeMounts: [{name: v, mountPath: /c, subPathExpr: $(P)}]}]\nvolumes: [{name: v, emptyDir: {}}]", []string{
				"log-bridge.dev/files: app:/c/x: container app mounts volume v with subPathExpr $(P): $(P) is not in the container's env; if it comes from envFrom, the sidecar cannot be given it alone, so define P in env [LB0305]"}},
		{"subPathExpr without its variable", files("/c/x"), mounted("mountPath: /c, subPathExpr: $(P)", "emptyDir: {}"), []string{
			"log-bridge.dev/files: app:/c/x: container app mounts volume v with subPathExpr $(P): $(P) is not in the container's env; define P there [LB0305]"}},
		{"subPathExpr with a variable that refers to envFrom", files("/c/x"),
			"containers: [{name: app, image: a, env: [{name: P, value: $(Q)}], envFrom: [{configMapRef: {name: m}}], volumeMounts: [{name: v, mountPath: /c, subPathExpr: $(P)}]}]\nvolumes: [{name: v, emptyDir: {}}]", []string{
				"log-bridge.dev/files: app:/c/x: container app mounts volume v with subPathExpr $(P): P refers to $(Q), which is not in the container's env; if it comes from envFrom, the sidecar cannot be given it alone, so define Q in env [LB0305]"}},
		{"a glob in the top directory", files("/*.log"), app, []string{
			"log-bridge.dev/files: app:/*.log: no volume can be mounted over /, where the system is; write the directory of the logs before the first wildcard, such as /app/*.log [LB0306]"}},
		{"a glob in /etc", files("/etc/*.log"), app, []string{
			"log-bridge.dev/files: app:/etc/*.log: no volume can be mounted over /etc, where the system is; let the application write its logs to a directory of its own [LB0306]"}},
		{"a file in the top directory, with mount: directory", files("/app.log\nlog-bridge.dev/mount: directory"), app, []string{
			"log-bridge.dev/files: app:/app.log: no volume can be mounted over /, where the system is; take log-bridge.dev/mount away, so that the one file is mounted [LB0306]"}},
		{"a single file in /tmp", files("/tmp/x\nlog-bridge.dev/mount: file"), app, []string{
			`log-bridge.dev/files: app:/tmp/x: with fs.protected_regular, as on most nodes, an application may not open another user's file in /tmp for creation, so a single file cannot be mounted there; set log-bridge.dev/mount to "directory" [LB0307]`}},
		{"a glob with mount: file", files("/c/*.log\nlog-bridge.dev/mount: file"), app, []string{
			`log-bridge.dev/files: app:/c/*.log: a glob needs the whole directory, but log-bridge.dev/mount says "file"; take that away or name the files one by one [LB0308]`}},
		{"a colon", files("/c:d/x.log"), app, []string{
			"log-bridge.dev/files: app:/c:d/x.log: Kubernetes mounts nothing at a path with a colon; let the application write elsewhere [LB0309]"}},
		{"a name too long", files("/c/" + strings.Repeat("x", 256)), app, []string{
			"log-bridge.dev/files: app:/c/" + strings.Repeat("x", 121) + "…: a file name has at most 255 bytes, one here has 256; use a shorter one [LB0309]"}},
		{"the kubelet's file", files("/etc/hosts"), app, []string{
			"log-bridge.dev/files: app:/etc/hosts is written by the kubelet and is no log; name a file that the application writes [LB0310]"}},
		{"the termination message", files("/app/end.log"), "containers: [{name: app, image: a, terminationMessagePath: /app/end.log}]", []string{
			"log-bridge.dev/files: app:/app/end.log is the container's terminationMessagePath, where the kubelet mounts a file of its own; let one of the two have another path [LB0310]"}},
		{"a block device", files("/blk/x"), "containers: [{name: app, image: a, volumeDevices: [{name: v, devicePath: /blk}]}]\nvolumes: [{name: v, persistentVolumeClaim: {claimName: c}}]", []string{
			"log-bridge.dev/files: app:/blk/x is on the block device /blk of volume v, which holds no files that can be shared; name a file in a file system [LB0311]"}},
		{"/var/run for /run", files("/var/run/app/x.log"), mounted("mountPath: /run/app", "emptyDir: {}"), []string{
			"log-bridge.dev/files: app:/var/run/app/x.log: /var/run usually is a link to /run, and volume v is mounted at /run/app; write app:/run/app/x.log [LB0312]"}},
		{"/var/run for /run itself", files("/var/run/x.pid"), mounted("mountPath: /run", "emptyDir: {}"), []string{
			"log-bridge.dev/files: app:/var/run/x.pid: /var/run usually is a link to /run, and volume v is mounted at /run; write app:/run/x.pid [LB0312]"}},
		{"/run for /var/run", files("/run/app/*.log"), mounted("mountPath: /var/run/app", "emptyDir: {}"), []string{
			"log-bridge.dev/files: app:/run/app/*.log: /var/run usually is a link to /run, and volume v is mounted at /var/run/app; write app:/var/run/app/*.log [LB0312]"}},
		{"reclaim on the user's volume", files("/w/x.log, /app/x.log\nlog-bridge.dev/reclaim: 'true'"), mounted("mountPath: /w", "emptyDir: {}"), []string{
			"log-bridge.dev/reclaim: nothing is freed of app:/w/x.log, which lies in the pod's own volume v [LB0315]"}},
		{"globs above mounts without an end", files(strings.Repeat("'", 1) + strings.Join(manyGlobs(200), ",") + "'"), manyMounts(2000), []string{
			"log-bridge.dev/files: app:/c/*[d0]/x*: too many globs would have to be compared with the paths of too many volume mounts (2000 here); name directories in which fewer volumes are mounted, or files [LB0316]"}},
		{"a program", files("/bin/sh"), app, []string{
			"log-bridge.dev/files: app:/bin/sh: an empty file would be mounted over what the image has there, a program or a setting of the system; name a log file (one whose name ends in .log, for instance) [LB0317]"}},
		{"a setting", files("/etc/passwd"), app, []string{
			"log-bridge.dev/files: app:/etc/passwd: an empty file would be mounted over what the image has there, a program or a setting of the system; name a log file (one whose name ends in .log, for instance) [LB0317]"}},
		{"a claim for reading only", files("/w/x.log"), mounted("mountPath: /w", "persistentVolumeClaim: {claimName: c, readOnly: true}"), []string{
			"log-bridge.dev/files: app:/w/x.log lies in volume v, whose persistentVolumeClaim.readOnly is true, so nothing can be written there; take that away, or name a path that the container can write [LB0318]"}},
		{"a share for reading only", files("/w/*.log"), mounted("mountPath: /w", "nfs: {server: s, path: /, readOnly: true}"), []string{
			"log-bridge.dev/files: app:/w/*.log lies in volume v, whose nfs.readOnly is true, so nothing can be written there; take that away, or name a path that the container can write [LB0318]"}},
		{"shared memory", files("/dev/shm/x.log"), app, []string{
			"log-bridge.dev/files: app:/dev/shm/x.log: the runtime keeps /dev/shm in memory for this container alone, so nothing there can be shared; mount a volume there, such as an emptyDir with medium: Memory at /dev/shm [LB0319]"}},
		{"root where nobody may be", files("/x\nlog-bridge.dev/run-as-user: '0'"), app + "\nsecurityContext: {runAsNonRoot: true}", []string{
			`log-bridge.dev/run-as-user is "0", but the pod says runAsNonRoot: true; use the id of the application's user [LB0402]`}},
		{"unequal resources in a Guaranteed pod", files("/x\nlog-bridge.dev/cpu-request: '1'\nlog-bridge.dev/cpu-limit: '2'"), "containers: [{name: app, image: a, resources: {limits: {cpu: 1, memory: 1Gi}}}]", []string{
			"log-bridge.dev/cpu-request: 1 is less than the limit of 2 in log-bridge.dev/cpu-limit, and the pod would lose its QoS class Guaranteed; make them equal [LB0403]"}},
		{"a container's own number with a billion digits", files("/x"), "containers: [{name: app, image: a, resources: {limits: {memory: 1e999999999}}}]", []string{
			"container app: the quantity memory is far beyond what a computer has; write one such as 64Mi or 100m [LB0405]"}},
		{"one of the pod", files("/x"), app + "\nresources: {requests: {cpu: 1e999999999}}", []string{
			"the pod's resources: the quantity cpu is far beyond what a computer has; write one such as 64Mi or 100m [LB0405]"}},
		{"one of a volume", files("/x"), app + "\nvolumes: [{name: v, emptyDir: {sizeLimit: 1e99}}]", []string{
			"volume v: the quantity sizeLimit is far beyond what a computer has; write one such as 64Mi or 100m [LB0405]"}},
		{"a shared process namespace", files("/x"), app + "\nshareProcessNamespace: true", []string{
			"with shareProcessNamespace: true, processes of the pod's other containers see the sidecar; those of its user or of root can stop it, and root with CAP_SYS_PTRACE can read the volumes it has; where they are not to be trusted, take shareProcessNamespace away or let them run as another user [LB0406]"}},
		{"the node's process namespace", files("/x"), app + "\nhostPID: true", []string{
			"with hostPID: true, processes of the pod's other containers see the sidecar; those of its user or of root can stop it, and root with CAP_SYS_PTRACE can read the volumes it has; where they are not to be trusted, take hostPID away or let them run as another user [LB0406]"}},
		{"a request of zero in a Guaranteed pod", files("/x\nlog-bridge.dev/cpu-request: '0'"), "containers: [{name: app, image: a, resources: {limits: {cpu: 1, memory: 1Gi}}}]", []string{
			"log-bridge.dev/cpu-request: 0 would cost the pod its QoS class Guaranteed, for which requests equal limits above zero; raise it or take it away [LB0403]"}},
		{"an ephemeral-storage limit where the pod has none", files("/x\nlog-bridge.dev/ephemeral-storage-limit: 1Gi"), app, []string{
			"log-bridge.dev/ephemeral-storage-limit does nothing: no container of the pod has an ephemeral-storage limit, so the sidecar's would be that of the whole pod; take it away [LB0411]"}},
		{"an ephemeral-storage request above the limit", files("/x\nlog-bridge.dev/ephemeral-storage-limit: 1Mi\nlog-bridge.dev/ephemeral-storage-request: 2Mi"),
			"containers: [{name: app, image: a, resources: {limits: {ephemeral-storage: 1Gi}}}]", []string{
				"log-bridge.dev/ephemeral-storage-request: 2Mi is more than the limit of 1Mi in log-bridge.dev/ephemeral-storage-limit; raise the limit or lower the request [LB0106]",
				"a container of the pod has an ephemeral-storage limit, so the sidecar has one of 1Mi for its log, and the pod's limit grows by that [LB0410]"}},

		{"Windows", files("/x"), app + "\nos: {name: windows}", []string{
			"this pod runs on Windows, the sidecar on Linux only; the pod is left as it is [LB0501]"}},
		{"Windows by its node selector", files("/x"), app + "\nnodeSelector: {kubernetes.io/os: windows}", []string{
			"this pod runs on Windows, the sidecar on Linux only; the pod is left as it is [LB0501]"}},
		{"a mirror pod", files("/x\nkubernetes.io/config.mirror: hash"), app, []string{
			"this is the mirror of a static pod, whose manifest on the node decides; annotate nothing here, and run `log-bridge-webhook inject -f` on that manifest [LB0502]"}},

		// What is no mistake.
		{"shared memory with a volume", files("/dev/shm/x.log"), mounted("mountPath: /dev/shm", "emptyDir: {medium: Memory}"), nil},
		{"a log among settings", files("/etc/app.log, /etc/app/trace, /lib/app.out"), app, nil},
		{"a size limit with an exponent", files("/x\nlog-bridge.dev/size-limit: '1e9'"), app, nil},
		{"a file where the marks of what is seeded are", files("/.log-bridge/done"), app, []string{
			"log-bridge.dev/files: app:/.log-bridge/done: log-bridge keeps files of its own in /.log-bridge of its volume; let the application write its logs to a directory of its own [LB0306]"}},
		{"a glob beside the program", files("/app/*.log"), app, []string{
			"/app of container app is shared whole, so its files outlive a restart of the container, also a pid file, lock or socket; keep those elsewhere, such as in /run, or write the logs to a directory of their own, such as /app/logs [LB0320]"}},
		{"the program's directory by annotation", files("/app/app.log\nlog-bridge.dev/mount: directory"), app, []string{
			"/app of container app is shared whole, so its files outlive a restart of the container, also a pid file, lock or socket; keep those elsewhere, such as in /run, or remove log-bridge.dev/mount, so that only the log is shared [LB0320]"}},
		{"the directory for temporary files", files("/tmp/app.log\nlog-bridge.dev/mount: directory"), app, []string{
			"/tmp of container app is shared whole, so its files outlive a restart of the container, also a pid file, lock or socket; keep those elsewhere, such as in /run, or write the logs to a directory of their own, such as /tmp/logs [LB0320]"}},
		{"an init container's directory, which a failure starts again", files("setup:/work/*.log"), app + "\ninitContainers: [{name: setup, image: s}]\nrestartPolicy: OnFailure", []string{
			"/work of container setup is shared whole, so its files outlive a restart of the container, also a pid file, lock or socket; keep those elsewhere, such as in /run, or write the logs to a directory of their own, such as /work/logs [LB0320]"}},
		{"a container with a rule of its own", files("/app/*.log"), "containers: [{name: app, image: a, restartPolicy: Never, restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [42]}}]}]", []string{
			"/app of container app is shared whole, so its files outlive a restart of the container, also a pid file, lock or socket; keep those elsewhere, such as in /run, or write the logs to a directory of their own, such as /app/logs [LB0320]"}},
		{"a directory of a container that never starts again", files("/app/*.log"), app + "\nrestartPolicy: Never", nil},
		{"the same, by the container's own policy", files("/app/*.log"), "containers: [{name: app, image: a, restartPolicy: Never}]", nil},
		{"reclaim with a glob for anything", files("/srv/logs/*\nlog-bridge.dev/reclaim: 'true'"), app, []string{
			"log-bridge.dev/reclaim: app:/srv/logs/* may match files that are no logs, and what is delivered of those is freed too, so the application finds zeros there; write a glob that only logs match, such as /srv/logs/*.log [LB0321]"}},
		{"reclaim with globs for logs", files("/srv/logs/*.log, /srv/logs/app-log.*, /srv/logs/*.out\nlog-bridge.dev/reclaim: 'true'"), app, nil},
		{"logs in a directory of their own", files("/var/log/app/*.log, /app/logs/x.log, /srv/Log-Files_2/*, /opt/app-log/*.log, /home/x/.pm2/logs/*"), app, nil},
		{"one log beside the program", files("/app/app.log"), app, nil},

		{"a foreign container before the sidecar", ours, strings.Replace(has, "initContainers: [", "initContainers: [{name: copies, image: c, volumeMounts: [{name: log-bridge, mountPath: /app/app.log, subPath: app/app/app.log}]}, ", 1), []string{
			"init container copies starts before log-bridge and mounts its volume while nothing is in it: it sees empty directories, and the application does not see what it writes there; have it added after log-bridge, or without these mounts [LB0210]"}},
		{"a foreign container that does not mount our volume", ours, strings.Replace(has, "initContainers: [", "initContainers: [{name: mesh, image: c}, ", 1), nil},
		{"the seeding container before the sidecar", ours, strings.Replace(has, "initContainers: [", "initContainers: [{name: log-bridge-seed-app, image: a, volumeMounts: [{name: log-bridge, mountPath: /log-bridge/.bin, subPath: .bin}]}, ", 1), []string{
			"init container log-bridge-seed-app comes before log-bridge, which gives it its program, so the pod would never start; have the webhook that changed their order keep it [LB0211]"}},

		{"a name that only looks like a prefix", files("/var/log2/x.log"), mounted("mountPath: /var/log", "emptyDir: {}"), nil},
		{"a file mounted by subPath", files("/c/x.log"), mounted("mountPath: /c/x.log, subPath: x.log", "emptyDir: {}"), nil},
		{"a file of the node", files("/c/x.log"), mounted("mountPath: /c/x.log", "hostPath: {path: /x.log, type: FileOrCreate}"), nil},
		{"declined", files("nonsense\nlog-bridge.dev/inject: 'false'"), app, nil},
		{"declined on Windows", files("/x\nlog-bridge.dev/inject: 'false'"), app + "\nos: {name: windows}", nil},
		{"a copied status alone", "log-bridge.dev/status: '{}'", app, nil},
		{"an entry named twice", files("/x, app:/x, /x"), app, nil},
		{"tomcat's directory", files("/usr/local/tomcat/logs/*.log"), app, nil},
		{"a directory named like a library", files("/library/logs/*.log"), app, nil},
		{"requests of zero", files("/x\nlog-bridge.dev/cpu-request: '0'\nlog-bridge.dev/memory-request: 0Mi\nlog-bridge.dev/ephemeral-storage-request: '0'"), app, nil},
		{"lines to stderr only", "log-bridge.dev/stderr-files: /x", app, nil},
		{"run-as-user 0 where the container may be root", files("/x\nlog-bridge.dev/run-as-user: '0'"), "containers: [{name: app, image: a, securityContext: {runAsNonRoot: false, runAsUser: 0}}]\nsecurityContext: {runAsNonRoot: true}", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := "metadata:\n  annotations:\n    " + strings.ReplaceAll(c.annotations, "\n", "\n    ") + "\nspec:\n  " + strings.ReplaceAll(c.spec, "\n", "\n  ")
			var pod corev1.Pod
			if err := json.Unmarshal(toJSON(t, text), &pod); err != nil {
				t.Fatal(err)
			}
			r := inject.Pod(t.Context(), &pod, config())
			var have []string
			for _, f := range r.Findings {
				have = append(have, f.String())
			}
			if !slices.Equal(have, c.want) {
				t.Errorf("said:\n  %s\nwant:\n  %s", strings.Join(have, "\n  "), strings.Join(c.want, "\n  "))
			}
			promised(t, r)
		})
	}
}

// sidecarOf is an injected pod's sidecar with some arguments, and its volume.
func sidecarOf(args string) string {
	return "initContainers: [{name: log-bridge, image: s, restartPolicy: Always, args: [tail, " + args + "], volumeMounts: [{name: log-bridge, mountPath: /log-bridge}]}]\nvolumes: [{name: log-bridge, emptyDir: {}}]"
}

func manyGlobs(n int) (all []string) {
	for i := range n {
		all = append(all, "/c/*["+string(rune('a'+i/10))+strconv.Itoa(i%10)+"]/x*")
	}
	return all
}

func manyMounts(n int) string {
	var mounts []string
	for i := range n {
		mounts = append(mounts, "{name: v, mountPath: /c/"+strconv.Itoa(i)+"}")
	}
	return "containers: [{name: app, image: a, volumeMounts: [" + strings.Join(mounts, ", ") + "]}]\nvolumes: [{name: v, emptyDir: {}}]"
}

// promised checks that a Result is of one kind only.
func promised(t testing.TB, r inject.Result) {
	t.Helper()
	kinds := 0
	for _, is := range []bool{r.LeftAlone != "", len(r.Mistakes()) > 0, len(r.Operations) > 0} {
		if is {
			kinds++
		}
	}
	if kinds != 1 {
		t.Errorf("left alone %q, %d mistakes, %d operations: want exactly one", r.LeftAlone, len(r.Mistakes()), len(r.Operations))
	}
	if (r.Refusal() != "") != (len(r.Mistakes()) > 0) {
		t.Errorf("refusal %q with %d mistakes", r.Refusal(), len(r.Mistakes()))
	}
}
