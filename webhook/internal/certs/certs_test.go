package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
)

const (
	day     = 24 * time.Hour
	dnsName = "log-bridge.logging.svc"
)

var secretKey = client.ObjectKey{Namespace: "logging", Name: "log-bridge-webhook-ca"}

// cluster is an API server with the objects of the chart. It allows exactly what the
// chart's roles allow, so that every test is one of the permissions too.
type cluster struct {
	t *testing.T
	client.Client
	// before runs ahead of each call, named as "update Secret".
	before func(call string)
}

func newCluster(t *testing.T) *cluster {
	path := "/mutate"
	c := &cluster{t: t, before: func(string) {}}
	c.Client = fake.NewClientBuilder().WithObjects(emptySecret(), &admissionv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "log-bridge", Labels: map[string]string{"a": "b"}},
		Webhooks: []admissionv1.MutatingWebhook{{
			Name:            "inject.log-bridge.dev",
			ClientConfig:    admissionv1.WebhookClientConfig{Service: &admissionv1.ServiceReference{Namespace: "logging", Name: "log-bridge", Path: &path}},
			MatchConditions: []admissionv1.MatchCondition{{Name: "annotated", Expression: "true"}},
		}},
	}).Build()
	return c
}

func emptySecret() *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: secretKey.Namespace, Name: secretKey.Name}}
}

func (c *cluster) allow(verb string, obj client.Object, key client.ObjectKey) error {
	kind := reflect.TypeOf(obj).Elem().Name()
	call := verb + " " + kind
	c.before(call)
	switch call + " " + key.String() {
	case "get Secret " + secretKey.String(), "update Secret " + secretKey.String(),
		"get MutatingWebhookConfiguration /log-bridge", "patch MutatingWebhookConfiguration /log-bridge":
		return nil
	}
	c.t.Errorf("%s %s: the chart's roles do not allow this", call, key)
	return errors.New("forbidden")
}

func (c *cluster) Get(ctx context.Context, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
	if err := c.allow("get", obj, key); err != nil {
		return err
	}
	return c.Client.Get(ctx, key, obj, opts...)
}

func (c *cluster) Update(ctx context.Context, obj client.Object, opts ...client.UpdateOption) error {
	if err := c.allow("update", obj, client.ObjectKeyFromObject(obj)); err != nil {
		return err
	}
	return c.Client.Update(ctx, obj, opts...)
}

func (c *cluster) Patch(ctx context.Context, obj client.Object, patch client.Patch, opts ...client.PatchOption) error {
	if err := c.allow("patch", obj, client.ObjectKeyFromObject(obj)); err != nil {
		return err
	}
	return c.Client.Patch(ctx, obj, patch, opts...)
}

// configuration and secret read past the permissions, as the tester.
func (c *cluster) configuration() *admissionv1.MutatingWebhookConfiguration {
	c.t.Helper()
	var conf admissionv1.MutatingWebhookConfiguration
	if err := c.Client.Get(c.t.Context(), client.ObjectKey{Name: "log-bridge"}, &conf); err != nil {
		c.t.Fatal(err)
	}
	return &conf
}

func (c *cluster) secret() *corev1.Secret {
	c.t.Helper()
	var s corev1.Secret
	if err := c.Client.Get(c.t.Context(), secretKey, &s); err != nil {
		c.t.Fatal(err)
	}
	return &s
}

func (c *cluster) setBundle(bundle []byte) {
	c.t.Helper()
	conf := c.configuration()
	conf.Webhooks[0].ClientConfig.CABundle = bundle
	if err := c.Client.Update(c.t.Context(), conf); err != nil {
		c.t.Fatal(err)
	}
}

// replica is a Manager with a clock of its own.
type replica struct {
	*Manager
	c    *cluster
	time time.Time
	log  bytes.Buffer
}

