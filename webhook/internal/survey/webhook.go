package survey

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream"

	"github.com/log-bridge/log-bridge/webhook/internal/finding"
)

// soon is how early the end of a certificate is reported. Those that are renewed by themselves
// have at least ten days ahead by then.
const soon = 7 * 24 * time.Hour

// answerIn is how long a webhook pod may take for an answer.
const answerIn = 10 * time.Second

// webhooks looks at each configuration of log-bridge and at who serves it. It returns the
// namespaces in which one is installed.
func (s *survey) webhooks(ctx context.Context) (at []string) {
	var found []release
	err := s.each(ctx, hooks, "", metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=log-bridge"}, func(object *unstructured.Unstructured) error {
		var conf admissionv1.MutatingWebhookConfiguration
		if err := decode(object, &conf); err != nil {
			return err
		}
		hook, ok := hook(&conf)
		if !ok {
			return nil
		}
		selector, err := metav1.LabelSelectorAsSelector(hook.NamespaceSelector)
		if err != nil {
			return fmt.Errorf("read the namespaceSelector of MutatingWebhookConfiguration %s: %w", conf.Name, err)
		}
		s.selectors = append(s.selectors, selector)
		found = append(found, releaseOf(&conf, hook))
		if service := hook.ClientConfig.Service; service != nil && len(found) == 1 {
			s.registered(ctx, &conf, service.Namespace)
		}
		if s.Plan != nil {
			return nil
		}
		name := "MutatingWebhookConfiguration/" + conf.Name
		roots := certificates(hook.ClientConfig.CABundle)
		if len(roots) == 0 {
			s.find("", name, finding.New(finding.NoCABundle, "its caBundle contains no certificate, so the API server trusts no webhook pod"))
		}
		if service := hook.ClientConfig.Service; service != nil {
			at = append(at, service.Namespace)
			s.serving(ctx, service.Namespace, service.Name, roots)
		}
		return nil
	})
	s.forbidden(err, "", "MutatingWebhookConfigurations", "cannot check whether log-bridge is installed")
	s.several(found)
	if err == nil && len(found) == 0 {
		s.find("", "MutatingWebhookConfigurations", finding.New(finding.NotInstalled, "log-bridge has none, so no pod gets the sidecar; install the chart"))
	}
	return at
}

// release is an installation of the chart.
type release struct{ configuration, words string }

func releaseOf(conf *admissionv1.MutatingWebhookConfiguration, hook admissionv1.MutatingWebhook) release {
	words := "MutatingWebhookConfiguration " + conf.Name
	if name := conf.Labels["app.kubernetes.io/instance"]; name != "" {
		words += " of release " + name
	}
	if service := hook.ClientConfig.Service; service != nil {
		words += " in namespace " + service.Namespace
	}
	if v := conf.Labels["app.kubernetes.io/version"]; v != "" {
		words += ", version " + v
	}
	return release{conf.Name, words}
}

// several finds more than one installation. The API server calls webhooks in the order
// of their configurations' names.
func (s *survey) several(found []release) {
	if len(found) < 2 {
		return
	}
	slices.SortFunc(found, func(a, b release) int { return strings.Compare(a.configuration, b.configuration) })
	var words []string
	for _, r := range found {
		words = append(words, r.words)
	}
	s.find("", "MutatingWebhookConfigurations", finding.New(finding.SeveralReleases,
		"log-bridge is installed %d times: %s; in a namespace that several of them serve, %s injects and the others leave its pods unchanged; uninstall all but one, or give each its own namespaces with webhook.excludedNamespaces",
		len(found), finding.Words(strings.Join(words, "; ")), finding.Words(found[0].configuration)))
}

// certificates are those in PEM text.
func certificates(text []byte) []*x509.Certificate {
	var all []*x509.Certificate
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return all
		}
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			all = append(all, c)
		}
	}
}

