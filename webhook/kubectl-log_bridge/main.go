// Command kubectl-log_bridge is a plugin of kubectl: `kubectl log-bridge` answers which files an application writes, shows them now, and
// says how to bridge them.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/client-go/kubernetes"
	_ "k8s.io/client-go/plugin/pkg/client/auth" // ways to log in that a kubeconfig may name
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/webhook/internal/ephemeral"
)

// version is set by the linker.
var version = "dev"

// Exit codes, part of the interface.
const (
	exitOK = 0
	// exitProblem: the command worked, and what it looked at has a problem that it has written.
	exitProblem = 1
	// exitTrouble: wrong usage, a cluster that does not answer, or another failure.
	exitTrouble = 2
)

// errProblem is returned after the problem was written.
var errProblem = errors.New("problem")

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// caller begins what the program says on stderr.
const caller = "kubectl log-bridge"

// defaultImage is the sidecar's image if nobody names another.
func defaultImage() string { return "ghcr.io/log-bridge/log-bridge:" + version }

// untilSignal lets a command that has something to finish end in its own way at the first Ctrl-C. Any other ends at once.
func untilSignal(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, os.Interrupt)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	// The libraries' own log lines stay away from the terminal: what they have to say comes back as an error.
	klog.SetLogger(logr.Discard())
	root := command(genericclioptions.IOStreams{In: stdin, Out: stdout, ErrOut: stderr})
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	switch err := root.ExecuteContext(ctx); {
	case err == nil:
		return exitOK
	case errors.Is(err, errProblem):
		return exitProblem
	default:
		say(stderr, "%s: %v", caller, err)
		return exitTrouble
	}
}

// say writes one line for people. What a cluster says is the text of strangers; the line stays one, and shows what it holds.
func say(w io.Writer, format string, args ...any) {
	fmt.Fprintln(w, contract.Line(fmt.Sprintf(format, args...)))
}

// options are what all commands have in common.
type options struct {
	genericclioptions.IOStreams
	kube  *genericclioptions.ConfigFlags
	image string
	wait  time.Duration
}

func command(streams genericclioptions.IOStreams) *cobra.Command {
	o := &options{IOStreams: streams, kube: genericclioptions.NewConfigFlags(true).WithWarningPrinter(streams)}
	root := &cobra.Command{
		Use:   "kubectl-log_bridge",
		Short: "Find the log files of running pods, read them, and bridge them to kubectl logs",
		Long: `Finds the log files of running pods, reads them, and bridges them to kubectl logs.

Exit codes: 0 all is well; 1 a problem that was printed, such as a pod that could not be looked at; 2 wrong usage, a cluster that
does not answer, or another failure.`,
		Version:       version,
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl log-bridge"},
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetVersionTemplate("kubectl log-bridge {{.Version}}\n")
	o.kube.AddFlags(root.PersistentFlags())
	root.AddCommand(o.discover(), o.tail(), o.annotate(), o.status(), o.upgrade(), o.migrate(), o.check(), o.injectManifest(), o.probe(), o.reference())
	return root
}

// looks adds the flags of commands that look into containers.
func (o *options) looks(c *cobra.Command) {
	c.Flags().StringVar(&o.image, "image", defaultImage(), "the `IMAGE` of the sidecar, which runs in an ephemeral container")
	c.Flags().DurationVar(&o.wait, "timeout", time.Minute, "how long to wait for an ephemeral container to start")
}

// client is the way to the cluster.
func (o *options) client() (*rest.Config, kubernetes.Interface, error) {
	config, err := o.kube.ToRESTConfig()
	if err != nil {
		return nil, nil, fmt.Errorf("no cluster; set its kubeconfig with --kubeconfig or KUBECONFIG: %w", err)
	}
	config.UserAgent = "kubectl-log_bridge/" + version
	// A few pods are looked at at once, each with a few requests a second.
	config.QPS, config.Burst = 50, 100
	api, err := kubernetes.NewForConfig(config)
	return config, api, err
}

// runner starts ephemeral containers.
func (o *options) runner() (*ephemeral.Runner, error) {
	config, api, err := o.client()
	if err != nil {
		return nil, err
	}
	return &ephemeral.Runner{Rest: config, API: api, Image: o.image, Patience: o.wait}, nil
}
