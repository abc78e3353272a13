package survey

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/log-bridge/log-bridge/webhook/internal/inject"
)

// cluster is an API server that has what a test says and forbids what it does not know.
type cluster struct {
	// lists are the objects by path, each one page after the other, as JSON.
	lists map[string][]string
	// objects by path.
	objects map[string]string
	// created answers the probe: a status code and an object.
	created func(body []byte) (int, string)
	// expired is the path of which the list expires behind its first page.
	expired string
	// asked are the calls.
	asked []string
}

const empty = "\x00" // a list without an object

func (c *cluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	c.asked = append(c.asked, r.Method+" "+path)
	w.Header().Set("Content-Type", "application/json")
	answer := func(code int, text string) {
		w.WriteHeader(code)
		fmt.Fprint(w, text)
	}
	refuse := func(code int, reason, message, more string) {
		answer(code, fmt.Sprintf(`{"kind":"Status","apiVersion":"v1","status":"Failure","code":%d,"reason":%q,"message":%q,"metadata":{%s}}`, code, reason, message, more))
	}
	switch pages, listed := c.lists[path]; {
	case r.Method == http.MethodPost && c.created != nil:
		if r.URL.Query().Get("dryRun") != "All" {
			refuse(http.StatusTeapot, "", "not a dry run", "")
			return
		}
		body, _ := io.ReadAll(r.Body)
		answer(c.created(body))
	case listed && r.Method == http.MethodGet:
		var at int
		token := r.URL.Query().Get("continue")
		if path == c.expired && token == "1" {
			refuse(http.StatusGone, "Expired", "the list is too old", `"continue":"again-1"`)
			return
		}
		_, _ = fmt.Sscan(strings.TrimPrefix(token, "again-"), &at)
		next := ""
		if at+1 < len(pages) {
			next = fmt.Sprint(at + 1)
		}
		items := pages[at]
		if items == empty {
			items = ""
		}
		answer(http.StatusOK, fmt.Sprintf(`{"kind":"List","apiVersion":"v1","metadata":{"continue":%q},"items":[%s]}`, next, items))
	case c.objects[path] != "" && r.Method == http.MethodGet:
		answer(http.StatusOK, c.objects[path])
	case strings.HasSuffix(path, "/gone"):
		refuse(http.StatusNotFound, "NotFound", path+" not found", "")
	default:
		refuse(http.StatusForbidden, "Forbidden", `User "x" cannot `+strings.ToLower(r.Method)+" "+path, "")
	}
}

// everything is a cluster in which nothing is wrong and nothing is found.
func everything() *cluster {
	c := &cluster{lists: map[string][]string{}, objects: map[string]string{
		"/api/v1/namespaces/shop": `{"kind":"Namespace","apiVersion":"v1","metadata":{"name":"shop","labels":{"kubernetes.io/metadata.name":"shop"}}}`,
	}}
	for _, kind := range append(slices.Clone(workloads), pods) {
		c.lists[listPath(kind.Group, kind.Resource)] = []string{empty}
	}
	c.lists["/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"] = []string{configuration(bundle(), "log-bridge-webhook")}
	c.objects["/api/v1/namespaces/logging/services/log-bridge-webhook"] = `{"kind":"Service","apiVersion":"v1","metadata":{"name":"log-bridge-webhook"},"spec":{"selector":{"app":"webhook"}}}`
	c.lists["/api/v1/namespaces/logging/pods"] = []string{`{"kind":"Pod","apiVersion":"v1","metadata":{"name":"hook","namespace":"logging"},"status":{"phase":"Pending","conditions":[{"type":"Ready","status":"True"}]}}`}
	c.created = func(body []byte) (int, string) {
		return http.StatusCreated, strings.Replace(string(body), `"containers":`, `"initContainers":[{"name":"log-bridge","restartPolicy":"Always"}],"containers":`, 1)
	}
	return c
}

func listPath(group, resource string) string {
	switch group {
	case "":
		return "/api/v1/namespaces/shop/" + resource
	default:
		return "/apis/" + group + "/v1/namespaces/shop/" + resource
	}
}

