package certs

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Keys of the Secret's data: PEM, newest first.
const (
	certsKey = "ca.crt"
	keysKey  = "ca.key"
	// revokedKey has the certificates of authorities that were revoked just now, without
	// their keys. They are trusted until every replica has had time to sign by another.
	revokedKey = "revoked.crt"
)

// RevokeAnnotation on the Secret, with whatever value, asks for new authorities in place
// of all that are there. A replica removes it when it has done so.
const RevokeAnnotation = "log-bridge.dev/revoke"

// How many authorities are kept. A year makes one; more come only from clocks
// that disagree and from replicas that start while the Secret is missing.
const (
	keptInSecret = 4
	keptInBundle = 8
)

// overlap is how long an authority stays in the caBundle once the Secret has it no longer:
// time for each replica to read the Secret, see the successor twice, and sign by it.
const overlap = 4 * interval

// fieldOwner is our name in the managed fields of the two objects.
const fieldOwner = client.FieldOwner("log-bridge-webhook")

// round reads the two objects and mends what is not as it should be. It is
// repeatable at any time: all it knows beforehand is what past rounds have read.
func (m *Manager) round(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	// Another replica may write between our reading and our writing; the API server
	// then refuses by the resourceVersion, and we begin again.
	var bundled []*x509.Certificate
	err := retry.RetryOnConflict(retry.DefaultRetry, func() (err error) {
		bundled, err = m.mend(ctx)
		return err
	})
	m.mu.Lock()
	defer m.mu.Unlock()
	m.trouble = err
	if bundled == nil {
		return err
	}
	// Being in the configuration is not being known to every API server: each
	// needs a moment to notice. So an authority is trusted from the second round
	// that finds it there.
	m.trusted = nil
	for _, a := range m.known {
		if slices.ContainsFunc(bundled, a.cert.Equal) && slices.ContainsFunc(m.bundled, a.cert.Equal) {
			m.trusted = append(m.trusted, a)
		}
	}
	m.bundled = bundled
	if len(m.trusted) > 0 {
		if _, failed := m.current(); failed != nil {
			return errors.Join(err, failed)
		}
	}
	return err
}

// mend returns the certificates that were in the caBundle of every webhook before
// it wrote there, or nil if it could not read that.
func (m *Manager) mend(ctx context.Context) (bundled []*x509.Certificate, err error) {
	known, revoked, stored, err := m.authorities(ctx)
	if err != nil {
		return nil, err
	}
	var conf admissionv1.MutatingWebhookConfiguration
	if err := m.API.Get(ctx, client.ObjectKey{Name: m.Configuration}, &conf); err != nil {
		return nil, fmt.Errorf("read MutatingWebhookConfiguration %s: %w", m.Configuration, err)
	}
	if len(conf.Webhooks) == 0 {
		return nil, fmt.Errorf("MutatingWebhookConfiguration %s has no webhook; reinstall the chart", m.Configuration)
	}
	bundled = inAll(conf.Webhooks)
	m.mu.Lock()
	m.known = known
	m.mu.Unlock()
	if err := m.publish(ctx, &conf, m.bundle(conf.Webhooks, certsOf(known), revoked, stored)); err != nil {
		return bundled, err
	}
	if !stored {
		return bundled, fmt.Errorf("secret %s is missing, so the CA exists only in memory and a new replica must create its own; restore the Secret with helm upgrade", m.Secret)
	}
	return bundled, nil
}

// inAll are the certificates that every webhook trusts; never nil.
func inAll(webhooks []admissionv1.MutatingWebhook) []*x509.Certificate {
	in := decodeCerts(webhooks[0].ClientConfig.CABundle)
	for _, w := range webhooks[1:] {
		others := decodeCerts(w.ClientConfig.CABundle)
		in = slices.DeleteFunc(in, func(c *x509.Certificate) bool { return !slices.ContainsFunc(others, c.Equal) })
	}
	return in
}

// bundle is what the caBundle has to hold: the authorities of the Secret, those that were
// revoked just now, and for the overlap those of ours that the Secret does not have: a
// replica may serve by one that it made while there was no Secret. As long as there is
// none, nobody can tell these from others that merely have the name, and they stay.
func (m *Manager) bundle(webhooks []admissionv1.MutatingWebhook, known, revoked []*x509.Certificate, stored bool) []*x509.Certificate {
	bundle := slices.Concat(known, revoked)
	strays := map[string]time.Time{}
	for _, w := range webhooks {
		for _, c := range decodeCerts(w.ClientConfig.CABundle) {
			if c.Subject.CommonName != authorityName || slices.ContainsFunc(bundle, c.Equal) {
				continue
			}
			since, seen := m.strays[string(c.Raw)]
			if !seen || !stored {
				since = m.Now()
			}
			strays[string(c.Raw)] = since
			if age := m.Now().Sub(since); age < overlap {
				bundle = append(bundle, c)
			}
		}
	}
	m.strays = strays
	return bundle[:min(len(bundle), keptInBundle)]
}