func (c *cluster) replica(at time.Time) *replica {
	r := &replica{c: c, time: at}
	r.Manager = New(Options{
		API: c, Secret: secretKey, Configuration: "log-bridge", Names: []string{dnsName},
		Log: slog.New(slog.NewTextHandler(&r.log, nil)),
		Now: func() time.Time { return r.time },
	})
	return r
}

// rounds runs n rounds that must succeed.
func (r *replica) rounds(n int) {
	r.c.t.Helper()
	for range n {
		if err := r.round(r.c.t.Context()); err != nil {
			r.c.t.Fatalf("round: %v", err)
		}
	}
}

// bundle is what an API server trusts.
func (c *cluster) bundle() *x509.CertPool {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(c.configuration().Webhooks[0].ClientConfig.CABundle)
	return roots
}

// call checks what an API server with the given clock checks: the certificate served
// against the present caBundle and nothing else.
func (r *replica) call(at time.Time) error {
	served, err := r.GetCertificate(nil)
	if err != nil {
		return err
	}
	_, err = served.Leaf.Verify(x509.VerifyOptions{Roots: r.c.bundle(), DNSName: dnsName, CurrentTime: at})
	return err
}

// trustedNow fails the test unless the replica says it is ready and a call succeeds.
func (r *replica) trustedNow(when string) {
	r.c.t.Helper()
	if err := r.Ready(); err != nil {
		r.c.t.Fatalf("%s: Ready: %v", when, err)
	}
	if err := r.call(r.time); err != nil {
		r.c.t.Fatalf("%s: call: %v", when, err)
	}
}

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func TestFirstStart(t *testing.T) {
	c := newCluster(t)
	before := c.configuration()
	r := c.replica(start)
	if err := r.Ready(); err == nil || !strings.Contains(err.Error(), "no serving certificate yet") {
		t.Fatalf("Ready before the first round: %v", err)
	}
	if _, err := r.GetCertificate(nil); err == nil {
		t.Fatal("a certificate before the first round")
	}
	for range 2 {
		r.rounds(1)
		if err := r.Ready(); err == nil {
			t.Fatal("ready before its authority was read in the configuration twice")
		}
	}
	r.rounds(1)
	r.trustedNow("after the third round")

	after := c.configuration()
	if len(after.Webhooks[0].ClientConfig.CABundle) == 0 {
		t.Fatal("no caBundle")
	}
	after.Webhooks[0].ClientConfig.CABundle = nil
	after.ResourceVersion, after.ManagedFields = before.ResourceVersion, before.ManagedFields
	if !reflect.DeepEqual(before, after) {
		t.Errorf("more than the caBundle changed:\nhave %v\nwant %v", after, before)
	}
	for key, value := range c.secret().Data {
		if key != certsKey && key != keysKey {
			t.Errorf("the Secret holds %s: %s", key, value)
		}
	}
	version := c.secret().ResourceVersion
	r.rounds(10)
	if now := c.secret().ResourceVersion; now != version {
		t.Errorf("the Secret was written without need: version %s, then %s", version, now)
	}
}

// A real handshake over TCP, and the ways in which it must fail.
func TestHandshake(t *testing.T) {
	c := newCluster(t)
	r := c.replica(start)
	r.rounds(3)
	good := c.bundle()
	c.setBundle(foreignCA(t))
	for name, test := range map[string]struct {
		roots *x509.CertPool
		host  string
		at    time.Time
		want  string
	}{
		"good":              {good, dnsName, start, ""},
		"another name":      {good, "other.logging.svc", start, "certificate is valid for " + dnsName},
		"expired":           {good, dnsName, start.Add(2 * certificateLife), "has expired"},
		"another authority": {c.bundle(), dnsName, start, "unknown authority"},
	} {
		t.Run(name, func(t *testing.T) {
			listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{GetCertificate: r.GetCertificate})
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			go func() {
				if conn, err := listener.Accept(); err == nil {
					_ = conn.(*tls.Conn).Handshake()
					conn.Close()
				}
			}()
			conn, err := tls.Dial("tcp", listener.Addr().String(), &tls.Config{
				RootCAs: test.roots, ServerName: test.host, Time: func() time.Time { return test.at },
			})
			if err == nil {
				conn.Close()
			}
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("handshake: have %v, want %q", err, test.want)
			}
		})
	}
}

