package survey

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"

	"github.com/log-bridge/log-bridge/webhook/internal/inject"
	"github.com/log-bridge/log-bridge/webhook/internal/rules"
)

const (
	byTeam   = `{"name":"team","namespaceSelector":{"matchLabels":{"team":"shop"}},"podSelector":{"matchLabels":{"app":"web"}},"annotations":{"files":"/logs/*.log"}}`
	byWorker = `{"name":"worker","podSelector":{"matchLabels":{"app":"web"}},"annotations":{"files":"worker:/logs/*.log"}}`
	byAny    = `{"name":"any","podSelector":{"matchLabels":{"app":"web"}},"annotations":{"files":"*:/logs/*.log","format":"json"}}`
	defaults = `{"name":"defaults","namespaceSelector":{"matchLabels":{"team":"shop"}},"annotations":{"format":"json"}}`
)

func set(t *testing.T, of ...string) *rules.Set {
	t.Helper()
	s, findings := rules.Parse(t.Context(), []byte(`{"rules":[`+strings.Join(of, ",")+`]}`), inject.Config{Image: "x"})
	for _, f := range findings {
		if f.Severity() == "mistake" {
			t.Fatal(f)
		}
	}
	return s
}

// made is a pod as the API server stores it after the webhook has decided by some rules.
func made(t *testing.T, name, annotations string, by ...string) string {
	t.Helper()
	text := pod(name, annotations, `,"labels":{"app":"web"}`)
	for _, rule := range set(t, by...).Rules {
		var p corev1.Pod
		if err := json.Unmarshal([]byte(text), &p); err != nil {
			t.Fatal(err)
		}
		result := set(t, by...).Pod(context.Background(), rule.Name, &p, inject.Config{Image: "x"})
		if len(result.Operations) == 0 {
			continue
		}
		ops, err := json.Marshal(result.Operations)
		if err != nil {
			t.Fatal(err)
		}
		patch, err := jsonpatch.DecodePatch(ops)
		if err != nil {
			t.Fatal(err)
		}
		b, err := patch.Apply([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		text = string(b)
	}
	return text
}

// What rules select, and what is found about it.
func TestRules(t *testing.T) {
	const podsOfShop = "/api/v1/namespaces/shop/pods"
	for name, test := range map[string]struct {
		rules []string // of the cluster
		plan  []string // nil: no plan
		pods  []string
		space string // more labels of the namespace
		want  []string
		rows  string
		text  string
	}{
		"pods that run with a rule, and other pods": {
			rules: []string{byTeam},
			pods:  []string{made(t, "a", "", byTeam), made(t, "b", `"other/x":"y"`, byTeam), pod("other", "", `,"labels":{"app":"db"}`)},
			rows:  "team [shop] selected 2 with 2",
		},
		"a pod that was created before the rule": {
			rules: []string{byTeam}, pods: []string{made(t, "a", "")},
			want: []string{"Pod/a LB0913"}, rows: "team [shop] selected 1 restart 1", text: "rule team selects the pod, which was created without it",
		},
		"a pod with other annotations than the rule has now": {
			rules: []string{strings.Replace(byTeam, "/logs/*.log", "/logs/a.log", 1)}, pods: []string{made(t, "a", "", byTeam)},
			want: []string{"Pod/a LB0913"}, rows: "team [shop] selected 1 restart 1", text: "as it was before a change",
		},
		"a pod with its own annotation, which wins": {
			rules: []string{byAny}, pods: []string{made(t, "a", `"log-bridge.dev/format":"raw"`, byAny)},
			rows: "any [shop] selected 1 with 1",
		},
		"a rule that does not fit": {
			rules: []string{byWorker}, pods: []string{made(t, "a", "", byWorker)},
			want: []string{"Pod/a LB0910"}, rows: "worker [shop] selected 1 misfit 1", text: "rule worker does not fit this pod",
		},
		"the second rule decides if the first does not fit": {
			rules: []string{byWorker, byAny, byTeam}, pods: []string{made(t, "a", "", byWorker, byAny, byTeam)},
			want: []string{"ConfigMap/log-bridge-rules LB0907", "Pod/a LB0910"}, rows: "worker [shop] selected 1 misfit 1; any [shop] selected 1 with 1; team [shop] selected 1 earlier 1",
		},
		"another rule decides now": {
			rules: []string{byTeam, byAny}, pods: []string{made(t, "a", "", byAny)},
			want: []string{"Pod/a LB0913"}, rows: "team [shop] selected 1 restart 1; any [shop] selected 1 earlier 1", text: "runs with rule any, and rule team decides about it now",
		},
		"a rule that is gone": {
			rules: []string{byWorker}, pods: []string{made(t, "a", "", byTeam)},
			want: []string{"Pod/a LB0910", "Pod/a LB0913"}, rows: "worker [shop] selected 1 misfit 1; team gone with 1", text: "runs with rule team, which does not decide about it any more",
		},
		"all rules are gone": {
			pods: []string{made(t, "a", "", byTeam)},
			want: []string{"Pod/a LB0913"}, rows: "team gone with 1",
		},
		"defaults for a pod that asks": {
			rules: []string{defaults}, pods: []string{made(t, "a", annotated, defaults), made(t, "b", "")},
			rows: "defaults [shop] selected 1 with 1",
		},
		"a pod that declined": {
			rules: []string{byTeam}, pods: []string{made(t, "a", `"log-bridge.dev/inject":"false"`)}, rows: "team",
		},
		"a namespace that is left out": {
			rules: []string{byTeam}, pods: []string{made(t, "a", ""), made(t, "b", "", byTeam)}, space: `,"log-bridge.dev/inject":"false"`,
			want: []string{"Pod/b LB0913", "probe LB0702"}, rows: "team",
		},
		"a plan with a new rule": {
			plan: []string{byTeam}, pods: []string{made(t, "a", ""), made(t, "b", `"log-bridge.dev/files":"no"`)},
			want: []string{"Pod/a LB0913", "Pod/b LB0910"}, rows: "team [shop] selected 2 restart 1 misfit 1",
		},
		"a plan without a rule": {
			rules: []string{byTeam}, plan: []string{byWorker}, pods: []string{made(t, "a", "", byTeam)},
			want: []string{"Pod/a LB0910", "Pod/a LB0913"}, rows: "worker [shop] selected 1 misfit 1; team gone with 1",
		},
		"a plan like the rules": {
			rules: []string{byTeam}, plan: []string{byTeam}, pods: []string{made(t, "a", "", byTeam), pod("no", annotated, "")},
			rows: "team [shop] selected 1 with 1",
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := everything()
			c.objects["/api/v1/namespaces/shop"] = `{"kind":"Namespace","apiVersion":"v1","metadata":{"name":"shop","labels":{"team":"shop"` + test.space + `}}}`
			withRules(c, test.rules)
			c.lists[podsOfShop] = []string{strings.Join(test.pods, ",")}
			server := httptest.NewServer(c)
			defer server.Close()
			o := Options{Rest: &rest.Config{Host: server.URL}, Namespace: "shop", Inject: inject.Config{Image: "x"}}
			if test.plan != nil {
				o.Plan = set(t, test.plan...)
			}
			r, err := Look(t.Context(), o)
			if err != nil || len(r.Errors) > 0 {
				t.Fatal(err, r.Errors)
			}
			if have := told(r); !slices.Equal(have, test.want) {
				t.Errorf("told %v, want %v\n%v", have, test.want, r.Objects)
			}
			if !strings.Contains(fmt.Sprint(r.Objects), test.text) {
				t.Errorf("no %q in %v", test.text, r.Objects)
			}
			if have := rows(r); have != test.rows {
				t.Errorf("rules %s\nwant  %s", have, test.rows)
			}
			if test.plan != nil && slices.Contains(c.asked, "POST /api/v1/namespaces/shop/pods") {
				t.Error("a plan tries the probe")
			}
		})
	}
}

// rows are the rules of a report in words.
func rows(r Report) string {
	var all []string
	for _, rule := range r.Rules {
		text := rule.Name
		if rule.Gone {
			text += " gone"
		}
		if len(rule.Namespaces) > 0 {
			text += fmt.Sprint(" ", rule.Namespaces)
		}
		for _, n := range []struct {
			words string
			count int
		}{{"selected", rule.Selected}, {"with", rule.With}, {"restart", rule.Restart}, {"misfit", rule.Misfit}, {"earlier", rule.Earlier}} {
			if n.count > 0 {
				text += fmt.Sprintf(" %s %d", n.words, n.count)
			}
		}
		all = append(all, text)
	}
	return strings.Join(all, "; ")
}

// withRules gives a cluster rules: a webhook for each, and the ConfigMap.
func withRules(c *cluster, of []string) {
	const confs = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
	hooks := ""
	for _, rule := range of {
		var r struct{ Name string }
		_ = json.Unmarshal([]byte(rule), &r)
		hooks += `{"name":"` + r.Name + `.rules.log-bridge.dev"},`
	}
	c.lists[confs] = []string{strings.Replace(c.lists[confs][0], `"webhooks":[`, `"webhooks":[`+hooks, 1)}
	text, _ := json.Marshal(`{"rules":[` + strings.Join(of, ",") + `]}`)
	c.objects["/api/v1/namespaces/logging/configmaps/log-bridge-rules"] = `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"log-bridge-rules"},"data":{"rules.yaml":` + string(text) + `}}`
}

// The rules of the cluster are read only if there are any, and what is wrong with them is found.
func TestRulesOfTheCluster(t *testing.T) {
	const file = "/api/v1/namespaces/logging/configmaps/log-bridge-rules"
	for name, test := range map[string]struct {
		change func(*cluster)
		want   []string
	}{
		"no rules": {func(c *cluster) { delete(c.objects, file) }, nil},
		"may not be read": {func(c *cluster) {
			withRules(c, []string{byTeam})
			delete(c.objects, file)
		}, []string{"ConfigMap/log-bridge-rules LB0809"}},
		"cannot be used": {func(c *cluster) {
			withRules(c, []string{byTeam})
			c.objects[file] = strings.Replace(c.objects[file], `\"files\"`, `\"fils\"`, 1)
		}, []string{"ConfigMap/log-bridge-rules LB0905"}},
		"a webhook without a rule, and a rule without a webhook": {func(c *cluster) {
			withRules(c, []string{byTeam})
			c.objects[file] = strings.Replace(c.objects[file], `\"name\":\"team\"`, `\"name\":\"crew\"`, 1)
		}, []string{"ConfigMap/log-bridge-rules LB0914", "ConfigMap/log-bridge-rules LB0914"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := everything()
			test.change(c)
			if r := look(t, c); !slices.Equal(told(r), append([]string{}, test.want...)) {
				t.Errorf("told %v, want %v", told(r), test.want)
			}
		})
	}
}