func configuration(bundle []byte, service string) string {
	return `{"kind":"MutatingWebhookConfiguration","apiVersion":"admissionregistration.k8s.io/v1","metadata":{"name":"log-bridge"},"webhooks":[{"name":"inject.log-bridge.dev",
		"clientConfig":{"caBundle":"` + base64.StdEncoding.EncodeToString(bundle) + `","service":{"name":"` + service + `","namespace":"logging"}},
		"namespaceSelector":{"matchExpressions":[{"key":"log-bridge.dev/inject","operator":"NotIn","values":["false"]}]}}]}`
}

func look(t *testing.T, c *cluster) Report {
	t.Helper()
	server := httptest.NewServer(c)
	t.Cleanup(server.Close)
	report, err := Look(t.Context(), Options{Rest: &rest.Config{Host: server.URL}, Namespace: "shop", Inject: inject.Config{Image: "x"}})
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// told is the report in lines of "OBJECT CODE".
func told(r Report) []string {
	all := []string{}
	for _, o := range r.Objects {
		for _, f := range o.Findings {
			line := o.Name + " " + string(f.Code)
			if o.More > 0 {
				line += fmt.Sprintf(" +%d", o.More)
			}
			all = append(all, line)
		}
	}
	return all
}

func TestNothingWrong(t *testing.T) {
	c := everything()
	r := look(t, c)
	if len(r.Objects) > 0 || len(r.Errors) > 0 || r.Outcome != Injects {
		t.Errorf("found %v, errors %v, the webhook %s", told(r), r.Errors, r.Outcome)
	}
	for _, call := range c.asked {
		if !strings.HasPrefix(call, "GET ") && call != "POST /api/v1/namespaces/shop/pods" {
			t.Errorf("a survey changes nothing, but asked %s", call)
		}
	}
}

func pod(name, annotations, more string) string {
	return `{"kind":"Pod","apiVersion":"v1","metadata":{"name":"` + name + `","namespace":"shop","annotations":{` + annotations + `}` + more + `},"spec":{"containers":[{"name":"app","image":"x"}]}}`
}

// mounting gives the container app a mount of a volume with the name of ours.
func mounting(pod, subPath string) string {
	return strings.Replace(pod, `"image":"x"}]`, `"image":"x","volumeMounts":[{"name":"log-bridge","mountPath":"/app/app.log","subPath":"`+subPath+`"}]}],"volumes":[{"name":"log-bridge","emptyDir":{}}]`, 1)
}

const annotated = `"log-bridge.dev/files":"/app/app.log"`

// What the parts of a cluster are found to be.
func TestFindings(t *testing.T) {
	const podsOfShop = "/api/v1/namespaces/shop/pods"
	const confs = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
	injected := func(status string) string {
		return `{"kind":"Pod","apiVersion":"v1","metadata":{"name":"x","namespace":"shop","annotations":{` + annotated + `,"log-bridge.dev/status":"{\"entries\":[{\"entry\":\"app:/app/app.log\"}]}"}},
			"spec":{"containers":[{"name":"app","image":"x"}],"initContainers":[{"name":"log-bridge","restartPolicy":"Always","volumeMounts":[{"name":"log-bridge","mountPath":"/log-bridge"}]}]},
			"status":{"initContainerStatuses":[{"name":"log-bridge","image":"sidecar:1","state":` + status + `}]}}`
	}
	for name, test := range map[string]struct {
		change func(*cluster)
		want   []string
		text   string
		probe  Outcome
	}{
		"an annotated pod without the sidecar": {
			change: func(c *cluster) { c.lists[podsOfShop] = []string{pod("web", annotated, "")} },
			want:   []string{"Pod/web LB0701"}, text: "delete it, so that its controller creates it again",
		},
		"a pod that was not asked about": {change: func(c *cluster) { c.lists[podsOfShop] = []string{pod("web", `"other/files":"/x"`, "")} }},
		"a pod that declined": {change: func(c *cluster) {
			c.lists[podsOfShop] = []string{pod("web", annotated+`,"log-bridge.dev/inject":"false"`, "")}
		}},
		"a hundred replicas": {
			change: func(c *cluster) {
				owner := `,"ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"web","uid":"u","controller":true}]`
				page := []string{}
				for i := range 10 {
					page = append(page, pod(fmt.Sprint("web-", i), annotated, owner))
				}
				c.lists[podsOfShop] = slices.Repeat([]string{strings.Join(page, ",")}, 10)
			},
			want: []string{"Pod/web-0 LB0701 +99"},
		},
		"a list that expires between two pages": {
			change: func(c *cluster) {
				c.lists[podsOfShop] = []string{pod("a", annotated, ""), pod("b", annotated, ""), pod("c", annotated, "")}
				c.expired = podsOfShop
			},
			want: []string{"Pod/a LB0701", "Pod/b LB0701", "Pod/c LB0701"},
		},
		"a pod with a mistake that nobody refused": {
			change: func(c *cluster) { c.lists[podsOfShop] = []string{pod("web", `"log-bridge.dev/files":"app.log"`, "")} },
			want:   []string{"Pod/web LB0103"},
		},
		"a pod from which the sidecar was removed": {
			change: func(c *cluster) {
				c.lists[podsOfShop] = []string{mounting(pod("web", annotated+`,"log-bridge.dev/status":"{}"`, ""), "app/app/app.log"), mounting(pod("declined", annotated+`,"log-bridge.dev/inject":"false"`, ""), "app/app/app.log")}
			},
			want: []string{"Pod/web LB0720", "Pod/declined LB0720"}, text: "the sidecar of the pod was removed",
		},
		"a copy of a pod, without annotations and init containers": {
			change: func(c *cluster) {
				c.lists[podsOfShop] = []string{mounting(pod("copy", `"other/files":"/x"`, ""), "app/app/app.log")}
			},
			want: []string{"Pod/copy LB0720"},
		},
		"a removed sidecar that followed a volume of the pod's own": {
			change: func(c *cluster) {
				c.lists[podsOfShop] = []string{strings.Replace(pod("web", annotated+`,"log-bridge.dev/status":"{}"`, ""), `"spec":{`, `"spec":{"volumes":[{"name":"log-bridge","emptyDir":{}}],`, 1)}
			},
			want: []string{"Pod/web LB0720"},
		},
		"a foreign volume that has the name of ours": {
			change: func(c *cluster) { c.lists[podsOfShop] = []string{mounting(pod("web", `"other/files":"/x"`, ""), "")} },
		},
		"a pod in a namespace that is left out": {
			change: func(c *cluster) {
				c.lists[podsOfShop] = []string{pod("web", annotated, "")}
				c.objects["/api/v1/namespaces/shop"] = `{"kind":"Namespace","apiVersion":"v1","metadata":{"name":"shop","labels":{"log-bridge.dev/inject":"false"}}}`
			},
			want: []string{"Pod/web LB0702", "probe LB0702"}, probe: NotTried,
		},
		"a sidecar that runs":   {change: func(c *cluster) { c.lists[podsOfShop] = []string{injected(`{"running":{}}`)} }},
		"a sidecar that starts": {change: func(c *cluster) { c.lists[podsOfShop] = []string{injected(`{"waiting":{"reason":"PodInitializing"}}`)} }},
		"an image that cannot be pulled": {
			change: func(c *cluster) {
				c.lists[podsOfShop] = []string{injected(`{"waiting":{"reason":"ImagePullBackOff","message":"no such host"}}`)}
			},
			want: []string{"Pod/x LB0703"}, text: "cannot pull sidecar:1, so the application does not start: ImagePullBackOff: no such host",
		},
		"a sidecar that crashes": {
			change: func(c *cluster) {
				c.lists[podsOfShop] = []string{injected(`{"waiting":{"reason":"CrashLoopBackOff","message":"back-off"}}`)}
			},
			want: []string{"Pod/x LB0704"}, text: "kubectl logs -n shop x -c log-bridge --previous",
		},
		"a sidecar that another webhook made an ordinary init container": {
			change: func(c *cluster) {
				c.lists[podsOfShop] = []string{strings.Replace(injected(`{"running":{}}`), `"restartPolicy":"Always",`, "", 1)}
			},
			want: []string{"Pod/x LB0710"}, text: "update that webhook, then delete the pod",
		},
		"an annotation on the workload, and one with a mistake in the template": {
			change: func(c *cluster) {
				c.lists["/apis/apps/v1/namespaces/shop/deployments"] = []string{`{"kind":"Deployment","apiVersion":"apps/v1","metadata":{"name":"web","namespace":"shop","annotations":{` + annotated + `}},"spec":{"template":{"spec":{"containers":[{"name":"app"}]}}}}`}
				c.lists["/apis/batch/v1/namespaces/shop/cronjobs"] = []string{`{"kind":"CronJob","apiVersion":"batch/v1","metadata":{"name":"nightly","namespace":"shop"},"spec":{"jobTemplate":{"spec":{"template":{"metadata":{"annotations":{"log-bridge.dev/file":"/a"}},"spec":{"containers":[{"name":"app"}]}}}}}}`}
			},
			want: []string{"Deployment/web LB0601", "CronJob/nightly LB0101"},
		},
		"what a workload made repeats its annotations": {
			change: func(c *cluster) {
				c.lists["/apis/apps/v1/namespaces/shop/replicasets"] = []string{`{"kind":"ReplicaSet","apiVersion":"apps/v1","metadata":{"name":"web-1","namespace":"shop","annotations":{` + annotated + `},"ownerReferences":[{"kind":"Deployment","name":"web","uid":"u","controller":true}]},"spec":{"template":{"spec":{}}}}`}
			},
		},
		"no webhook": {
			change: func(c *cluster) {
				c.lists[confs] = []string{empty}
				c.created = func(body []byte) (int, string) { return http.StatusCreated, string(body) }
			},
			want: []string{"MutatingWebhookConfigurations LB0801", "probe LB0807"}, probe: Fails,
		},
		"two releases": {
			change: func(c *cluster) {
				second := strings.NewReplacer(`"name":"log-bridge"}`, `"name":"another-log-bridge","labels":{"app.kubernetes.io/instance":"another","app.kubernetes.io/version":"0.2.0"}}`).Replace(configuration(bundle(), "log-bridge-webhook"))
				c.lists[confs] = append(c.lists[confs], second)
			},
			want: []string{"MutatingWebhookConfigurations LB0821"},
			text: "log-bridge is installed 2 times: MutatingWebhookConfiguration another-log-bridge of release another in namespace logging, version 0.2.0; MutatingWebhookConfiguration log-bridge in namespace logging; in a namespace that several of them serve, another-log-bridge injects",
		},
		"a webhook that drops restartPolicy, so that the API server refuses": {
			change: func(c *cluster) {
				c.created = func([]byte) (int, string) {
					return http.StatusUnprocessableEntity, `{"kind":"Status","status":"Failure","reason":"Invalid","code":422,"message":"Pod \"x\" is invalid: spec.initContainers[0].lifecycle: Forbidden: may not be set for init containers without restartPolicy=Always"}`
				}
			},
			want: []string{"probe LB0822"}, text: "another admission webhook drops restartPolicy", probe: Fails,
		},
		"a webhook that drops restartPolicy and the lifecycle": {
			change: func(c *cluster) {
				c.created = func(body []byte) (int, string) {
					return http.StatusCreated, strings.Replace(string(body), `"containers":`, `"initContainers":[{"name":"log-bridge"}],"containers":`, 1)
				}
			},
			want: []string{"probe LB0822"}, text: "another admission webhook drops restartPolicy", probe: Fails,
		},
		"a foreign webhook of that label": {
			change: func(c *cluster) {
				c.lists[confs] = []string{strings.ReplaceAll(configuration(bundle(), "x"), "inject.log-bridge.dev", "other.log-bridge.dev")}
			},
			want: []string{"MutatingWebhookConfigurations LB0801"},
		},
		"an empty caBundle": {
			change: func(c *cluster) { c.lists[confs] = []string{configuration(nil, "log-bridge-webhook")} },
			want:   []string{"MutatingWebhookConfiguration/log-bridge LB0802"},
		},
		"a caBundle that is no certificate": {
			change: func(c *cluster) { c.lists[confs] = []string{configuration([]byte("PEM"), "log-bridge-webhook")} },
			want:   []string{"MutatingWebhookConfiguration/log-bridge LB0802"},
		},
		"no Service": {
			change: func(c *cluster) { c.lists[confs] = []string{configuration(bundle(), "gone")} },
			want:   []string{"Service/gone LB0805"},
		},
		"no webhook pod": {
			change: func(c *cluster) { c.lists["/api/v1/namespaces/logging/pods"] = []string{empty} },
			want:   []string{"Service/log-bridge-webhook LB0805"}, text: "check the replicas of the Deployment",
		},
		"a webhook pod that cannot start": {
			change: func(c *cluster) {
				c.lists["/api/v1/namespaces/logging/pods"] = []string{`{"kind":"Pod","apiVersion":"v1","metadata":{"name":"hook","namespace":"logging"},"status":{"phase":"Pending","containerStatuses":[{"name":"webhook","state":{"waiting":{"reason":"ErrImagePull","message":"no such image"}}}]}}`}
			},
			want: []string{"Pod/hook LB0806", "Service/log-bridge-webhook LB0805"}, text: "it is not ready: ErrImagePull: no such image",
		},
		"one that may not look at the webhook": {
			change: func(c *cluster) { delete(c.lists, confs) },
			want:   []string{"MutatingWebhookConfigurations LB0809"}, text: "cannot get /apis/admissionregistration.k8s.io",
		},
		"one that may not look at the webhook's pods": {
			change: func(c *cluster) { delete(c.lists, "/api/v1/namespaces/logging/pods") },
			want:   []string{"Service/log-bridge-webhook LB0809"},
		},
		"one that may not look at namespaces": {
			change: func(c *cluster) {
				delete(c.objects, "/api/v1/namespaces/shop")
				c.lists[podsOfShop] = []string{pod("web", annotated, "")}
			},
			want: []string{"Namespace/shop LB0809", "Pod/web LB0701"},
		},
		"a call that fails": {
			change: func(c *cluster) {
				c.created = func([]byte) (int, string) {
					return http.StatusInternalServerError, `{"kind":"Status","status":"Failure","reason":"InternalError","code":500,"message":"failed calling webhook \"inject.log-bridge.dev\": connection refused"}`
				}
			},
			want: []string{"probe LB0807"}, text: "connection refused", probe: Fails,
		},
		"a policy that asks for the sidecar": {
			change: func(c *cluster) {
				c.created = func([]byte) (int, string) {
					return http.StatusUnprocessableEntity, `{"kind":"Status","status":"Failure","reason":"Invalid","code":422,"message":"this pod has log-bridge.dev/files but was admitted without the sidecar"}`
				}
			},
			want: []string{"probe LB0807"}, probe: Fails,
		},
		"a quota": {
			change: func(c *cluster) {
				c.created = func([]byte) (int, string) {
					return http.StatusForbidden, `{"kind":"Status","status":"Failure","reason":"Forbidden","code":403,"message":"exceeded quota"}`
				}
			},
			want: []string{"probe LB0808"}, text: "exceeded quota", probe: NotTried,
		},
		"one that may not create pods": {
			change: func(c *cluster) {
				c.created = func([]byte) (int, string) {
					return http.StatusForbidden, `{"kind":"Status","status":"Failure","reason":"Forbidden","code":403,"message":"pods is forbidden: User \"x\" cannot create resource \"pods\""}`
				}
			},
			want: []string{"probe LB0809"}, probe: NotTried,
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := everything()
			test.change(c)
			r := look(t, c)
			if len(r.Errors) > 0 {
				t.Errorf("errors: %v", r.Errors)
			}
			if have := told(r); !slices.Equal(have, test.want) {
				t.Errorf("have %q\nwant %q", have, test.want)
			}
			if test.probe == "" {
				test.probe = Injects
			}
			if r.Outcome != test.probe {
				t.Errorf("the webhook %s, want: %s", r.Outcome, test.probe)
			}
			if text := fmt.Sprint(r.Objects); !strings.Contains(text, test.text) {
				t.Errorf("no words %q in %s", test.text, text)
			}
		})
	}
}