// Whatever is done at whatever point of another's round, one authority comes out,
// and both serve under it.
func TestTwoReplicasRace(t *testing.T) {
	for _, call := range []string{"get Secret", "update Secret", "get MutatingWebhookConfiguration", "patch MutatingWebhookConfiguration"} {
		t.Run(call, func(t *testing.T) {
			c := newCluster(t)
			a, b := c.replica(start), c.replica(start)
			done := false
			c.before = func(now string) {
				if now == call && !done {
					done = true
					b.rounds(3)
				}
			}
			a.rounds(1)
			if !done {
				t.Fatalf("no call %q", call)
			}
			b.trustedNow("b, in the middle of a's round")
			a.rounds(3)
			a.trustedNow("a")
			b.rounds(1)
			b.trustedNow("b")
			if n := len(decode(c.secret().Data[certsKey], c.secret().Data[keysKey])); n != 1 {
				t.Errorf("%d authorities in the Secret, want 1", n)
			}
		})
	}
}

// Six years, three replicas that look at different times, one of which is replaced
// now and then: at no moment does a call fail.
func TestRotation(t *testing.T) {
	c := newCluster(t)
	replicas := []*replica{c.replica(start), c.replica(start), c.replica(start)}
	for _, r := range replicas {
		r.rounds(3)
	}
	seen := map[string]bool{}
	leaves := map[string]bool{}
	for today := range 6 * 365 {
		now := start.Add(time.Duration(today) * day)
		for _, r := range replicas {
			r.time = now
		}
		turn := today % len(replicas)
		if today%41 == 0 {
			replicas[turn] = c.replica(now)
			replicas[turn].rounds(2)
		}
		replicas[turn].rounds(1)
		for i, r := range replicas {
			r.trustedNow(fmt.Sprintf("day %d, replica %d", today, i))
		}
		leaves[string(replicas[0].serving.Leaf.Raw)] = true
		seen[string(replicas[0].known[0].cert.Raw)] = true
	}
	// A successor comes after two thirds of an authority's life of 366 days.
	if n := len(seen); n < 8 || n > 10 {
		t.Errorf("%d authorities in six years, want about 9", n)
	}
	if n := len(leaves); n < 6*12 {
		t.Errorf("%d serving certificates of one replica in six years, want more than one a month", n)
	}
	if n := len(decodeCerts(c.configuration().Webhooks[0].ClientConfig.CABundle)); n > keptInBundle {
		t.Errorf("%d authorities in the caBundle, want at most %d", n, keptInBundle)
	}
}

// The new authority is in the caBundle for a round before anybody signs by it.
func TestOverlap(t *testing.T) {
	c := newCluster(t)
	r := c.replica(start)
	r.rounds(3)
	old := r.known[0]
	r.time = start.Add(300 * day)
	r.rounds(1)
	if len(r.known) != 2 || r.known[0].is(old) {
		t.Fatalf("%d authorities, want a new one before the old", len(r.known))
	}
	for range 2 {
		r.trustedNow("just after the change")
		if !r.serving.by.is(old) {
			t.Error("signed by an authority that API servers may not have noticed yet")
		}
		r.rounds(1)
	}
	r.trustedNow("two rounds later")
	if r.serving.by.is(old) {
		t.Error("still signed by the old authority")
	}
	if certs := decodeCerts(c.configuration().Webhooks[0].ClientConfig.CABundle); len(certs) != 2 {
		t.Errorf("%d authorities in the caBundle, want the new and the old", len(certs))
	}
}