// serving looks at the pods behind the Service.
func (s *survey) serving(ctx context.Context, namespace, service string, roots []*x509.Certificate) {
	name := "Service/" + service
	object, err := s.api.Resource(services).Namespace(namespace).Get(ctx, service, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		s.find(namespace, name, finding.New(finding.NoWebhookReady, "the Service does not exist, so no webhook pod is called; reinstall the chart"))
		return
	}
	if err != nil {
		s.forbidden(fmt.Errorf("read Service %s: %w", service, err), namespace, name, "cannot check whether a webhook pod is ready")
		return
	}
	selector, _, _ := unstructured.NestedStringMap(object.Object, "spec", "selector")
	var unready []Object
	ready := 0
	err = s.each(ctx, pods, namespace, metav1.ListOptions{LabelSelector: labels.SelectorFromSet(selector).String()}, func(object *unstructured.Unstructured) error {
		var pod corev1.Pod
		if err := decode(object, &pod); err != nil {
			return err
		}
		if pod.DeletionTimestamp != nil {
			return nil
		}
		if isReady(&pod) {
			ready++
		} else {
			unready = append(unready, Object{Namespace: namespace, Name: "Pod/" + pod.Name, Findings: []finding.Finding{finding.New(finding.WebhookPodNotReady, "it is not ready: %s", finding.Words(s.why(ctx, &pod)))}})
		}
		if pod.Status.Phase == corev1.PodRunning && len(roots) > 0 {
			s.certificate(ctx, &pod, service+"."+namespace+".svc", roots)
		}
		return nil
	})
	s.forbidden(err, namespace, name, "cannot check whether a webhook pod is ready")
	s.Objects = append(s.Objects, unready...)
	if err == nil && ready == 0 {
		words := finding.Words("no webhook pod is ready, so annotated pods start without the sidecar or not at all, depending on failurePolicy")
		if len(unready) == 0 {
			words = "there is no webhook pod, so annotated pods start without the sidecar or not at all, depending on failurePolicy; check the replicas of the Deployment"
		}
		s.find(namespace, name, finding.New(finding.NoWebhookReady, "%s", words))
	}
}

func isReady(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// why says why a webhook pod is not ready: in its own words, if it runs.
func (s *survey) why(ctx context.Context, pod *corev1.Pod) string {
	for _, c := range pod.Status.ContainerStatuses {
		if w := c.State.Waiting; w != nil {
			return strings.TrimSuffix(w.Reason+": "+w.Message, ": ")
		}
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status != corev1.ConditionTrue {
			return c.Message
		}
	}
	words := "see its log"
	err := s.forward(ctx, pod, "health", func(address string) error {
		answer, err := ask(ctx, "http://"+address+"/readyz", nil)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(io.LimitReader(answer.Body, 4096))
		if err == nil {
			words = strings.TrimSpace(string(text))
		}
		return err
	})
	if err != nil {
		words += " (" + err.Error() + ")"
	}
	return words
}

// ask sends one request, past any proxy of the person's.
func ask(ctx context.Context, url string, config *tls.Config) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	return (&http.Client{Timeout: answerIn, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: config}}).Do(request)
}

// certificate does with a webhook pod what the API server does before a call: it asks for
// its certificate and verifies it by the caBundle.
func (s *survey) certificate(ctx context.Context, pod *corev1.Pod, dnsName string, roots []*x509.Certificate) {
	var shown []*x509.Certificate
	err := s.forward(ctx, pod, "webhook", func(address string) error {
		// A whole request, to which the answer is 404: a handshake alone would be an error in the
		// webhook's log. judge verifies, and so tells a bad certificate from a bad network.
		answer, err := ask(ctx, "https://"+address+"/", &tls.Config{InsecureSkipVerify: true, ServerName: dnsName, MinVersion: tls.VersionTLS12,
			VerifyConnection: func(state tls.ConnectionState) error {
				shown = state.PeerCertificates
				return nil
			}})
		if err == nil {
			answer.Body.Close()
		} else if len(shown) == 0 {
			// Otherwise it wants a client certificate, which only API servers have.
			return fmt.Errorf("certificate of pod %s: %w", pod.Name, err)
		}
		return nil
	})
	s.forbidden(err, pod.Namespace, "Pod/"+pod.Name, "cannot check whether the API server accepts its certificate")
	if err == nil {
		s.find(pod.Namespace, "Pod/"+pod.Name, judge(shown, roots, dnsName, time.Now())...)
	}
}

