// Command cluster runs a real Kubernetes of one node on this machine, for the tests and the demo: etcd,
// kube-apiserver, kube-controller-manager, kube-scheduler, kube-proxy and kubelet compiled from their
// published Go modules, containerd and runc from Debian. It also builds container images and the tools
// that go with them, all without a container registry.
//
// The node lives in Linux namespaces of its own (processes, mounts, network, host name, cgroups), whose
// first process supervises it. So it changes nothing of the machine's mounts, network, firewall and kernel settings,
// several clusters may run side by side, and the kernel itself ends all that runs in one when its first process dies,
// however it dies. What remains is a directory and empty cgroups; down removes them, and so does the next up.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

const usage = `cluster runs a real one-node Kubernetes cluster on this machine, for the tests and the demo.

  cluster up [--foreground]    start it; print the path of its kubeconfig once it is ready
                               --foreground: stay until stdin ends or a signal arrives, then remove it
                               --also DIR: with --foreground, also remove this directory at the end
  cluster down                 remove it, and everything but the cache
  cluster kubeconfig           print the path of its kubeconfig
  cluster load IMAGE-TAR…      load images into it (its pods find them with imagePullPolicy IfNotPresent or Never)
  cluster exec COMMAND…        run a command inside the node, such as: ctr -n k8s.io containers list
  cluster logs                 print the directory with the logs of its components

  cluster build --file DOCKERFILE --tag NAME:TAG --output IMAGE-TAR [--build-arg KEY=VALUE]… CONTEXT
                               build an image; if the default of an ARG in the Dockerfile is the base image golang,
                               python, debian or busybox, that image is made from this machine
  cluster pack --file DOCKERFILE --tag NAME:TAG --output IMAGE-TAR [--platform linux/ARCH] DIR
                               make the image of a Dockerfile whose last stage is from scratch, from compiled programs
                               in a directory; needs no root
  cluster tool NAME            build a tool once and print its path: kubectl, helm, helm3, collector or golangci-lint;
                               or download a static busybox
  cluster install PACKAGE…     install missing Debian packages that tests run inside the node

All verbs but build, pack, tool and install take --name NAME (default "demo"), and --state DIR, the directory of the
clusters' files (default /var/lib/log-bridge-cluster). Compiled programs and image layers are kept in
$XDG_CACHE_HOME/log-bridge. Progress goes to stderr, results to stdout.
`

func main() {
	// The first signal ends the work in good order, a second one at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(ctx, stop)
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("missing verb; use up, down, kubeconfig, load, exec, logs, build, pack, tool or install; see cluster help")
	}
	verb, args := args[0], args[1:]
	flags := flag.NewFlagSet(verb, flag.ContinueOnError)
	flags.Usage = func() { fmt.Fprint(os.Stderr, usage) }
	switch verb {
	case "help", "-h", "--help":
		fmt.Print(usage)
		return nil
	case nodeVerb:
		return runNode(ctx, args)
	case "build":
		return runBuild(ctx, flags, args)
	case "pack":
		return runPack(flags, args)
	case "tool":
		if len(args) != 1 {
			return errors.New("tool: give one name: kubectl, helm, helm3, collector, golangci-lint or busybox")
		}
		path, err := toolPath(ctx, args[0])
		if err == nil {
			fmt.Println(path)
		}
		return err
	case "install":
		return installOthers(args)
	}

	name := flags.String("name", "demo", "the cluster's name")
	state := flags.String("state", "/var/lib/log-bridge-cluster", "directory of the clusters' files")
	foreground, also := false, ""
	if verb == "up" {
		flags.StringVar(&also, "also", "", "with --foreground, also remove this directory at the end")
		flags.BoolVar(&foreground, "foreground", false, "stay until stdin ends or a signal arrives, then remove it")
	}
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	c, err := newCluster(*name, *state)
	if err != nil {
		return err
	}
	rest := flags.Args()
	if len(rest) > 0 && verb != "load" && verb != "exec" {
		return fmt.Errorf("%s takes no arguments; got %s", verb, strings.Join(rest, " "))
	}
	switch verb {
	case "up":
		if also != "" && !foreground {
			return errors.New("up: --also is for --foreground")
		}
		return errors.Join(c.up(ctx, foreground), os.RemoveAll(also))
	case "down":
		return c.down()
	case "load":
		return c.load(rest)
	case "exec":
		return c.exec(rest)
	case "kubeconfig", "logs":
		if _, err := c.running(); err != nil {
			return err
		}
		if verb == "logs" {
			fmt.Println(c.path("log"))
			return nil
		}
		fmt.Println(c.path("kubeconfig"))
		return nil
	}
	return fmt.Errorf("unknown verb %q; use up, down, kubeconfig, load, exec, logs, build, pack, tool or install; see cluster help", verb)
}