func TestDeletedSecret(t *testing.T) {
	c := newCluster(t)
	a := c.replica(start)
	a.rounds(3)
	held := a.known[0]
	if err := c.Client.Delete(t.Context(), emptySecret()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := a.round(t.Context()); err == nil || !strings.Contains(err.Error(), "restore the Secret with helm upgrade") {
			t.Fatalf("round without the Secret: %v", err)
		}
	}
	a.trustedNow("while the Secret is gone")

	// A replica that starts now makes an authority of its own and harms nobody.
	b := c.replica(start)
	for range 3 {
		_ = b.round(t.Context())
	}
	b.trustedNow("the newcomer")
	_ = a.round(t.Context())
	a.trustedNow("beside the newcomer")

	// Even a rotation works without the Secret.
	a.time, b.time = start.Add(300*day), start.Add(300*day)
	for range 2 {
		_ = a.round(t.Context())
		_ = b.round(t.Context())
		a.trustedNow("rotating without the Secret")
		b.trustedNow("rotating without the Secret")
	}

	if err := c.Client.Create(t.Context(), emptySecret()); err != nil {
		t.Fatal(err)
	}
	a.rounds(1)
	b.trustedNow("before it has seen the Secret again")
	for range 2 {
		b.rounds(1)
		a.trustedNow("with the Secret again")
		b.trustedNow("with the Secret again")
	}
	if list := decode(c.secret().Data[certsKey], c.secret().Data[keysKey]); !slices.ContainsFunc(list, held.is) || !b.serving.by.is(a.serving.by) {
		t.Error("the replicas do not agree on what the first one held")
	}
}

// annotate asks for new authorities, as a person does with kubectl.
func (c *cluster) annotate() {
	c.t.Helper()
	s := c.secret()
	s.Annotations = map[string]string{RevokeAnnotation: "all", "mine": "stays"}
	if err := c.Client.Update(c.t.Context(), s); err != nil {
		c.t.Fatal(err)
	}
}

