// Package certs gives the webhook its serving certificate and tells the API
// server whom to trust.
//
// In go the names of one Secret and one MutatingWebhookConfiguration and an API
// client; out comes a *tls.Certificate for each handshake. Promised is:
//
//   - the certificate that is served is signed by an authority (CA) that two successive
//     rounds, a second or more apart, have read in the configuration's caBundle;
//     so a rotation never presents one that an API server has not noticed yet;
//   - Ready is nil exactly while that holds and the certificate is valid now;
//   - any number of replicas, started at any time, agree on the authorities without
//     talking to each other or electing a leader;
//   - what breaks is mended at the next round: an emptied or damaged Secret, an
//     overwritten caBundle, a clock that jumped.
//
// The Secret holds the authorities and their keys and nothing else; certificates
// are signed in memory by each replica, so no serving key is ever written
// anywhere. An authority that has used up two thirds of its life gets a successor
// in front of it. Old ones stay in the Secret and in the caBundle, where an expired
// one does no harm, until newer ones push them out: dropping them by the clock
// would let a replica whose clock is wrong remove what the others serve with.
// What the Secret has no longer leaves the caBundle a minute later, and so does a certificate
// that merely has the name of our authorities.
//
// A person who annotates the Secret with RevokeAnnotation gets a new authority in place of
// all that are there. The old ones are trusted for that minute, in which each replica comes
// to sign by the new one, so that no call fails.
//
// A deleted Secret cannot be made again, since no permission to create is asked
// for. The replicas then go on with what they hold in memory and say so. A
// replica that starts while it is missing makes an authority of its own and
// adds it to the caBundle. When the Secret is back, they fill it.
//
// Why not open-policy-agent/cert-controller (v0.16.0 was read), which has this
// purpose: it replaces the one CA in the caBundle at once, so that replicas
// which still serve under the old one fail until they have noticed; it lists and
// watches all Secrets of the namespace and all webhook configurations where
// two reads by name will do; it updates the whole configuration rather than the
// field; its certificate reaches the process through a mounted Secret, up to a
// minute after it was made; and it ends the process when that takes too long.
package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// How often the Secret and the configuration are read.
const (
	interval = 15 * time.Second
	// hurry is the interval while Ready is not nil.
	hurry = time.Second
	// patience is how long one round may take.
	patience = 10 * time.Second
)

// API is what a Manager asks of the cluster: get and update of the Secret, get and
// patch of the configuration. Both are asked for by name and nothing is cached,
// so that the permissions can name the two objects.
type API interface {
	Get(ctx context.Context, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error
	Update(ctx context.Context, obj client.Object, opts ...client.UpdateOption) error
	Patch(ctx context.Context, obj client.Object, patch client.Patch, opts ...client.PatchOption) error
}

// NewAPI is an API for a cluster. It knows the two kinds beforehand, so it asks
// the cluster for no discovery.
func NewAPI(config *rest.Config) (API, error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), admissionv1.AddToScheme(scheme)); err != nil {
		return nil, fmt.Errorf("client for the certificates: %w", err)
	}
	mapper := meta.NewDefaultRESTMapper(nil)
	mapper.Add(corev1.SchemeGroupVersion.WithKind("Secret"), meta.RESTScopeNamespace)
	mapper.Add(admissionv1.SchemeGroupVersion.WithKind("MutatingWebhookConfiguration"), meta.RESTScopeRoot)
	api, err := client.New(config, client.Options{Scheme: scheme, Mapper: mapper})
	if err != nil {
		return nil, fmt.Errorf("client for the certificates: %w", err)
	}
	return api, nil
}

// Options say which objects a Manager keeps.
type Options struct {
	API API
	// Secret holds the authorities. It must exist; without data it will do.
	Secret client.ObjectKey
	// Configuration is the name of the MutatingWebhookConfiguration. Every webhook in
	// it gets the caBundle.
	Configuration string
	// Names are the DNS names of the certificate: the API server asks for
	// SERVICE.NAMESPACE.svc.
	Names []string
	// Log gets one line for each change and for each new trouble.
	Log *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Manager makes and rotates the serving certificate. Its methods may be called
// from any goroutine; Run once.
type Manager struct {
	Options

	mu sync.Mutex
	// known are the authorities as last read or made, newest first.
	known []authority
	// bundled are the certificates that the last round found in the configuration.
	bundled []*x509.Certificate
	// trusted are those of known that the last two rounds found there.
	trusted []authority
	// serving is nil until an authority was trusted for the first time.
	serving *certificate
	// trouble is what went wrong in the last round.
	trouble error

	// Of the rounds alone, which run one after the other: since when each certificate is
	// known, by its bytes, that has our name and is in the caBundle but not in the Secret;
	// and since when there are revoked ones in the Secret.
	strays       map[string]time.Time
	revokedSince time.Time
}

// New makes a Manager. It does nothing before Run.
func New(o Options) *Manager {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Manager{Options: o, trouble: errors.New("the API server was not asked yet")}
}

// Run keeps the Secret, the configuration and the certificate in order until ctx is
// done. It returns nil then; every trouble on the way is logged and retried.
func (m *Manager) Run(ctx context.Context) error {
	said := ""
	for ctx.Err() == nil {
		trouble := ""
		if err := m.round(ctx); err != nil {
			trouble = err.Error()
		}
		if trouble != "" && trouble != said && ctx.Err() == nil {
			m.Log.Warn("certificates: will try again", "error", trouble)
		}
		said = trouble
		pause := interval
		if m.Ready() != nil {
			pause = hurry
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	return nil
}

// GetCertificate is for tls.Config. A certificate that has expired by now is
// signed again here, so that a jump of the clock needs no round.
func (m *Manager) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, err := m.current()
	if err != nil {
		return nil, err
	}
	return &c.Certificate, nil
}

// Ready is nil while the served certificate is valid and its authority is in the
// caBundle, otherwise a sentence that says what is missing.
func (m *Manager) Ready() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, err := m.current()
	switch {
	case err != nil:
		return err
	case !slices.ContainsFunc(m.bundled, c.by.cert.Equal):
		return m.because("the authority of the serving certificate is not in the caBundle of MutatingWebhookConfiguration %s", m.Configuration)
	case !valid(c.Leaf, m.Now()):
		return m.because("the serving certificate is not valid now (from %s to %s)", c.Leaf.NotBefore.Format(time.RFC3339), c.Leaf.NotAfter.Format(time.RFC3339))
	}
	return nil
}

// because appends the last trouble, if there was one, to a message.
func (m *Manager) because(format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	if m.trouble != nil {
		err = fmt.Errorf("%w: %w", err, m.trouble)
	}
	return err
}

// current is the certificate to serve, signed again if it is time. The caller
// holds the lock.
func (m *Manager) current() (*certificate, error) {
	now := m.Now()
	for _, by := range m.trusted {
		if !valid(by.cert, now) {
			continue
		}
		if m.serving != nil && m.serving.by.is(by) && m.serving.lasts(now) {
			return m.serving, nil
		}
		c, err := by.issue(m.Names, now)
		if err != nil {
			return nil, err
		}
		m.serving = c
		m.Log.Info("serving certificate created", "names", m.Names, "notAfter", c.Leaf.NotAfter)
		return c, nil
	}
	// Nothing better is known to be trusted, so the present one is the best guess.
	if m.serving != nil {
		return m.serving, nil
	}
	return nil, m.because("there is no serving certificate yet")
}
