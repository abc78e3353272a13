package admit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/log-bridge/log-bridge/webhook/internal/admit"
	"github.com/log-bridge/log-bridge/webhook/internal/inject"
)

// hostile is a pod on its way to be a nuisance.
type hostile struct {
	annotations, metadata, spec, app map[string]any
	files                            []string
	containers, init, volumes        []any
	mounts, env                      []any
}

func (h *hostile) json() string {
	if len(h.files) > 0 {
		h.annotations["log-bridge.dev/files"] = strings.Join(h.files, ",")
	}
	h.metadata["annotations"] = h.annotations
	h.app["name"], h.app["image"] = "app", "i"
	h.app["volumeMounts"], h.app["env"] = h.mounts, h.env
	h.spec["containers"] = append([]any{h.app}, h.containers...)
	h.spec["initContainers"], h.spec["volumes"] = h.init, h.volumes
	text, err := json.Marshal(map[string]any{"metadata": h.metadata, "spec": h.spec})
	if err != nil {
		panic(err)
	}
	return string(text)
}

type object = map[string]any

// dimensions are ways to make a pod larger. most is the largest n that makes a difference: at
// it, the pod is as large as the API server lets it be, or something is refused.
var dimensions = []struct {
	name string
	most int
	grow func(h *hostile, n int)
}{
	{"entries", 250, func(h *hostile, n int) { h.each(n, func(i string) { h.files = append(h.files, "/a"+i+"/x.log") }) }},
	{"entries that lie in one another", 250, func(h *hostile, n int) {
		h.each(n, func(i string) { h.files = append(h.files, "/a"+strings.Repeat("/b", len(i)*9)+i) })
	}},
	{"entries of one directory", 250, func(h *hostile, n int) { h.each(n, func(i string) { h.files = append(h.files, "/log/"+i+"/*") }) }},
	{"entries of containers that are missing", 250, func(h *hostile, n int) { h.each(n, func(i string) { h.files = append(h.files, "x"+i+":/a") }) }},
	{"a path of many directories", 2000, func(h *hostile, n int) {
		for range 8 {
			h.files = append(h.files, strings.Repeat("/a", n)+"/x.log")
		}
	}},
	{"globs above mounts", 250, func(h *hostile, n int) {
		h.each(n, func(i string) { h.files = append(h.files, "/m/*"+i+"*") })
		h.each(16*n, func(i string) { h.mount("/m/" + i) })
	}},
	{"a glob that fits nothing slowly", 250, func(h *hostile, n int) {
		for i := range 100 {
			h.files = append(h.files, "/m/*"+strings.Repeat("a", n)+"b"+strconv.Itoa(i))
		}
		for range 2000 {
			h.mount("/m/" + strings.Repeat("a", n))
		}
	}},
	{"mounts under a glob", 6000, func(h *hostile, n int) {
		h.files = append(h.files, "/m/**/x")
		h.each(n, func(i string) { h.mount("/m/" + i) })
	}},
	{"mounts at one path", 6000, func(h *hostile, n int) {
		h.files = append(h.files, "/m/**/x")
		h.each(n, func(i string) { h.mount("/m") })
	}},
	{"mounts and entries that are read-only", 4000, func(h *hostile, n int) {
		for i := range 250 {
			h.files = append(h.files, "/m/"+strconv.Itoa(i)+"/x")
			h.mounts = append(h.mounts, object{"name": "v", "mountPath": "/m/" + strconv.Itoa(i), "readOnly": true})
		}
		h.each(n, func(i string) { h.mounts = append(h.mounts, object{"name": "v", "mountPath": "/w/" + i, "subPath": i}) })
	}},
	{"mounts that need variables", 3000, func(h *hostile, n int) {
		h.files = append(h.files, "/m/**/x")
		h.env = append(h.env, object{"name": "A", "value": "$(B)"}, object{"name": "B", "value": "b"})
		h.each(n, func(i string) {
			h.mounts = append(h.mounts, object{"name": "v", "mountPath": "/m/" + i, "subPathExpr": "$(A)" + i})
		})
	}},
	{"containers that mean different things by one name", 250, func(h *hostile, n int) {
		h.each(n, func(i string) {
			h.files = append(h.files, "c"+i+":/m/x")
			h.containers = append(h.containers, object{"name": "c" + i, "env": []any{object{"name": "A", "value": i}},
				"volumeMounts": []any{object{"name": "v", "mountPath": "/m", "subPathExpr": "$(A)"}}})
		})
	}},
	{"mounts that need a long variable", 3000, func(h *hostile, n int) {
		h.files = append(h.files, "/m/**/x")
		for i := range 60 {
			h.env = append(h.env, object{"name": "A" + strconv.Itoa(i), "value": strings.Repeat("$(", 2000)})
		}
		h.each(n, func(i string) {
			expr := "$(A0)"
			for j := range 12 {
				if k := len(h.mounts); k>>j&1 == 1 {
					expr += "$(A" + strconv.Itoa(j+1) + ")"
				}
			}
			h.mounts = append(h.mounts, object{"name": "v", "mountPath": "/m/" + i, "subPathExpr": expr})
		})
	}},
	{"containers that share a name and have one of their own", 250, func(h *hostile, n int) {
		h.each(n, func(i string) {
			h.files = append(h.files, "c"+i+":/m/x")
			h.containers = append(h.containers, object{"name": "c" + i, "env": []any{object{"name": "A", "value": i}, object{"name": "B" + i, "value": i}},
				"volumeMounts": []any{object{"name": "v", "mountPath": "/m", "subPathExpr": "$(A)$(B" + i + ")"}}})
		})
	}},
	{"variables", 7000, func(h *hostile, n int) {
		h.variable("$(V" + strconv.Itoa(n) + ")")
		h.each(n, func(i string) { h.env = append(h.env, object{"name": "V" + i, "value": "x"}) })
	}},
	{"a chain of variables", 7000, func(h *hostile, n int) {
		h.variable("$(V1)")
		for i := range n {
			h.env = append(h.env, object{"name": "V" + strconv.Itoa(i+1), "value": "$(V" + strconv.Itoa(i+2) + ")"})
		}
	}},
	{"variables of one name", 7000, func(h *hostile, n int) {
		h.variable("$(V)")
		h.each(n, func(string) { h.env = append(h.env, object{"name": "V", "value": "$(V)"}) })
	}},
	{"a value of dollar signs", 1 << 20, func(h *hostile, n int) {
		h.variable("$(V)")
		h.env = append(h.env, object{"name": "V", "value": strings.Repeat("$", n)})
	}},
	{"a value of open parentheses", 1 << 20, func(h *hostile, n int) {
		h.variable("$(V)")
		h.env = append(h.env, object{"name": "V", "value": strings.Repeat("$(", n/2)})
	}},
	{"a value of references", 1 << 20, func(h *hostile, n int) {
		h.variable("$(V)")
		var b strings.Builder
		h.each(n/8, func(i string) { b.WriteString("$(W" + i + ")") })
		h.env = append(h.env, object{"name": "V", "value": b.String()})
	}},
	{"an expression", 1 << 20, func(h *hostile, n int) { h.variable(strings.Repeat("$(V)", n/4)) }},
	{"an expression of dollar signs", 4000, func(h *hostile, n int) { h.variable(strings.Repeat("$(", n/2)) }},
	{"containers", 1000, func(h *hostile, n int) {
		h.each(n, func(i string) { h.containers = append(h.containers, object{"name": "c" + i}) })
	}},
	{"containers of nothing", 1 << 19, func(h *hostile, n int) { h.each(n, func(string) { h.containers = append(h.containers, object{}) }) }},
	{"containers that are null", 1 << 19, func(h *hostile, n int) { h.each(n, func(string) { h.init = append(h.init, nil) }) }},
	{"init containers of nothing", 1 << 19, func(h *hostile, n int) { h.each(n, func(string) { h.init = append(h.init, object{}) }) }},
	{"containers that are seeded", 250, func(h *hostile, n int) {
		h.each(n, func(i string) {
			name := strings.Repeat("c", 55) + i
			h.files = append(h.files, name+":/log/*")
			h.containers = append(h.containers, object{"name": name, "image": "i"})
		})
	}},
	{"volumes", 10_000, func(h *hostile, n int) {
		h.each(n, func(i string) { h.volumes = append(h.volumes, object{"name": "v" + i, "emptyDir": object{}}) })
	}},
	{"volumes of nothing", 1 << 19, func(h *hostile, n int) { h.each(n, func(string) { h.volumes = append(h.volumes, object{}) }) }},
	{"variables of nothing", 1 << 19, func(h *hostile, n int) { h.each(n, func(string) { h.env = append(h.env, object{}) }) }},
	{"mounts of nothing", 1 << 19, func(h *hostile, n int) { h.each(n, func(string) { h.mounts = append(h.mounts, object{}) }) }},
	{"arguments of nothing", 1 << 19, func(h *hostile, n int) {
		var args []any
		h.each(n, func(string) { args = append(args, "") })
		h.app["args"] = args
	}},
	{"keys that are none", 9000, func(h *hostile, n int) { h.each(n, func(i string) { h.annotations["log-bridge.dev/x"+i] = "" }) }},
	{"other annotations", 9000, func(h *hostile, n int) { h.each(n, func(i string) { h.annotations["example.com/x"+i] = "" }) }},
	{"a long key", 3 << 20, func(h *hostile, n int) { h.annotations["log-bridge.dev/"+strings.Repeat("f", n)] = "" }},
	{"a long annotation", 3 << 20, func(h *hostile, n int) { h.annotations["x"] = strings.Repeat("x", n) }},
	{"an annotation that becomes longer", 1 << 20, func(h *hostile, n int) { h.annotations["x"] = strings.Repeat("<", n) }},
	{"a long list of files", 3 << 20, func(h *hostile, n int) { h.files = append(h.files, strings.Repeat("/x,", n/3)) }},
	{"a long file", 3 << 20, func(h *hostile, n int) { h.files = append(h.files, strings.Repeat("/x", n/2)) }},
	{"a long list of volumes", 200_000, func(h *hostile, n int) {
		h.annotations["cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes"] = strings.Repeat(",", n)
	}},
	{"a status", 80_000, func(h *hostile, n int) {
		h.annotations["log-bridge.dev/status"] = `{"entries":[{}` + strings.Repeat(",{}", n/3) + `]}`
		h.init = append(h.init, object{"name": "log-bridge", "args": []any{"tail", "app:/x"}, "volumeMounts": []any{object{"name": "log-bridge", "mountPath": "/log-bridge"}}})
	}},
	{"arguments of a copy", 9000, func(h *hostile, n int) {
		h.annotations["log-bridge.dev/status"] = `{}`
		args := []any{"tail"}
		h.each(n, func(i string) { args = append(args, "--file=app:/x"+i) })
		h.init = append(h.init, object{"name": "log-bridge", "args": append(args, "app:/x"), "volumeMounts": []any{object{"name": "log-bridge", "mountPath": "/log-bridge"}}})
	}},
	{"mounts of a copy", 6000, func(h *hostile, n int) {
		h.annotations["log-bridge.dev/status"] = `{}`
		h.volumes = append(h.volumes, object{"name": "log-bridge", "emptyDir": object{}})
		h.each(n, func(i string) { h.mounts = append(h.mounts, object{"name": "log-bridge", "mountPath": "/" + i}) })
	}},
	{"a long container's name", 3 << 20, func(h *hostile, n int) {
		h.containers = append(h.containers, object{"name": strings.Repeat("c", n)})
	}},
	{"a long image", 3 << 20, func(h *hostile, n int) {
		h.containers = append(h.containers, object{"name": "c", "image": strings.Repeat("c", n)})
	}},
	{"a long mount path", 3 << 20, func(h *hostile, n int) { h.mount(strings.Repeat("/m", n/2)) }},
	{"a long mount under a glob", 3 << 20, func(h *hostile, n int) {
		h.files = append(h.files, "/m/**")
		h.mounts = append(h.mounts, object{"name": "v", "mountPath": "/m/x", "subPath": strings.Repeat("<", n)})
	}},
	{"a long default container", 200_000, func(h *hostile, n int) {
		h.annotations["kubectl.kubernetes.io/default-container"] = strings.Repeat("c", n)
	}},
	{"a number in an annotation", 200_000, func(h *hostile, n int) { h.annotations["log-bridge.dev/cpu-limit"] = strings.Repeat("9", n) }},
	{"a number of the container", 3 << 20, func(h *hostile, n int) {
		h.app["resources"] = object{"limits": object{"cpu": strings.Repeat("9", n)}}
	}},
	{"an exponent of the container", 1 << 28, func(h *hostile, n int) {
		h.app["resources"] = object{"limits": object{"cpu": "1e" + strconv.Itoa(n)}}
	}},
	{"an exponent in an annotation", 1 << 28, func(h *hostile, n int) { h.annotations["log-bridge.dev/size-limit"] = "1e" + strconv.Itoa(n) }},
	{"an exponent of many", 5000, func(h *hostile, n int) {
		limits := object{}
		h.each(n, func(i string) { limits["example.com/"+i] = "1e99" })
		h.app["resources"] = object{"limits": limits}
	}},
	{"managed fields", 1 << 18, func(h *hostile, n int) {
		fields := object{}
		h.each(n, func(i string) { fields["f:"+i] = object{} })
		h.metadata["managedFields"] = []any{object{"manager": "m", "fieldsV1": fields}}
	}},
	{"labels", 9000, func(h *hostile, n int) {
		labels := object{}
		h.each(n, func(i string) { labels[i] = "" })
		h.metadata["labels"] = labels
	}},
	{"owners", 9000, func(h *hostile, n int) {
		var owners []any
		h.each(n, func(string) { owners = append(owners, object{}) })
		h.metadata["ownerReferences"] = owners
	}},
	{"an unknown field", 1 << 19, func(h *hostile, n int) {
		var list []any
		h.each(n, func(string) { list = append(list, object{}) })
		h.spec["unknown"] = list
	}},
	{"quotes", 1 << 20, func(h *hostile, n int) { h.app["workingDir"] = strings.Repeat(`"\`, n/2) }},
}

func (h *hostile) each(n int, do func(i string)) {
	for i := range n {
		do(strconv.Itoa(i + 1))
	}
}

func (h *hostile) mount(at string) { h.mounts = append(h.mounts, object{"name": "v", "mountPath": at}) }

func (h *hostile) variable(expr string) {
	h.files = append(h.files, "/e/x")
	h.mounts = append(h.mounts, object{"name": "v", "mountPath": "/e", "subPathExpr": expr})
}

func newHostile() *hostile {
	return &hostile{annotations: object{}, metadata: object{"name": "p"}, spec: object{}, app: object{},
		files: []string{"/app/app.log"}, volumes: []any{object{"name": "v", "emptyDir": object{}}}}
}

// cost is what an admission takes.
type cost struct {
	cpu          time.Duration // of the thread, so that neighbours do not count
	memory       uint64        // all that is allocated, whether or not it is freed meanwhile
	said, logged int           // bytes of the sentences and of the log
}

// measure sends a pod through the handler a few times and returns the least cost.
func measure(t *testing.T, pod string, times int) cost {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	body := review(pod)
	least := cost{cpu: time.Hour, memory: 1 << 40}
	for range times {
		var log bytes.Buffer
		h := bounded(admit.Handler(decide, slog.New(slog.NewJSONHandler(&log, nil)), admit.Counter()))
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodPost, admit.Path, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		begun := threadTime(t)
		h.ServeHTTP(w, r)
		took := threadTime(t) - begun
		runtime.ReadMemStats(&after)
		said := 0
		if w.Code == http.StatusOK {
			var answer admissionv1.AdmissionReview
			if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
				t.Fatal(err)
			}
			if result := answer.Response.Result; result != nil {
				said = len(result.Message)
			}
			for _, warning := range answer.Response.Warnings {
				said += len(warning)
			}
		}
		least = cost{min(least.cpu, took), min(least.memory, after.TotalAlloc-before.TotalAlloc), said, log.Len()}
	}
	return least
}

// threadTime is the processor time of this thread, to which a goroutine must be locked.
func threadTime(t *testing.T) time.Duration {
	t.Helper()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &now); err != nil {
		t.Fatal(err)
	}
	return time.Duration(now.Nano())
}

// TestSlowestPod grows a pod in each dimension, and in some of them at once, and looks for one
// that costs more than what docs/security.md promises. 100 ms are told by what the same
// machine takes in the same run to see that 3 MiB of JSON are valid: 8 ms on a usual one.
func TestSlowestPod(t *testing.T) {
	if testing.Short() {
		t.Skip("the search for the slowest pod is not short")
	}
	if race {
		t.Skip("the race detector costs more than what is measured")
	}
	plain := []byte(`{"a":"` + strings.Repeat("x", 3<<20) + `"}`)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	yardstick := time.Hour
	for range 10 {
		begun := threadTime(t)
		json.Valid(plain)
		yardstick = min(yardstick, threadTime(t)-begun)
	}
	bounded := func(name, pod string) {
		c := measure(t, pod, 1)
		if c.cpu > 12*yardstick {
			c = measure(t, pod, 5)
		}
		t.Logf("%9d bytes, %6.2f ms, %5.1f MiB, %5d and %5d bytes of words: %s", len(pod), c.cpu.Seconds()*1000, float64(c.memory)/(1<<20), c.said, c.logged, name)
		if c.cpu > 12*yardstick {
			t.Errorf("%s: %v, more than 12 times the %v that it takes to read 3 MiB", name, c.cpu, yardstick)
		}
		if c.memory > 16<<20 {
			t.Errorf("%s: %d bytes of memory", name, c.memory)
		}
		if c.said > 8<<10+4<<10 || c.logged > 12<<10 {
			t.Errorf("%s: %d bytes are said, %d logged", name, c.said, c.logged)
		}
	}
	for _, d := range dimensions {
		// Those that become very large have their worst where they are just not refused.
		for _, n := range []int{d.most, d.most / 32} {
			h := newHostile()
			d.grow(h, n)
			bounded(fmt.Sprintf("%s (%d)", d.name, n), h.json())
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 40 {
		h := newHostile()
		name := ""
		for range 3 {
			d := dimensions[random.IntN(len(dimensions))]
			n := max(1, d.most>>random.IntN(7))
			d.grow(h, n)
			name += fmt.Sprintf("%s (%d), ", d.name, n)
		}
		bounded(name, h.json())
	}
}

// TestCostGrowsWithSize compares each dimension with itself: sixteen times as much of it must
// not cost much more than sixteen times as much.
func TestCostGrowsWithSize(t *testing.T) {
	if testing.Short() {
		t.Skip("large pods are not short")
	}
	if race {
		t.Skip("the race detector costs more than what is measured")
	}
	for _, d := range dimensions {
		pod := func(n int) string {
			h := newHostile()
			d.grow(h, n)
			return h.json()
		}
		// Above a bound the cost falls, so the largest two within it are compared.
		large := d.most
		for inject.MaxValues < 4*large && large > 4000 {
			large /= 2
		}
		small := measure(t, pod(large/16), 5)
		big := measure(t, pod(large), 5)
		// What each admission costs anyway.
		const cpu, memory = 200 * time.Microsecond, 64 << 10
		if r := float64(big.cpu+cpu) / float64(small.cpu+cpu); r > 64 {
			t.Errorf("%s: %d cost %v, %d cost %v: %.0f times as much", d.name, large/16, small.cpu, large, big.cpu, r)
		}
		if r := float64(big.memory+memory) / float64(small.memory+memory); r > 32 {
			t.Errorf("%s: %d take %d bytes, %d take %d: %.0f times as much", d.name, large/16, small.memory, large, big.memory, r)
		}
	}
}

// FuzzBounds: no pod makes the webhook say or log more than it may, or take more memory.
func FuzzBounds(f *testing.F) {
	for _, d := range dimensions {
		h := newHostile()
		d.grow(h, min(d.most, 12))
		f.Add(h.json())
	}
	var log bytes.Buffer
	handler := bounded(admit.Handler(decide, slog.New(slog.NewJSONHandler(&log, nil)), admit.Counter()))
	f.Fuzz(func(t *testing.T, pod string) {
		log.Reset()
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodPost, admit.Path, strings.NewReader(review(pod)))
		r.Header.Set("Content-Type", "application/json")
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		handler.ServeHTTP(w, r)
		runtime.ReadMemStats(&after)
		// Many processes fuzz at once, but each has its own memory.
		if grown := after.TotalAlloc - before.TotalAlloc; grown > 16<<20 {
			t.Errorf("%d bytes of memory", grown)
		}
		if log.Len() > 12<<10 || strings.Count(log.String(), "\n") != 1 || strings.Contains(log.String(), `"panic"`) {
			t.Errorf("%d bytes of log: %.2000s", log.Len(), &log)
		}
		var answer admissionv1.AdmissionReview
		if w.Code == http.StatusOK && json.Unmarshal(w.Body.Bytes(), &answer) == nil && answer.Response.Result != nil && len(answer.Response.Result.Message) > 8<<10 {
			t.Errorf("a message of %d bytes", len(answer.Response.Result.Message))
		}
	})
}

// A call that the API server gave up is a failed call, and costs no more.
func TestGivenUp(t *testing.T) {
	h := newHostile()
	for i := range 250 {
		h.files = append(h.files, "/m/*"+strconv.Itoa(i))
	}
	ctx, end := context.WithCancel(t.Context())
	var log bytes.Buffer
	calls := 0
	handler := admit.Handler(func(ctx context.Context, pod *corev1.Pod) inject.Result {
		end()
		calls++
		return decide(ctx, pod)
	}, slog.New(slog.NewJSONHandler(&log, nil)), admit.Counter())
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodPost, admit.Path, strings.NewReader(review(h.json()))).WithContext(ctx)
	r.Header.Set("Content-Type", "application/json")
	handler.ServeHTTP(w, r)
	if w.Code != http.StatusServiceUnavailable || calls != 1 || !strings.Contains(log.String(), `"reason":"canceled"`) {
		t.Errorf("HTTP %d, %d calls, log:\n%s", w.Code, calls, &log)
	}
}

// A pod that declines is left unchanged, however large it is.
func TestTooLargeAndDeclined(t *testing.T) {
	for annotations, want := range map[string]string{
		`"log-bridge.dev/files":"/x"`:                                                      "the pod has more",
		`"log-bridge.dev/files":"/x","log-bridge.dev/inject":" false"`:                     "left-alone",
		`"log-bridge.dev/files":"/x","log-bridge.dev/inject":"true"`:                       "the pod has",
		`"log-bridge.dev/files":"/x","kubernetes.io/config.mirror":"x"`:                    "left-alone",
		`"log-bridge.dev/files":"/x","log-bridge.dev/status":"{\"version\":\"\",\"x\":0}"`: "left-alone",
	} {
		for _, containers := range []string{strings.Repeat(`{},`, 2000) + `{}`, `{"name":"` + strings.Repeat("x", inject.MaxPod) + `"}`} {
			s := serve(t, decide)
			a := s.ask(t, `{"metadata":{"annotations":{`+annotations+`}},"spec":{"containers":[`+containers+`]}}`)
			if want == "left-alone" && !a.Allowed || want != "left-alone" && (a.Allowed || !strings.Contains(a.Result.Message, "[LB0207]")) {
				t.Errorf("%s: answer %+v, want %s", annotations, a, want)
			}
		}
	}
}