// An authority that leaked is revoked: a minute later nothing that it signed is accepted, it does not
// come back from any replica's memory, and at no moment did a call fail.
func TestRevoke(t *testing.T) {
	c := newCluster(t)
	a, b := c.replica(start), c.replica(start)
	a.rounds(3)
	b.rounds(3)
	leaked := a.known[0]
	forged, err := leaked.issue([]string{dnsName}, start)
	if err != nil {
		t.Fatal(err)
	}
	accepted := func() bool {
		_, err := forged.Leaf.Verify(x509.VerifyOptions{Roots: c.bundle(), DNSName: dnsName, CurrentTime: start})
		return err == nil
	}
	if !accepted() {
		t.Fatal("what the authority signs is not accepted even before it is revoked")
	}
	c.annotate()
	// As in a cluster: each replica has a round in every interval, one later than the other.
	for range 3 * overlap / interval {
		a.time, b.time = a.time.Add(interval), b.time.Add(interval)
		for _, r := range []*replica{b, a} {
			r.rounds(1)
			a.trustedNow("a, while the authority is replaced")
			b.trustedNow("b, while the authority is replaced")
		}
	}
	if accepted() {
		t.Error("what the revoked authority signed is still accepted")
	}
	if certs := decodeCerts(c.configuration().Webhooks[0].ClientConfig.CABundle); len(certs) != 1 || certs[0].Equal(leaked.cert) {
		t.Errorf("%d certificates in the caBundle, want the new authority's alone", len(certs))
	}
	s := c.secret()
	if list := decode(s.Data[certsKey], s.Data[keysKey]); len(list) != 1 || list[0].is(leaked) || s.Data[revokedKey] != nil {
		t.Errorf("the Secret holds %d authorities and the revoked ones %q", len(list), s.Data[revokedKey])
	}
	if _, still := s.Annotations[RevokeAnnotation]; still || s.Annotations["mine"] == "" {
		t.Errorf("annotations %v: want the request gone and others kept", s.Annotations)
	}

	s.Data = nil
	if err := c.Client.Update(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	for range 3 * overlap / interval {
		a.time, b.time = a.time.Add(interval), b.time.Add(interval)
		b.rounds(1)
		a.rounds(1)
	}
	a.trustedNow("after the Secret was emptied")
	if accepted() {
		t.Error("the revoked authority came back from memory")
	}
}

// A replica that starts while an authority is being replaced never serves with the revoked one.
func TestRevokeAndStart(t *testing.T) {
	c := newCluster(t)
	a := c.replica(start)
	a.rounds(3)
	leaked := a.known[0]
	c.annotate()
	a.rounds(1)
	b := c.replica(start)
	b.rounds(3)
	b.trustedNow("one that started in between")
	if b.serving.by.is(leaked) {
		t.Error("it serves with the revoked authority")
	}
}

// A certificate in the caBundle that has the name of our authorities, and is in no Secret, is gone a
// minute later; nothing is written for it before or after.
func TestForeignByOurName(t *testing.T) {
	c := newCluster(t)
	r := c.replica(start)
	r.rounds(3)
	foreign, err := newAuthority(start)
	if err != nil {
		t.Fatal(err)
	}
	trusted := func() bool {
		return slices.ContainsFunc(decodeCerts(c.configuration().Webhooks[0].ClientConfig.CABundle), foreign.cert.Equal)
	}
	c.setBundle(append(slices.Clone(c.configuration().Webhooks[0].ClientConfig.CABundle), encodeCerts([]*x509.Certificate{foreign.cert})...))
	version := c.configuration().ResourceVersion
	r.rounds(1)
	r.time = r.time.Add(overlap - time.Second)
	r.rounds(2)
	if !trusted() || c.configuration().ResourceVersion != version {
		t.Error("it is gone at once; it might be of a replica that made it while there was no Secret")
	}
	r.time = r.time.Add(time.Second)
	r.rounds(1)
	if trusted() {
		t.Error("it is still trusted after the overlap")
	}
	version = c.configuration().ResourceVersion
	r.rounds(3)
	if c.configuration().ResourceVersion != version {
		t.Error("the configuration is written again and again")
	}
	r.trustedNow("afterwards")
}

// Two replicas without a Secret do not overwrite each other's order again and again.
func TestNoSecretNoQuarrel(t *testing.T) {
	c := newCluster(t)
	if err := c.Client.Delete(t.Context(), emptySecret()); err != nil {
		t.Fatal(err)
	}
	a, b := c.replica(start), c.replica(start)
	for range 3 {
		_ = a.round(t.Context())
		_ = b.round(t.Context())
	}
	version := c.configuration().ResourceVersion
	for range 10 {
		a.time, b.time = a.time.Add(interval), b.time.Add(interval)
		_ = a.round(t.Context())
		_ = b.round(t.Context())
		a.trustedNow("a")
		b.trustedNow("b")
	}
	if c.configuration().ResourceVersion != version {
		t.Error("they go on writing the caBundle")
	}
}

func TestOverwrittenBundle(t *testing.T) {
	foreign := foreignCA(t)
	for name, bundle := range map[string][]byte{"emptied": nil, "foreign": foreign} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t)
			r := c.replica(start)
			r.rounds(3)
			c.setBundle(bundle)
			r.rounds(1)
			if err := r.call(start); err != nil {
				t.Errorf("call after a round: %v", err)
			}
			r.rounds(2)
			r.trustedNow("two rounds later")
			if bytes.Contains(c.configuration().Webhooks[0].ClientConfig.CABundle, foreign) && bundle != nil {
				t.Error("the foreign authority is still trusted")
			}
		})
	}
}

func TestDamagedSecret(t *testing.T) {
	for name, damage := range map[string]func(*corev1.Secret){
		"emptied":     func(s *corev1.Secret) { s.Data = nil },
		"garbage":     func(s *corev1.Secret) { s.Data[certsKey] = []byte("garbage") },
		"no key":      func(s *corev1.Secret) { delete(s.Data, keysKey) },
		"foreign key": func(s *corev1.Secret) { s.Data[keysKey] = foreignKey(t) },
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t)
			r := c.replica(start)
			r.rounds(3)
			held := r.known[0]
			s := c.secret()
			s.Data["note"] = []byte("of a person")
			damage(s)
			if err := c.Client.Update(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			r.rounds(1)
			r.trustedNow("a round later")
			if list := decode(c.secret().Data[certsKey], c.secret().Data[keysKey]); len(list) != 1 || !list[0].is(held) {
				t.Error("the Secret was not filled with what the replica held")
			}
			if name != "emptied" && c.secret().Data["note"] == nil {
				t.Error("a foreign key of the Secret was lost")
			}
			// A replica that has nothing in memory can use it.
			other := c.replica(start)
			other.rounds(2)
			other.trustedNow("another")
		})
	}
}

