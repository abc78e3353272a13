package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/config"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/webhook"

	"github.com/log-bridge/log-bridge/webhook/internal/admit"
	"github.com/log-bridge/log-bridge/webhook/internal/certs"
	"github.com/log-bridge/log-bridge/webhook/internal/inject"
	"github.com/log-bridge/log-bridge/webhook/internal/rules"
	"github.com/log-bridge/log-bridge/webhook/internal/server"
)

// options are the flags of serve.
type options struct {
	inject inject.Config

	port, healthPort, metricsPort int
	stay                          time.Duration

	memory      resource.Quantity
	timeout     time.Duration
	connections int
	http2       bool

	rules string

	clientCA    string
	clientNames string

	certDir               string
	secret, configuration string
	service, namespace    string
}

func serveFlags(o *options) *flag.FlagSet {
	fs := flag.NewFlagSet("serve", flag.ContinueOnError)
	fs.IntVar(&o.port, "port", 10250, "TCP `port` of the admission webhook")
	fs.IntVar(&o.healthPort, "health-port", 8081, "TCP `port` of /healthz and /readyz")
	fs.IntVar(&o.metricsPort, "metrics-port", 8080, "TCP `port` of /metrics; 0 turns them off")
	fs.DurationVar(&o.stay, "shutdown-delay", 10*time.Second, "how long to keep serving after SIGTERM, while /readyz already fails")

	inject.QuantityFlag(fs, &o.memory, "memory", "memory limit of the container; the Go runtime uses at most nine tenths of it, and reviews one sixteenth")
	fs.DurationVar(&o.timeout, "review-timeout", 10*time.Second, "how long a review may take, including its body; set it to the webhook's timeoutSeconds")
	fs.IntVar(&o.connections, "connections", 250, "maximum number of open `CONNECTIONS` to the webhook's port")
	fs.BoolVar(&o.http2, "http2", false, "allow HTTP/2, which API servers do not use for webhooks")
	fs.StringVar(&o.clientCA, "client-ca", "", "PEM `FILE` with the CAs that sign the API servers' client certificates; without it, any client that reaches the port is answered")
	fs.StringVar(&o.clientNames, "client-names", "", "comma-separated common `NAMES` that a client certificate may have (default: any)")
	fs.StringVar(&o.rules, "rules", "", "`FILE` with the rules that bridge pods without annotations; reloaded when it changes (default: none)")
	fs.StringVar(&o.inject.Release, "release", "", "`NAMESPACE/NAME` of the chart's release, for the status of injected pods")

	fs.StringVar(&o.certDir, "cert-dir", "", "`DIR` with tls.crt and tls.key; without it, the webhook creates and renews its certificates itself")
	fs.StringVar(&o.secret, "cert-secret", "log-bridge-webhook", "`NAME` of the Secret with the webhook's own CAs")
	fs.StringVar(&o.configuration, "webhook-configuration", "log-bridge", "`NAME` of the MutatingWebhookConfiguration whose caBundle is kept up to date up to date")
	fs.StringVar(&o.service, "service", "log-bridge-webhook", "`NAME` of the Service, for the webhook's own certificates")
	fs.StringVar(&o.namespace, "namespace", "log-bridge", "`NAMESPACE` of the Secret and the Service")

	o.inject = inject.Config{Version: version, Image: image()}
	o.inject.Flags(fs)
	return fs
}

// certificates give the serving certificate; certs.Manager and certs.Files do.
type certificates interface {
	GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error)
	Run(context.Context) error
	Ready() error
}

// serve answers the API server until ctx is done, and for a while longer: endpoints
// are taken out of service some seconds after a pod is asked to terminate, and requests
// arrive until then.
func serve(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var o options
	if err := parse(serveFlags(&o), args, stdout); err != nil {
		return err
	}
	switch {
	case o.timeout < time.Second:
		return fmt.Errorf("serve: --review-timeout %v is less than 1s; set it to the webhook's timeoutSeconds, such as 5s", o.timeout)
	case o.connections < 1:
		return fmt.Errorf("serve: --connections %d allows no connection; set 1 or more", o.connections)
	case o.clientNames != "" && o.clientCA == "":
		return errors.New("serve: --client-names has no effect without --client-ca; set both")
	}
	log := slog.New(slog.NewJSONHandler(jsonLines{stderr}, nil))
	ctrllog.SetLogger(logr.FromSlogHandler(log.Handler()))
	// What net/http has to say goes by the standard logger.
	slog.SetDefault(log)
	o.obey()
	certificates, err := o.certificates(log)
	if err != nil {
		return err
	}
	return o.serve(ctx, certificates, log)
}

func (o *options) certificates(log *slog.Logger) (certificates, error) {
	if o.certDir != "" {
		return certs.NewFiles(o.certDir, log, nil), nil
	}
	rest, err := config.GetConfig()
	if err != nil {
		return nil, fmt.Errorf("no cluster to store the webhook's own certificates in; set its kubeconfig, or --cert-dir: %w", err)
	}
	api, err := certs.NewAPI(rest)
	if err != nil {
		return nil, err
	}
	return certs.New(certs.Options{
		API:           api,
		Secret:        client.ObjectKey{Namespace: o.namespace, Name: o.secret},
		Configuration: o.configuration,
		Names:         []string{o.service + "." + o.namespace + ".svc", o.service + "." + o.namespace + ".svc.cluster.local"},
		Log:           log,
	}), nil
}

