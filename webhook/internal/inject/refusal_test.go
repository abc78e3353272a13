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

// TestMessages has one or more lines for each code: annotations, a pod, and the messages for it.
func TestMessages(t *testing.T) {
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
		{"a misspelt key without files", "log-bridge.dev/file: /app/app.log", app, []string{
			"log-bridge.dev/file: unknown annotation; did you mean log-bridge.dev/files? [LB0101]"}},
		{"an unknown key", files("/x\nlog-bridge.dev/wibble: x"), app, []string{
			"log-bridge.dev/wibble: unknown annotation; the known ones are log-bridge.dev/ followed by cpu-limit, cpu-request, ephemeral-storage-limit, ephemeral-storage-request, files, format, inject, memory-limit, memory-request, mount, reclaim, run-as-group, run-as-user, seed, size-limit, status, stderr-files [LB0101]"}},
		{"a value that is not in the list", files("/x\nlog-bridge.dev/mount: volume"), app, []string{
			`log-bridge.dev/mount: "volume" is not one of auto, file, directory [LB0102]`}},
		{"not a boolean", files("/x\nlog-bridge.dev/reclaim: 'yes'"), app, []string{
			`log-bridge.dev/reclaim: "yes" is neither "true" nor "false" [LB0102]`}},
		{"inject is not a boolean", files("/x\nlog-bridge.dev/inject: 'no'"), app, []string{
			`log-bridge.dev/inject: "no" is neither "true" nor "false" [LB0102]`}},
		{"not a quantity", files("/x\nlog-bridge.dev/memory-limit: 64 MB"), app, []string{
			`log-bridge.dev/memory-limit: "64 MB" is not a quantity; write one such as 64Mi [LB0102]`}},
		{"a quantity of zero", files("/x\nlog-bridge.dev/cpu-limit: '0'"), app, []string{
			`log-bridge.dev/cpu-limit: "0" is not positive; write a quantity such as 100m, or remove the annotation [LB0102]`}},
		{"a negative quantity", files("/x\nlog-bridge.dev/size-limit: '-1'"), app, []string{
			`log-bridge.dev/size-limit: "-1" is not positive; write a quantity such as 1Gi, or remove the annotation [LB0102]`}},
		{"a negative request", files("/x\nlog-bridge.dev/cpu-request: -5m"), app, []string{
			`log-bridge.dev/cpu-request: "-5m" is negative; write a quantity such as 100m, or 0 [LB0102]`}},
		{"not an ID", files("/x\nlog-bridge.dev/run-as-user: nginx"), app, []string{
			`log-bridge.dev/run-as-user: "nginx" is not a numeric ID; write a number from 0 to 2147483647 [LB0102]`}},
		{"an ID out of range", files("/x\nlog-bridge.dev/run-as-group: '2147483648'"), app, []string{
			`log-bridge.dev/run-as-group: "2147483648" is not a numeric ID; write a number from 0 to 2147483647 [LB0102]`}},
		{"all mistakes are reported at once", files("app.log\nlog-bridge.dev/seed: x"), app, []string{
			`log-bridge.dev/files: "app.log" is not an absolute path; write the whole path, such as /app/app.log [LB0103]`,
			`log-bridge.dev/seed: "x" is neither "true" nor "false" [LB0102]`}},
		{"no entries", files("','"), app, []string{
			"log-bridge.dev/files: names no file; write the path of a log file, such as /app/app.log [LB0103]"}},
		{"stdout", files("/dev/stdout"), app, []string{
			`log-bridge.dev/files: "/dev/stdout" is the container's own stdout, which kubectl logs shows without log-bridge; remove the entry [LB0103]`}},
		{"a setting without files", "log-bridge.dev/format: json", app, []string{
			"log-bridge.dev/format has no effect without log-bridge.dev/files; the pod is left unchanged [LB0104]"}},
		{"an entry for both streams", files("/x\nlog-bridge.dev/stderr-files: app:/x"), app, []string{
			"log-bridge.dev/files: app:/x is also in log-bridge.dev/stderr-files; each line is written once, so remove it from one of them [LB0105]"}},
		{"a request above the limit", files("/x\nlog-bridge.dev/cpu-request: '2'\nlog-bridge.dev/cpu-limit: '1'"), app, []string{
			"log-bridge.dev/cpu-request: 2 is more than the limit of 1 in log-bridge.dev/cpu-limit; raise the limit or lower the request [LB0106]"}},
		{"annotations that are too long in total", files("/x\nexample.com/large: " + strings.Repeat("x", 256<<10)), app, []string{
			"the pod's annotations have 262183 bytes in total, but Kubernetes allows only 262144; remove some [LB0107]"}},
		{"a value too long", files("/x" + strings.Repeat("x,/x", 10_000)), app, []string{
			"log-bridge.dev/files: has 40002 bytes, more than 32768; write a glob such as /var/log/app/*.log for many files [LB0103]"}},
		{"thousandths of a byte", files("/x\nlog-bridge.dev/memory-limit: 64m"), app, []string{
			`log-bridge.dev/memory-limit: "64m" is less than one byte (m means thousandths, Mi mebibytes, M megabytes); write a quantity such as 64Mi [LB0108]`}},
		{"a few bytes", files("/x\nlog-bridge.dev/memory-request: '64'"), app, []string{
			`log-bridge.dev/memory-request: "64" is less than 1 MiB, too little for any program to start; write a quantity such as 64Mi [LB0108]`}},
		{"bytes of CPU", files("/x\nlog-bridge.dev/cpu-limit: 64Mi"), app, []string{
			`log-bridge.dev/cpu-limit: "64Mi" is more CPUs than any machine has (CPU is counted in cores); write a quantity such as 100m [LB0108]`}},
		{"thousandths of a disk", files("/x\nlog-bridge.dev/size-limit: 500m"), app, []string{
			`log-bridge.dev/size-limit: "500m" is less than one byte (m means thousandths, Mi mebibytes, M megabytes); write a quantity such as 1Gi [LB0108]`}},
		{"a disk of a few bytes", files("/x\nlog-bridge.dev/size-limit: '500'"), app, []string{
			`log-bridge.dev/size-limit: "500" is less than one disk block, so the pod would be evicted at the first line; write a quantity such as 1Gi [LB0108]`}},
		{"exbibytes", files("/x\nlog-bridge.dev/memory-limit: 64Ei"), app, []string{
			`log-bridge.dev/memory-limit: "64Ei" is more than any machine has; write a quantity such as 64Mi [LB0108]`}},
		{"a number with a billion digits", files("/x\nlog-bridge.dev/memory-limit: 1e999999999"), app, []string{
			`log-bridge.dev/memory-limit: "1e999999999" is not a quantity; write one such as 64Mi [LB0102]`}},
		{"a number of a billionth with a billion digits", files("/x\nlog-bridge.dev/cpu-limit: '1.000000000000000000001e-999999999'"), app, []string{
			`log-bridge.dev/cpu-limit: "1.000000000000000000001e-999999999" is not a quantity; write one such as 100m [LB0102]`}},
		{"minus zero as a user", files("/x\nlog-bridge.dev/run-as-user: '-0'"), app, []string{
			`log-bridge.dev/run-as-user: "-0" is not a numeric ID; write a number from 0 to 2147483647 [LB0102]`}},

		{"a container that is not there", files("web:/x"), app + "\ninitContainers: [{name: init, image: i}]", []string{
			`log-bridge.dev/files: web:/x: the pod has no container "web"; it has app, init [LB0201]`}},
		{"no container", files("/x, init:/x"), "initContainers: [{name: init, image: i}]", []string{
			"the pod has no containers [LB0201]"}},
		{"a container of our name", files("/x"), "containers: [{name: log-bridge, image: a}]", []string{
			"the pod already has a container named log-bridge that log-bridge did not add; rename it, or remove the log-bridge.dev annotations [LB0202]"}},
		{"a volume of our name", files("/x"), app + "\nvolumes: [{name: log-bridge, emptyDir: {}}]", []string{
			"the pod already has a volume named log-bridge that log-bridge did not add; rename it, or remove the log-bridge.dev annotations [LB0203]"}},
		{"a default container that is not there", files("/x\nkubectl.kubernetes.io/default-container: web"), app, []string{
			`kubectl.kubernetes.io/default-container: the pod has no container "web"; it has app [LB0204]`}},
		{"a mount of the volume that log-bridge adds", files("/x"), "containers: [{name: app, image: a}, {name: spy, image: a, volumeMounts: [{name: log-bridge, mountPath: /spy}]}]", []string{
			"container spy mounts a volume named log-bridge, a name that is reserved for log-bridge; remove the mount [LB0205]"}},
		{"the same with a copied status", files("/x\nlog-bridge.dev/status: '{}'"), "containers: [{name: app, image: a, volumeMounts: [{name: log-bridge, mountPath: /spy}]}]", []string{
			"container app mounts a volume named log-bridge, a name that is reserved for log-bridge; remove the mount [LB0205]"}},
		{"the whole volume, with a copied status", files("/x\nlog-bridge.dev/status: '{}'"), "containers: [{name: app, image: a, volumeMounts: [{name: log-bridge, mountPath: /spy}]}]\nvolumes: [{name: log-bridge, emptyDir: {}}]", []string{
			"container app mounts the log-bridge volume at /spy (), which is left from an earlier injection and not what the annotations ask for now; remove all parts of log-bridge from the manifest, or create the pod from its template [LB0206]"}},
		{"a copy with a file where the annotation now wants its directory", files("/app/app.log\nlog-bridge.dev/mount: directory\nlog-bridge.dev/status: '{}'"), "containers: [{name: app, image: a, volumeMounts: [{name: log-bridge, mountPath: /app/app.log, subPath: app/app/app.log}]}]\nvolumes: [{name: log-bridge, emptyDir: {}}]", []string{
			"/app of container app is shared as a whole, so all files in it survive a container restart, including PID files, locks and sockets; keep those elsewhere, such as in /run, or remove log-bridge.dev/mount, so that only the log is shared [LB0320]",
			"container app mounts the log-bridge volume at /app/app.log (app/app/app.log), which is left from an earlier injection and not what the annotations ask for now; remove all parts of log-bridge from the manifest, or create the pod from its template [LB0206]"}},
		{"a copy with a renamed container", files("/app/app.log\nlog-bridge.dev/status: '{}'"), "containers: [{name: new, image: a, volumeMounts: [{name: log-bridge, mountPath: /app/app.log, subPath: app/app/app.log}]}]\nvolumes: [{name: log-bridge, emptyDir: {}}]", []string{
			"container new mounts the log-bridge volume at /app/app.log (app/app/app.log), which is left from an earlier injection and not what the annotations ask for now; remove all parts of log-bridge from the manifest, or create the pod from its template [LB0206]"}},
		{"a copy with another size limit", files("/app/app.log\nlog-bridge.dev/size-limit: 1Gi\nlog-bridge.dev/status: '{}'"), "containers: [{name: app, image: a, volumeMounts: [{name: log-bridge, mountPath: /app/app.log, subPath: app/app/app.log}]}]\nvolumes: [{name: log-bridge, emptyDir: {sizeLimit: 500Mi}}]", []string{
			"the log-bridge volume is left from an earlier injection, and its medium or sizeLimit (500Mi) differs from what log-bridge.dev/size-limit says now; remove all parts of log-bridge from the manifest, or create the pod from its template [LB0206]"}},
		{"a copy with a container that an annotation no longer names", files("app:/app/app.log\nlog-bridge.dev/status: '{}'"), "containers: [{name: app, image: a}, {name: old, image: a, volumeMounts: [{name: log-bridge, mountPath: /x, subPath: old/x}]}]\nvolumes: [{name: log-bridge, emptyDir: {}}]", []string{
			"container old mounts the log-bridge volume at /x (old/x), which is left from an earlier injection and not what the annotations ask for now; remove all parts of log-bridge from the manifest, or create the pod from its template [LB0206]"}},
		{"a copy that has the sidecar and lost the mount", files("/app/app.log\nlog-bridge.dev/status: '{\"entries\":[{\"entry\":\"app:/app/app.log\"}]}'"), "containers: [{name: app, image: a}]\n" + sidecarOf("--file=app:/app/app.log, app:/app/app.log"), []string{
			"the sidecar follows app:/app/app.log, but no container mounts it from the log-bridge volume any more; remove all parts of log-bridge from the manifest, or create the pod from its template [LB0206]"}},
		{"a copy that has the sidecar and another mount", files("/app/app.log\nlog-bridge.dev/status: '{\"entries\":[{\"entry\":\"app:/app/app.log\"}]}'"), "containers: [{name: app, image: a, volumeMounts: [{name: log-bridge, mountPath: /app/app.log, subPath: app/app/app.log}, {name: log-bridge, mountPath: /spy}]}]\n" + sidecarOf("--file=app:/app/app.log, app:/app/app.log"), []string{
			`container app mounts the log-bridge volume at /spy (""), which this pod's sidecar does not create; remove all parts of log-bridge from the manifest, or create the pod from its template [LB0206]`}},
		{"a copy that has the sidecar and lost the seeding container", files("/logs/*.log\nlog-bridge.dev/status: '{\"entries\":[{\"entry\":\"app:/logs/*.log\"}]}'"), "containers: [{name: app, image: a, volumeMounts: [{name: log-bridge, mountPath: /logs, subPath: app/logs}]}]\n" + sidecarOf("--seeded=app:/logs, 'app:/logs/*.log'"), []string{
			"the seeding container of app:/logs is missing; remove all parts of log-bridge from the manifest, or create the pod from its template [LB0206]"}},
		{"too many containers", files("/x"), "containers: [" + strings.Repeat("{name: a}, ", 1001) + "]", []string{
			"the pod has 1001 containers, more than the limit of 1000; make it smaller, or remove the log-bridge.dev annotations [LB0207]"}},
		{"a container name that is too long", files("/x"), "containers: [{name: " + strings.Repeat("a", 64) + ", image: a}]", []string{
			"container name " + strings.Repeat("a", 64) + " has 64 bytes, but Kubernetes allows only 63; shorten it [LB0208]"}},
		{"an image name that is too long", files("/x"), "containers: [{name: app, image: " + strings.Repeat("a", 1025) + "}]", []string{
			"container app: image name " + strings.Repeat("a", 128) + "… has 1025 bytes, which is too long; shorten it [LB0208]"}},
		{"a volume name that is too long", files("/x"), app + "\nvolumes: [{name: " + strings.Repeat("a", 64) + ", emptyDir: {}}]", []string{
			"volume name " + strings.Repeat("a", 64) + " has 64 bytes, but Kubernetes allows only 63; shorten it [LB0208]"}},
		{"a subPath that is too long", files("/logs/**"), "containers: [{name: app, image: a, volumeMounts: [{name: v, mountPath: /logs/v, subPath: " + strings.Repeat("a", 5000) + "}]}]\nvolumes: [{name: v, emptyDir: {}}]", []string{
			"container app mounts volume v with a path of 5000 bytes, but Linux allows only 4096; use a shorter one [LB0309]"}},
		{"too many bytes of arguments", files("/logs/**"), "containers: [{name: app, image: a, volumeMounts: [" + long.String() + "]}]\nvolumes: [{name: v, emptyDir: {}}]", []string{
			"log-bridge would add more than 262144 bytes to the pod; list fewer files, or use globs [LB0209]"}},

		{"a ConfigMap", files("/c/x.log"), mounted("mountPath: /c", "configMap: {name: c}"), []string{
			"log-bridge.dev/files: app:/c/x.log is in volume v, a configMap, which cannot hold logs; let the application write elsewhere, or mount an emptyDir there [LB0301]"}},
		{"a Secret", files("/c/*.log"), mounted("mountPath: /c", "secret: {secretName: c}"), []string{
			"log-bridge.dev/files: app:/c/*.log is in volume v, a secret, which cannot hold logs; let the application write elsewhere, or mount an emptyDir there [LB0301]"}},
		{"a read-only mount that another container writes", files("/c/d/x.log"), mounted("mountPath: /c, readOnly: true", "emptyDir: {}"), []string{
			"log-bridge.dev/files: app:/c/d/x.log: container app mounts volume v read-only at /c, so it cannot write there; container writer can, so name writer:/w/d/x.log [LB0302]"}},
		{"a read-only mount that nobody writes", files("/c/x.log"),
			"containers: [{name: app, image: a, volumeMounts: [{name: v, mountPath: /c, readOnly: true}]}]\nvolumes: [{name: v, emptyDir: {}}]", []string{
				"log-bridge.dev/files: app:/c/x.log: container app mounts volume v read-only at /c, so it cannot write there; name a path that the container can write to [LB0302]"}},
		{"a volume's own mount point", files("/c"), mounted("mountPath: /c/", "emptyDir: {}"), []string{
			"log-bridge.dev/files: app:/c is the mount path of volume v, so it is a directory; name the files in it, such as /c/*.log [LB0303]"}},
		{"a path above a mount", files("/c"), mounted("mountPath: /c/d", "emptyDir: {}"), []string{
			"log-bridge.dev/files: app:/c: volume v is mounted at /c/d, so /c is a directory; name the files in it, such as /c/*.log [LB0304]"}},
		{"a path above another entry", files("/c, /c/x.log"), app, []string{
			"log-bridge.dev/files: app:/c: the entry app:/c/x.log is inside it, so it is a directory; name the files in it, such as /c/*.log [LB0304]"}},
		{"a path that another entry's glob has for its directory", files("/c, /c/*.log"), app, []string{
			"log-bridge.dev/files: app:/c: another entry names files inside /c, so it is a directory; name the files in it, such as /c/*.log [LB0304]"}},
		{"subPathExpr from envFrom", files("/c/x"),
			"containers: [{name: app, image: a, envFrom: [{configMapRef: {name: m}}], volumeMounts: [{name: v, mountPath: /c, subPathExpr: $(P)}]}]\nvolumes: [{name: v, emptyDir: {}}]", []string{
				"log-bridge.dev/files: app:/c/x: container app mounts volume v with subPathExpr $(P): $(P) is not in the container's env; the sidecar cannot get a single variable from envFrom, so define P in env [LB0305]"}},
		{"subPathExpr without its variable", files("/c/x"), mounted("mountPath: /c, subPathExpr: $(P)", "emptyDir: {}"), []string{
			"log-bridge.dev/files: app:/c/x: container app mounts volume v with subPathExpr $(P): $(P) is not in the container's env; define P there [LB0305]"}},
		{"subPathExpr with a variable that refers to envFrom", files("/c/x"),
			"containers: [{name: app, image: a, env: [{name: P, value: $(Q)}], envFrom: [{configMapRef: {name: m}}], volumeMounts: [{name: v, mountPath: /c, subPathExpr: $(P)}]}]\nvolumes: [{name: v, emptyDir: {}}]", []string{
				"log-bridge.dev/files: app:/c/x: container app mounts volume v with subPathExpr $(P): P refers to $(Q), which is not in the container's env; the sidecar cannot get a single variable from envFrom, so define Q in env [LB0305]"}},
		{"a glob in the top directory", files("/*.log"), app, []string{
			"log-bridge.dev/files: app:/*.log: a volume over / would hide system files; name the log directory before the first wildcard, such as /app/*.log [LB0306]"}},
		{"a glob in /etc", files("/etc/*.log"), app, []string{
			"log-bridge.dev/files: app:/etc/*.log: a volume over /etc would hide system files; let the application write its logs to a directory of its own [LB0306]"}},
		{"a file in the top directory, with mount: directory", files("/app.log\nlog-bridge.dev/mount: directory"), app, []string{
			"log-bridge.dev/files: app:/app.log: a volume over / would hide system files; remove log-bridge.dev/mount, so that only the file is mounted [LB0306]"}},
		{"a single file in /tmp", files("/tmp/x\nlog-bridge.dev/mount: file"), app, []string{
			`log-bridge.dev/files: app:/tmp/x: a single file cannot be mounted in the sticky directory /tmp because fs.protected_regular, which most nodes set, keeps the application from opening it; set log-bridge.dev/mount to "directory" [LB0307]`}},
		{"a glob with mount: file", files("/c/*.log\nlog-bridge.dev/mount: file"), app, []string{
			`log-bridge.dev/files: app:/c/*.log: a glob needs the whole directory, but log-bridge.dev/mount is "file"; remove it, or list the files one by one [LB0308]`}},
		{"a colon", files("/c:d/x.log"), app, []string{
			"log-bridge.dev/files: app:/c:d/x.log: Kubernetes cannot mount at a path with a colon; let the application write elsewhere [LB0309]"}},
		{"a name too long", files("/c/" + strings.Repeat("x", 256)), app, []string{
			"log-bridge.dev/files: app:/c/" + strings.Repeat("x", 121) + "…: a file name has 256 bytes, but Linux allows only 255; use a shorter one [LB0309]"}},
		{"the kubelet's file", files("/etc/hosts"), app, []string{
			"log-bridge.dev/files: app:/etc/hosts is a file of the kubelet, not a log; name a file that the application writes [LB0310]"}},
		{"the termination message", files("/app/end.log"), "containers: [{name: app, image: a, terminationMessagePath: /app/end.log}]", []string{
			"log-bridge.dev/files: app:/app/end.log is the container's terminationMessagePath, where the kubelet mounts a file of its own; change one of the two paths [LB0310]"}},
		{"a block device", files("/blk/x"), "containers: [{name: app, image: a, volumeDevices: [{name: v, devicePath: /blk}]}]\nvolumes: [{name: v, persistentVolumeClaim: {claimName: c}}]", []string{
			"log-bridge.dev/files: app:/blk/x is on block device /blk of volume v, whose files cannot be shared; name a file in a file system [LB0311]"}},
		{"/var/run for /run", files("/var/run/app/x.log"), mounted("mountPath: /run/app", "emptyDir: {}"), []string{
			"log-bridge.dev/files: app:/var/run/app/x.log: /var/run is usually a link to /run, and volume v is mounted at /run/app; write app:/run/app/x.log [LB0312]"}},
		{"/var/run for /run itself", files("/var/run/x.pid"), mounted("mountPath: /run", "emptyDir: {}"), []string{
			"log-bridge.dev/files: app:/var/run/x.pid: /var/run is usually a link to /run, and volume v is mounted at /run; write app:/run/x.pid [LB0312]"}},
		{"/run for /var/run", files("/run/app/*.log"), mounted("mountPath: /var/run/app", "emptyDir: {}"), []string{
			"log-bridge.dev/files: app:/run/app/*.log: /var/run is usually a link to /run, and volume v is mounted at /var/run/app; write app:/var/run/app/*.log [LB0312]"}},
		{"reclaim on the user's volume", files("/w/x.log, /app/x.log\nlog-bridge.dev/reclaim: 'true'"), mounted("mountPath: /w", "emptyDir: {}"), []string{
			"log-bridge.dev/reclaim has no effect on app:/w/x.log because it is in the pod's volume v [LB0315]"}},
		{"too many globs above too many mounts", files(strings.Repeat("'", 1) + strings.Join(manyGlobs(200), ",") + "'"), manyMounts(2000), []string{
			"log-bridge.dev/files: app:/c/*[d0]/x*: too many globs above too many volume mounts (2000 here); name directories with fewer volume mounts, or files [LB0316]"}},
		{"a program", files("/bin/sh"), app, []string{
			"log-bridge.dev/files: app:/bin/sh: this is a program or a configuration file of the system, and an empty file would be mounted over it; name a log file, such as one that ends in .log [LB0317]"}},
		{"a configuration file", files("/etc/passwd"), app, []string{
			"log-bridge.dev/files: app:/etc/passwd: this is a program or a configuration file of the system, and an empty file would be mounted over it; name a log file, such as one that ends in .log [LB0317]"}},
		{"a read-only claim", files("/w/x.log"), mounted("mountPath: /w", "persistentVolumeClaim: {claimName: c, readOnly: true}"), []string{
			"log-bridge.dev/files: app:/w/x.log is in volume v, whose persistentVolumeClaim.readOnly is true, so the container cannot write there; remove readOnly, or name a path that the container can write to [LB0318]"}},
		{"a read-only NFS share", files("/w/*.log"), mounted("mountPath: /w", "nfs: {server: s, path: /, readOnly: true}"), []string{
			"log-bridge.dev/files: app:/w/*.log is in volume v, whose nfs.readOnly is true, so the container cannot write there; remove readOnly, or name a path that the container can write to [LB0318]"}},
		{"shared memory", files("/dev/shm/x.log"), app, []string{
			"log-bridge.dev/files: app:/dev/shm/x.log: /dev/shm belongs to this container alone, so its files cannot be shared; mount a volume at /dev/shm, such as an emptyDir with medium: Memory [LB0319]"}},
		{"root where the pod forbids it", files("/x\nlog-bridge.dev/run-as-user: '0'"), app + "\nsecurityContext: {runAsNonRoot: true}", []string{
			`log-bridge.dev/run-as-user is "0", but the pod has runAsNonRoot: true; set it to the ID of the application's user [LB0402]`}},
		{"unequal resources in a Guaranteed pod", files("/x\nlog-bridge.dev/cpu-request: '1'\nlog-bridge.dev/cpu-limit: '2'"), "containers: [{name: app, image: a, resources: {limits: {cpu: 1, memory: 1Gi}}}]", []string{
			"log-bridge.dev/cpu-request: 1 is less than the limit of 2 in log-bridge.dev/cpu-limit, so the pod would lose its QoS class Guaranteed; make them equal [LB0403]"}},
		{"a container's own number with a billion digits", files("/x"), "containers: [{name: app, image: a, resources: {limits: {memory: 1e999999999}}}]", []string{
			"container app: the quantity of memory is more than any machine has; write one such as 64Mi or 100m [LB0405]"}},
		{"one of the pod", files("/x"), app + "\nresources: {requests: {cpu: 1e999999999}}", []string{
			"the pod-level resources: the quantity of cpu is more than any machine has; write one such as 64Mi or 100m [LB0405]"}},
		{"one of a volume", files("/x"), app + "\nvolumes: [{name: v, emptyDir: {sizeLimit: 1e99}}]", []string{
			"volume v: the quantity of sizeLimit is more than any machine has; write one such as 64Mi or 100m [LB0405]"}},
		{"a shared process namespace", files("/x"), app + "\nshareProcessNamespace: true", []string{
			"with shareProcessNamespace: true, the pod's other containers see the sidecar's processes: as its user or as root they can stop it, and as root with CAP_SYS_PTRACE they can read its volumes; if you do not trust them, remove shareProcessNamespace or run them as another user [LB0406]"}},
		{"the node's process namespace", files("/x"), app + "\nhostPID: true", []string{
			"with hostPID: true, the pod's other containers see the sidecar's processes: as its user or as root they can stop it, and as root with CAP_SYS_PTRACE they can read its volumes; if you do not trust them, remove hostPID or run them as another user [LB0406]"}},
		{"a request of zero in a Guaranteed pod", files("/x\nlog-bridge.dev/cpu-request: '0'"), "containers: [{name: app, image: a, resources: {limits: {cpu: 1, memory: 1Gi}}}]", []string{
			"log-bridge.dev/cpu-request: 0 would cost the pod its QoS class Guaranteed, for which requests must equal limits above zero; raise it or remove it [LB0403]"}},
		{"an ephemeral-storage limit where the pod has none", files("/x\nlog-bridge.dev/ephemeral-storage-limit: 1Gi"), app, []string{
			"log-bridge.dev/ephemeral-storage-limit has no effect: no container of the pod has an ephemeral-storage limit, so the sidecar's would become the limit of the whole pod; remove it [LB0411]"}},
		{"an ephemeral-storage request above the limit", files("/x\nlog-bridge.dev/ephemeral-storage-limit: 1Mi\nlog-bridge.dev/ephemeral-storage-request: 2Mi"),
			"containers: [{name: app, image: a, resources: {limits: {ephemeral-storage: 1Gi}}}]", []string{
				"log-bridge.dev/ephemeral-storage-request: 2Mi is more than the limit of 1Mi in log-bridge.dev/ephemeral-storage-limit; raise the limit or lower the request [LB0106]",
				"a container of the pod has an ephemeral-storage limit, so the sidecar gets one of 1Mi for its log, which adds to the pod's limit [LB0410]"}},

		{"Windows", files("/x"), app + "\nos: {name: windows}", []string{
			"the pod runs on Windows, but the sidecar needs Linux; the pod is left unchanged [LB0501]"}},
		{"Windows by its node selector", files("/x"), app + "\nnodeSelector: {kubernetes.io/os: windows}", []string{
			"the pod runs on Windows, but the sidecar needs Linux; the pod is left unchanged [LB0501]"}},
		{"a mirror pod", files("/x\nkubernetes.io/config.mirror: hash"), app, []string{
			"this is the mirror pod of a static pod, which only its manifest on the node can change; run `kubectl log-bridge inject -f` on that manifest [LB0502]"}},

		// These are not mistakes.
		{"shared memory with a volume", files("/dev/shm/x.log"), mounted("mountPath: /dev/shm", "emptyDir: {medium: Memory}"), nil},
		{"a log among settings", files("/etc/app.log, /etc/app/trace, /lib/app.out"), app, nil},
		{"a size limit with an exponent", files("/x\nlog-bridge.dev/size-limit: '1e9'"), app, nil},
		{"a file where the marks of what is seeded are", files("/.log-bridge/done"), app, []string{
			"log-bridge.dev/files: app:/.log-bridge/done: /.log-bridge is reserved for log-bridge; let the application write its logs to another directory [LB0306]"}},
		{"a glob beside the program", files("/app/*.log"), app, []string{
			"/app of container app is shared as a whole, so all files in it survive a container restart, including PID files, locks and sockets; keep those elsewhere, such as in /run, or write the logs to a directory of their own, such as /app/logs [LB0320]"}},
		{"the program's directory by annotation", files("/app/app.log\nlog-bridge.dev/mount: directory"), app, []string{
			"/app of container app is shared as a whole, so all files in it survive a container restart, including PID files, locks and sockets; keep those elsewhere, such as in /run, or remove log-bridge.dev/mount, so that only the log is shared [LB0320]"}},
		{"the directory for temporary files", files("/tmp/app.log\nlog-bridge.dev/mount: directory"), app, []string{
			"/tmp of container app is shared as a whole, so all files in it survive a container restart, including PID files, locks and sockets; keep those elsewhere, such as in /run, or write the logs to a directory of their own, such as /tmp/logs [LB0320]"}},
		{"an init container's directory, which a failure starts again", files("setup:/work/*.log"), app + "\ninitContainers: [{name: setup, image: s}]\nrestartPolicy: OnFailure", []string{
			"/work of container setup is shared as a whole, so all files in it survive a container restart, including PID files, locks and sockets; keep those elsewhere, such as in /run, or write the logs to a directory of their own, such as /work/logs [LB0320]"}},
		{"a container with restart rules", files("/app/*.log"), "containers: [{name: app, image: a, restartPolicy: Never, restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [42]}}]}]", []string{
			"/app of container app is shared as a whole, so all files in it survive a container restart, including PID files, locks and sockets; keep those elsewhere, such as in /run, or write the logs to a directory of their own, such as /app/logs [LB0320]"}},
		{"a directory of a container that never starts again", files("/app/*.log"), app + "\nrestartPolicy: Never", nil},
		{"the same, by the container's own policy", files("/app/*.log"), "containers: [{name: app, image: a, restartPolicy: Never}]", nil},
		{"reclaim with a glob for anything", files("/srv/logs/*\nlog-bridge.dev/reclaim: 'true'"), app, []string{
			"log-bridge.dev/reclaim: app:/srv/logs/* may match files that are not logs; what is delivered of them is freed too, and reads as zeros; use a glob that matches only logs, such as /srv/logs/*.log [LB0321]"}},
		{"reclaim with globs for logs", files("/srv/logs/*.log, /srv/logs/app-log.*, /srv/logs/*.out\nlog-bridge.dev/reclaim: 'true'"), app, nil},
		{"logs in a directory of their own", files("/var/log/app/*.log, /app/logs/x.log, /srv/Log-Files_2/*, /opt/app-log/*.log, /home/x/.pm2/logs/*"), app, nil},
		{"one log beside the program", files("/app/app.log"), app, nil},

		{"a foreign container before the sidecar", ours, strings.Replace(has, "initContainers: [", "initContainers: [{name: copies, image: c, volumeMounts: [{name: log-bridge, mountPath: /app/app.log, subPath: app/app/app.log}]}, ", 1), []string{
			"init container copies mounts the log-bridge volume but starts before log-bridge: it sees empty directories, and the application does not see what it writes there; add it after log-bridge, or without these mounts [LB0210]"}},
		{"a foreign container that does not mount our volume", ours, strings.Replace(has, "initContainers: [", "initContainers: [{name: mesh, image: c}, ", 1), nil},
		{"the seeding container before the sidecar", ours, strings.Replace(has, "initContainers: [", "initContainers: [{name: log-bridge-seed-app, image: a, volumeMounts: [{name: log-bridge, mountPath: /log-bridge/.bin, subPath: .bin}]}, ", 1), []string{
			"seeding container log-bridge-seed-app comes before log-bridge, which provides its program, so the pod would never start; make the webhook that reorders init containers keep their order [LB0211]"}},

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
				t.Errorf("have:\n  %s\nwant:\n  %s", strings.Join(have, "\n  "), strings.Join(c.want, "\n  "))
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