// Someone who may not see the pods or the workloads does not learn that all is well.
func TestForbidden(t *testing.T) {
	c := everything()
	delete(c.lists, "/api/v1/namespaces/shop/pods")
	delete(c.lists, "/apis/batch/v1/namespaces/shop/jobs")
	r := look(t, c)
	if len(r.Errors) != 2 || !strings.Contains(r.Errors[0].Error(), "list jobs: ") || !strings.Contains(r.Errors[1].Error(), "list pods: ") {
		t.Errorf("errors: %v", r.Errors)
	}
}

// The certificate of a webhook pod is judged as the API server does.
func TestJudge(t *testing.T) {
	now := time.Now()
	ca, key := certificate(t, nil, nil, now.Add(365*24*time.Hour))
	short, shortKey := certificate(t, nil, nil, now.Add(time.Hour))
	other, _ := certificate(t, nil, nil, now.Add(365*24*time.Hour))
	for name, test := range map[string]struct {
		by    *x509.Certificate
		key   *ecdsa.PrivateKey
		life  time.Duration
		roots []*x509.Certificate
		host  string
		want  string
	}{
		"good":              {ca, key, 30 * 24 * time.Hour, []*x509.Certificate{other, ca}, "hook.logging.svc", ""},
		"another CA":        {ca, key, 30 * 24 * time.Hour, []*x509.Certificate{other}, "hook.logging.svc", "LB0803: unknown authority"},
		"another name":      {ca, key, 30 * 24 * time.Hour, []*x509.Certificate{ca}, "other.logging.svc", "LB0803: not other.logging.svc"},
		"ended":             {ca, key, -time.Minute, []*x509.Certificate{ca}, "hook.logging.svc", "LB0803: has expired"},
		"ends soon":         {ca, key, 6 * 24 * time.Hour, []*x509.Certificate{ca}, "hook.logging.svc", "LB0804: expires at "},
		"a CA that expires": {short, shortKey, 30 * 24 * time.Hour, []*x509.Certificate{short}, "hook.logging.svc", "LB0804: expires at "},
	} {
		t.Run(name, func(t *testing.T) {
			leaf, _ := certificate(t, test.by, test.key, now.Add(test.life))
			have := ""
			for _, f := range judge([]*x509.Certificate{leaf}, test.roots, test.host, now) {
				have += string(f.Code) + ": " + f.Text()
			}
			code, words, _ := strings.Cut(test.want, ": ")
			if (have == "") != (test.want == "") || !strings.HasPrefix(have, code) || !strings.Contains(have, words) {
				t.Errorf("have %q, want %q", have, test.want)
			}
		})
	}
}

// certificate makes an authority, or a certificate for hook.logging.svc signed by one.
func certificate(t testing.TB, by *x509.Certificate, key *ecdsa.PrivateKey, end time.Time) (*x509.Certificate, *ecdsa.PrivateKey) {
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{Subject: pkix.Name{CommonName: "x"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: end, BasicConstraintsValid: true}
	if by == nil {
		template.IsCA = true
		by, key = template, own
	} else {
		template.DNSNames = []string{"hook.logging.svc"}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by, own.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c, own
}

// bundle is a caBundle.
func bundle() []byte {
	c, _ := certificate(&testing.T{}, nil, nil, time.Now().Add(365*24*time.Hour))
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}