// authorities reads the Secret and puts there what is missing: at least one
// authority with enough life ahead. Without a Secret it answers with what is in
// memory, or with a new one, and stored is false. revoked are those that are to be
// trusted for a moment longer.
func (m *Manager) authorities(ctx context.Context) (list []authority, revoked []*x509.Certificate, stored bool, err error) {
	var secret corev1.Secret
	err = m.API.Get(ctx, m.Secret, &secret)
	if stored = err == nil; err != nil && !apierrors.IsNotFound(err) {
		return nil, nil, false, fmt.Errorf("read Secret %s: %w", m.Secret, err)
	}
	list = decode(secret.Data[certsKey], secret.Data[keysKey])
	revoked = decodeCerts(secret.Data[revokedKey])
	complete := len(list) > 0
	if !complete {
		// Nor from memory comes what was revoked while this replica did not look.
		list = slices.DeleteFunc(slices.Clone(m.known), func(a authority) bool { return slices.ContainsFunc(revoked, a.cert.Equal) })
	}
	now := m.Now()
	_, revoke := secret.Annotations[RevokeAnnotation]
	if revoke {
		// What a replica made while there was no Secret is in no list: all in the caBundle
		// that has our name goes, after the overlap, as a stray.
		revoked, list = certsOf(list), nil
		delete(secret.Annotations, RevokeAnnotation)
	}
	if !slices.ContainsFunc(list, func(a authority) bool { return fresh(a.cert, now) }) {
		a, err := newAuthority(now)
		if err != nil {
			return nil, nil, false, err
		}
		complete = false
		list = append([]authority{a}, list...)
		list = list[:min(len(list), keptInSecret)]
	}
	if len(revoked) == 0 {
		m.revokedSince = time.Time{}
	} else if m.revokedSince.IsZero() || revoke {
		m.revokedSince = now
	} else if now.Sub(m.revokedSince) >= overlap {
		revoked, complete = nil, false
	}
	if complete || !stored {
		return list, revoked, stored, nil
	}
	keys, err := encodeKeys(list)
	if err != nil {
		return nil, nil, false, err
	}
	if secret.Data == nil {
		secret.Data = map[string][]byte{}
	}
	secret.Data[certsKey], secret.Data[keysKey] = encodeCerts(certsOf(list)), keys
	delete(secret.Data, revokedKey)
	if len(revoked) > 0 {
		secret.Data[revokedKey] = encodeCerts(revoked)
	}
	if err := m.API.Update(ctx, &secret, fieldOwner); err != nil {
		return nil, nil, false, fmt.Errorf("fill Secret %s: %w", m.Secret, err)
	}
	m.Log.Info("CAs stored", "secret", m.Secret.String(), "CAs", len(list), "notAfter", list[0].cert.NotAfter, "revoked", len(revoked))
	return list, revoked, true, nil
}

// publish puts a bundle into the caBundle of every webhook, unless it is there.
func (m *Manager) publish(ctx context.Context, conf *admissionv1.MutatingWebhookConfiguration, bundle []*x509.Certificate) error {
	type hook struct {
		Name         string         `json:"name"`
		ClientConfig map[string]any `json:"clientConfig"`
	}
	// In any order: while there is no Secret, each replica puts its own first.
	same := func(of []byte) bool {
		have := decodeCerts(of)
		return len(have) == len(bundle) && !slices.ContainsFunc(bundle, func(c *x509.Certificate) bool { return !slices.ContainsFunc(have, c.Equal) })
	}
	var hooks []hook
	written := true
	for _, w := range conf.Webhooks {
		written = written && same(w.ClientConfig.CABundle)
		hooks = append(hooks, hook{w.Name, map[string]any{"caBundle": encodeCerts(bundle)}})
	}
	if written {
		return nil
	}
	// Only this field is written; webhooks are merged by name. The resourceVersion
	// lets the patch fail where somebody wrote since we read: their authority would
	// be lost.
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": conf.ResourceVersion},
		"webhooks": hooks,
	})
	if err != nil {
		return fmt.Errorf("create the patch of the caBundle: %w", err)
	}
	err = m.API.Patch(ctx, conf, client.RawPatch(types.StrategicMergePatchType, patch), fieldOwner)
	if err != nil {
		return fmt.Errorf("add the CA to MutatingWebhookConfiguration %s: %w", m.Configuration, err)
	}
	m.Log.Info("caBundle written", "configuration", m.Configuration, "CAs", len(bundle))
	return nil
}