func (o *options) serve(ctx context.Context, certificates certificates, log *slog.Logger) error {
	count := admit.Counter()
	own := prometheus.NewRegistry()
	own.MustRegister(count, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "log_bridge_certificate_expiration_timestamp_seconds",
		Help: "When the serving certificate expires, in seconds since 1970; 0 while there is none.",
	}, func() float64 {
		c, err := certificates.GetCertificate(nil)
		if err != nil {
			return 0
		}
		return float64(c.Leaf.NotAfter.Unix())
	}))
	turnedAway := server.TurnedAway()
	own.MustRegister(turnedAway)
	// Of controller-runtime's server, only what counts and times the requests.
	hooks := webhook.NewServer(webhook.Options{})
	hooks.Register(admit.Path, admit.Handler(func(ctx context.Context, pod *corev1.Pod) inject.Result { return inject.Pod(ctx, pod, o.inject) }, log, count))
	store := rules.NewStore(ctx, o.rules, o.inject, log)
	byRule := admit.RuleCounter()
	own.MustRegister(append(store.Metrics(), byRule)...)
	hooks.Register(admit.RulePath, admit.RuleHandler(store.Set, o.inject, log, count, byRule))
	mux := http.NewServeMux()
	reviews := server.NewReviews(hooks.WebhookMux(), o.room(), o.timeout, turnedAway)
	mux.Handle("POST "+admit.Path, reviews)
	mux.Handle("POST "+admit.RulePath, reviews)
	encryption, err := o.tls(certificates)
	if err != nil {
		return err
	}
	hook := server.New(server.Options{Name: "webhook", Port: o.port, Handler: mux, TLS: encryption, HTTP2: o.http2, Connections: o.connections, Timeout: o.timeout, Log: log})

	// life ends after the delay, or at once when a part fails.
	life, end := context.WithCancelCause(context.WithoutCancel(ctx))
	defer end(nil)
	parts := []func(context.Context) error{
		certificates.Run,
		hook.Run,
		store.Run,
		plain("health", o.healthPort, health(ctx, hook, certificates), log),
	}
	if o.metricsPort != 0 {
		mux := http.NewServeMux()
		mux.Handle("/metrics", promhttp.HandlerFor(prometheus.Gatherers{own, metrics.Registry}, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
		parts = append(parts, plain("metrics", o.metricsPort, mux, log))
	}
	done := make(chan error)
	for _, part := range parts {
		go func() {
			err := part(life)
			if err != nil {
				end(err)
			}
			done <- err
		}()
	}
	go func() {
		select {
		case <-life.Done():
			return
		case <-ctx.Done():
		}
		log.Info("shutting down; still serving until the API server notices", "delay", o.stay)
		select {
		case <-life.Done():
		case <-time.After(o.stay):
			end(nil)
		}
	}()
	var errs []error
	for range parts {
		errs = append(errs, <-done)
	}
	return errors.Join(errs...)
}

// obey makes the Go runtime keep to the container's memory, unless GOMEMLIMIT has done so.
func (o *options) obey() {
	if !o.memory.IsZero() && debug.SetMemoryLimit(-1) == math.MaxInt64 {
		// The rest is for what the runtime does not count: sockets, the program's own pages.
		debug.SetMemoryLimit(o.memory.Value() / 10 * 9)
	}
}

// room is how many bytes of reviews may be in memory at once. To decide one takes several
// times its size.
func (o *options) room() int64 {
	return min(o.memory.Value()/16, 64<<20)
}

// tls is how the webhook identifies itself and, if so configured, its callers.
func (o *options) tls(certificates certificates) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: certificates.GetCertificate}
	if o.clientCA == "" {
		return config, nil
	}
	text, err := os.ReadFile(o.clientCA)
	if err != nil {
		return nil, fmt.Errorf("serve: --client-ca: %w", err)
	}
	config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
	if !config.ClientCAs.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("serve: --client-ca: %s contains no certificate; add one or more as PEM", o.clientCA)
	}
	if o.clientNames == "" {
		return config, nil
	}
	names := strings.Split(o.clientNames, ",")
	// Also for a session that is resumed, unlike VerifyPeerCertificate.
	config.VerifyConnection = func(state tls.ConnectionState) error {
		if name := state.PeerCertificates[0].Subject.CommonName; !slices.Contains(names, name) {
			return fmt.Errorf("client certificate of %q, which is not one of %s", name, o.clientNames)
		}
		return nil
	}
	return config, nil
}

// health answers the kubelet. Ready is: certificates are in order, the server
// accepts calls, and nobody told us to end.
func health(ctx context.Context, hook *server.Server, certificates certificates) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, r *http.Request) {
		err := certificates.Ready()
		if err == nil {
			err = hook.Listening()
		}
		if ctx.Err() != nil {
			err = errors.New("shutting down")
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	return mux
}

// plain serves HTTP without TLS, for a few callers at once.
func plain(what string, port int, handler http.Handler, log *slog.Logger) func(context.Context) error {
	return server.New(server.Options{Name: what, Port: port, Handler: handler, Connections: 32, Timeout: 10 * time.Second, Log: log}).Run
}