// judge verifies the chain that a server shows, its own certificate first.
func judge(shown, roots []*x509.Certificate, dnsName string, now time.Time) []finding.Finding {
	pool, between := x509.NewCertPool(), x509.NewCertPool()
	for _, c := range roots {
		pool.AddCert(c)
	}
	for _, c := range shown[1:] {
		between.AddCert(c)
	}
	chains, err := shown[0].Verify(x509.VerifyOptions{Roots: pool, Intermediates: between, DNSName: dnsName, CurrentTime: now})
	if err != nil {
		return []finding.Finding{finding.New(finding.CertificateRejected, "the API server does not accept its certificate, which the caBundle does not verify: %v", err)}
	}
	if end := lasts(chains); end.Sub(now) < soon {
		return []finding.Finding{finding.New(finding.CertificateExpiring, "its certificate, or the CA that signed it, expires at %s; renew it", end.UTC().Format(time.RFC3339))}
	}
	return nil
}

// lasts is when the last of the chains ends; a chain ends with the first of its
// certificates.
func lasts(chains [][]*x509.Certificate) time.Time {
	var last time.Time
	for _, chain := range chains {
		end := slices.MinFunc(chain, func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) }).NotAfter
		if end.After(last) {
			last = end
		}
	}
	return last
}

// forward calls use with an address at which a port of a pod can be reached, as kubectl
// port-forward does: through the API server and the kubelet, so that no other way to
// the pod is needed.
func (s *survey) forward(ctx context.Context, pod *corev1.Pod, port string, use func(address string) error) error {
	number := 0
	for _, c := range pod.Spec.Containers {
		for _, p := range c.Ports {
			if p.Name == port {
				number = int(p.ContainerPort)
			}
		}
	}
	if number == 0 {
		return fmt.Errorf("pod %s has no port named %s", pod.Name, port)
	}
	dialer, err := forwarder(s.Rest, pod)
	if err != nil {
		return fmt.Errorf("forward to pod %s: %w", pod.Name, err)
	}
	ready := make(chan struct{})
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	tunnel, err := portforward.NewOnAddressesForStreamingWithContext(ctx, dialer, []string{"127.0.0.1"}, []string{"0:" + strconv.Itoa(number)}, ready, io.Discard, io.Discard)
	if err != nil {
		return fmt.Errorf("forward to pod %s: %w", pod.Name, err)
	}
	ended := make(chan struct{})
	var failure error
	go func() {
		defer close(ended)
		failure = tunnel.ForwardPorts()
	}()
	select {
	case <-ended:
		return refusal(pod.Name, failure)
	case <-ready:
	}
	defer func() {
		cancel()
		<-ended
	}()
	ports, err := tunnel.GetPorts()
	if err != nil {
		return fmt.Errorf("forward to pod %s: %w", pod.Name, err)
	}
	return use(net.JoinHostPort("127.0.0.1", strconv.Itoa(int(ports[0].Local))))
}

// refusal gives an error of the tunnel the type of a missing permission, which the two
// protocols keep in their words only.
func refusal(pod string, err error) error {
	if err == nil {
		err = errors.New("the tunnel ended")
	}
	if strings.Contains(err.Error(), cannotCreate) {
		return apierrors.NewForbidden(pods.GroupResource(), pod, errors.New("you may not create pods/portforward"))
	}
	return fmt.Errorf("forward to pod %s: %w", pod, err)
}

// forwarder speaks by WebSocket, and by SPDY to API servers before 1.31.
func forwarder(config *rest.Config, pod *corev1.Pod) (httpstream.Dialer, error) {
	base, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return nil, err
	}
	to := base.JoinPath("api/v1/namespaces", pod.Namespace, "pods", pod.Name, "portforward")
	transport, upgrader, err := spdy.RoundTripperFor(config)
	if err != nil {
		return nil, err
	}
	old := spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport}, http.MethodPost, to)
	web, err := portforward.NewSPDYOverWebsocketDialerForStreaming(&url.URL{Scheme: to.Scheme, Host: to.Host, Path: to.Path}, config)
	if err != nil {
		return nil, err
	}
	return portforward.NewFallbackDialerForStreaming(web, old, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	}), nil
}