func TestClockJumps(t *testing.T) {
	jumps := map[string]struct {
		by time.Duration
		// atOnce says that not even a round is needed.
		atOnce bool
	}{
		"an hour back":       {-time.Hour, true},
		"forty days ahead":   {40 * day, true},
		"three years ahead":  {3 * 365 * day, false},
		"half a century ago": {-50 * 365 * day, false},
	}
	for name, jump := range jumps {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t)
			a, right := c.replica(start), c.replica(start)
			a.rounds(3)
			right.rounds(3)
			a.time = start.Add(jump.by)
			if !jump.atOnce {
				if a.Ready() == nil {
					t.Fatal("ready with a certificate that is not valid")
				}
				a.rounds(3)
			}
			a.trustedNow("after the jump")

			// The other replica, whose clock is right, never suffers, nor do the two fight.
			for range 5 {
				right.trustedNow("the other replica")
				right.rounds(1)
				right.trustedNow("the other replica")
				a.trustedNow("with the jumped clock")
				a.rounds(1)
			}
			version := c.secret().ResourceVersion
			right.rounds(1)
			a.rounds(1)
			if now := c.secret().ResourceVersion; now != version {
				t.Error("the replicas go on overwriting each other")
			}
			a.time = start
			a.rounds(1)
			a.trustedNow("with the right time again")
		})
	}
}

// Run is ready after two seconds, mends within its interval, says each trouble once
// and ends with its context.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		r := c.replica(time.Time{})
		r.Now = time.Now
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.Run(ctx) }()
		time.Sleep(2*hurry + time.Millisecond)
		synctest.Wait()
		if err := r.Ready(); err != nil {
			t.Errorf("Ready after %v: %v", 2*hurry, err)
		}
		c.setBundle(nil)
		time.Sleep(interval)
		synctest.Wait()
		if err := r.call(time.Now()); err != nil {
			t.Errorf("call %v after the caBundle was emptied: %v", interval, err)
		}
		if err := c.Client.Delete(ctx, emptySecret()); err != nil {
			t.Error(err)
		}
		time.Sleep(10 * interval)
		synctest.Wait()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if n := strings.Count(r.log.String(), "is missing"); n != 1 {
			t.Errorf("the missing Secret was reported %d times, want once:\n%s", n, &r.log)
		}
	})
}

func TestTroubleIsInReady(t *testing.T) {
	c := newCluster(t)
	if err := c.Client.Delete(t.Context(), c.configuration()); err != nil {
		t.Fatal(err)
	}
	r := c.replica(start)
	if r.round(t.Context()) == nil {
		t.Fatal("a round without a configuration succeeded")
	}
	if err := r.Ready(); err == nil || !strings.Contains(err.Error(), `MutatingWebhookConfiguration log-bridge`) || !strings.Contains(err.Error(), "not found") {
		t.Errorf("Ready: %v", err)
	}
}

// foreignCA is an authority that is not ours, as PEM.
func foreignCA(t *testing.T) []byte {
	t.Helper()
	a, err := newAuthority(start)
	if err != nil {
		t.Fatal(err)
	}
	template := *a.cert
	template.Subject.CommonName = "somebody else"
	template.RawSubject = nil
	der, err := x509.CreateCertificate(nil, &template, &template, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func foreignKey(t *testing.T) []byte {
	t.Helper()
	a, err := newAuthority(start)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := encodeKeys([]authority{a})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}
