package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
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
)

// options are the flags of serve.
type options struct {
	inject inject.Config

	port, healthPort, metricsPort int
	stay                          time.Duration

	certDir               string
	secret, configuration string
	service, namespace    string
}

func serveFlags(o *options) *flag.FlagSet {
	fs := flag.NewFlagSet("serve", flag.ContinueOnError)
	fs.IntVar(&o.port, "port", 10250, "TCP `port` of the admission webhook")
	fs.IntVar(&o.healthPort, "health-port", 8081, "TCP `port` of /healthz and /readyz")
	fs.IntVar(&o.metricsPort, "metrics-port", 8080, "TCP `port` of /metrics; 0 turns them off")
	fs.DurationVar(&o.stay, "shutdown-delay", 10*time.Second, "how long to go on serving after SIGTERM, while /readyz already says no")

	fs.StringVar(&o.inject.Release, "release", "", "`NAMESPACE/NAME` of the chart's release, for the status of injected pods")

	fs.StringVar(&o.certDir, "cert-dir", "", "`DIR` with tls.crt and tls.key; without it, certificates are made and rotated in process")
	fs.StringVar(&o.secret, "cert-secret", "log-bridge-webhook", "`NAME` of the Secret for self-made authorities")
	fs.StringVar(&o.configuration, "webhook-configuration", "log-bridge", "`NAME` of the MutatingWebhookConfiguration whose caBundle is kept")
	fs.StringVar(&o.service, "service", "log-bridge-webhook", "`NAME` of the Service, for self-made certificates")
	fs.StringVar(&o.namespace, "namespace", "log-bridge", "`NAMESPACE` of the Secret and the Service")

	injectFlags(fs, &o.inject)
	return fs
}

// injectFlags are those of all commands that decide about pods.
func injectFlags(fs *flag.FlagSet, c *inject.Config) {
	fs.StringVar(&c.Image, "image", image(), "the sidecar's `IMAGE`")
	fs.Func("image-pull-policy", "`Always`, IfNotPresent or Never, for the sidecar's image (default: Kubernetes' own)", func(s string) error {
		switch p := corev1.PullPolicy(s); p {
		case "", corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever:
			c.PullPolicy = p
			return nil
		}
		return errors.New("write Always, IfNotPresent or Never")
	})
	c.Version = version
	c.Resources = inject.DefaultResources()
	quantity(fs, &c.Resources.CPURequest, "cpu-request", "the sidecar's cpu request where no annotation says otherwise")
	quantity(fs, &c.Resources.CPULimit, "cpu-limit", "the sidecar's cpu limit")
	quantity(fs, &c.Resources.MemoryRequest, "memory-request", "the sidecar's memory request")
	quantity(fs, &c.Resources.MemoryLimit, "memory-limit", "the sidecar's memory limit")
	quantity(fs, &c.Resources.EphemeralRequest, "ephemeral-storage-request", "the sidecar's ephemeral-storage request, in a pod of which a container has a limit of it or each has a request")
	quantity(fs, &c.Resources.EphemeralLimit, "ephemeral-storage-limit", "the sidecar's ephemeral-storage limit, in a pod of which a container has one")
	fs.Func("stats", "how often the sidecar tells on its stderr what it delivered (`DURATION`, default 0s, which is never)", func(s string) error {
		d, err := time.ParseDuration(s)
		if err != nil || d < 0 {
			return errors.New("write a duration such as 1m, or 0s for never")
		}
		c.Stats = d
		return nil
	})
	quantity(fs, &c.SeedLimit, "seed-limit", "the most bytes that are copied from an image into a log directory; none leaves it to the sidecar's program")
}

// quantity is a flag of a Kubernetes quantity; empty is none.
func quantity(fs *flag.FlagSet, to *resource.Quantity, name, text string) {
	usual := "none"
	if !to.IsZero() {
		usual = to.String()
	}
	fs.Func(name, text+" (`QUANTITY`, default "+usual+")", func(s string) error {
		if s == "" {
			*to = resource.Quantity{}
			return nil
		}
		q, err := resource.ParseQuantity(s)
		if err != nil || q.Sign() <= 0 {
			return errors.New("write a quantity above zero, such as 64Mi or 100m, or nothing")
		}
		*to = q
		return nil
	})
}

// certificates give the serving certificate; certs.Manager and certs.Files do.
type certificates interface {
	GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error)
	Run(context.Context) error
	Ready() error
}

// serve answers the API server until ctx is done, and for a while longer: endpoints
// are taken out of service some seconds after a pod is told to end, and requests
// arrive until then.
func serve(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var o options
	if err := parse(serveFlags(&o), args, stdout); err != nil {
		return err
	}
	log := slog.New(slog.NewJSONHandler(stderr, nil))
	ctrllog.SetLogger(logr.FromSlogHandler(log.Handler()))
	// What net/http has to say goes by the standard logger.
	slog.SetDefault(log)
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
		return nil, fmt.Errorf("no cluster to keep self-made certificates in (--cert-dir takes given ones): %w", err)
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
		Help: "When the serving certificate ends, in seconds since 1970; 0 while there is none.",
	}, func() float64 {
		c, err := certificates.GetCertificate(nil)
		if err != nil {
			return 0
		}
		return float64(c.Leaf.NotAfter.Unix())
	}))
	server := webhook.NewServer(webhook.Options{Port: o.port, TLSOpts: []func(*tls.Config){func(c *tls.Config) {
		c.MinVersion = tls.VersionTLS12
		c.GetCertificate = certificates.GetCertificate
	}}})
	server.Register(admit.Path, admit.Handler(func(pod *corev1.Pod) inject.Result { return inject.Pod(pod, o.inject) }, log, count))

	// life ends after the delay, or at once when a part fails.
	life, end := context.WithCancelCause(context.WithoutCancel(ctx))
	defer end(nil)
	parts := []func(context.Context) error{
		certificates.Run,
		server.Start,
		plain("health", o.healthPort, health(ctx, server, certificates)),
	}
	if o.metricsPort != 0 {
		mux := http.NewServeMux()
		mux.Handle("/metrics", promhttp.HandlerFor(prometheus.Gatherers{own, metrics.Registry}, promhttp.HandlerOpts{}))
		parts = append(parts, plain("metrics", o.metricsPort, mux))
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
		log.Info("told to end; serving on until the API server has noticed", "delay", o.stay)
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

// health answers the kubelet. Ready is: certificates are in order, the server
// accepts calls, and nobody told us to end.
func health(ctx context.Context, server webhook.Server, certificates certificates) http.Handler {
	started := server.StartedChecker()
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, r *http.Request) {
		err := certificates.Ready()
		if err == nil {
			err = started(r)
		}
		if ctx.Err() != nil {
			err = errors.New("told to end")
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	return mux
}

// plain serves HTTP without TLS until its context is done.
func plain(what string, port int, handler http.Handler) func(context.Context) error {
	return func(ctx context.Context) error {
		listener, err := net.Listen("tcp", ":"+strconv.Itoa(port))
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
		stop := context.AfterFunc(ctx, func() { server.Close() })
		defer stop()
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("%s: %w", what, err)
		}
		return nil
	}
}
