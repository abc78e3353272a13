#!/usr/bin/env bash
# demo.sh up|down: shows log-bridge on a real Kubernetes cluster, step by step on the terminal.
#
# By default it starts its own cluster (test/dev/cluster, as root on Debian) and builds the images;
# DEMO_CLUSTER names that cluster, so that two can run side by side. With USE_KUBECONFIG=1 it
# uses the cluster of KUBECONFIG, and the published images.
set -euo pipefail
cd "$(dirname "$0")/../../.."
cluster=${CLUSTER:-bin/cluster}
name=${DEMO_CLUSTER:-demo}
namespace=log-bridge-demo

bold= normal=
if [ -t 1 ]; then
	bold=$(tput bold 2>/dev/null || true)
	normal=$(tput sgr0 2>/dev/null || true)
fi
title() { printf '\n%s== %s%s\n' "$bold" "$*" "$normal"; }
# show COMMAND…: run a command as a user would type it.
show() { printf '\n%s$ %s%s\n' "$bold" "${1##*/} ${*:2}" "$normal"; "$@"; }

# step SENTENCE COMMAND…: print what it does, do it, print how long it took.
step() {
	local sentence=$1 begun=$SECONDS out
	shift
	printf '%s …\n' "$sentence"
	if ! out=$("$@" 2>&1); then
		printf '%s\n\nThis failed; its output is above.\n' "$out" >&2
		return 1
	fi
	printf '  done in %d s\n' $((SECONDS - begun))
}

build_and_load() {
	local tars=dist/demo
	mkdir -p "$tars"
	step "Building the sidecar's image from Dockerfile.sidecar" \
		"$cluster" build --file Dockerfile.sidecar --tag ghcr.io/log-bridge/log-bridge:demo --output $tars/log-bridge.tar .
	step "Building the webhook's image from Dockerfile.webhook" \
		"$cluster" build --file Dockerfile.webhook --tag ghcr.io/log-bridge/log-bridge-webhook:demo --output $tars/log-bridge-webhook.tar .
	step "Building the example's image from examples/python-app-log/Dockerfile" \
		"$cluster" build --file examples/python-app-log/Dockerfile --tag ghcr.io/log-bridge/python-app-log:1.0 --output $tars/python-app-log.tar examples/python-app-log
	step "Loading the images into the cluster" \
		"$cluster" load --name "$name" $tars/log-bridge.tar $tars/log-bridge-webhook.tar $tars/python-app-log.tar
}

# lines waits until the example has logged a few lines.
lines() {
	for _ in $(seq 60); do
		if [ "$("$kubectl" logs -n $namespace deploy/python-app-log -c log-bridge 2>/dev/null | grep -c 'Request successful')" -ge 3 ]; then
			return 0
		fi
		sleep 1
	done
	echo "no lines arrived within a minute; this is what the cluster reports:"
	"$kubectl" describe pods -n $namespace
	return 1
}

up() {
	local helm_values=()
	if [ "${USE_KUBECONFIG:-}" = 1 ]; then
		for program in kubectl helm; do
			command -v $program >/dev/null || { echo "USE_KUBECONFIG=1 needs $program on your PATH" >&2; exit 1; }
		done
		kubectl=kubectl helm=helm
		title "The cluster of $(kubectl config current-context)"
	else
		if [ -n "${KUBECONFIG:-}" ]; then
			printf 'KUBECONFIG is set. To use that cluster and the published images, run: make demo USE_KUBECONFIG=1\nContinuing with a separate cluster.\n'
		fi
		if [ "$(id -u)" != 0 ]; then
			echo "The demo starts a Kubernetes cluster on this machine, which needs root. Run: sudo make demo" >&2
			exit 1
		fi
		title "A real Kubernetes cluster on this machine"
		KUBECONFIG=$("$cluster" up --name "$name")
		export KUBECONFIG
		kubectl=$("$cluster" tool kubectl)
		helm=$("$cluster" tool helm)
		title "The images"
		build_and_load
		helm_values=(--set image.tag=demo --set webhook.image.tag=demo)
	fi

	title "The chart"
	step "Installing charts/log-bridge with Helm" \
		"$helm" upgrade --install log-bridge charts/log-bridge --namespace log-bridge --create-namespace --wait --timeout 5m "${helm_values[@]}"

	title "The application logs to a file; one annotation adds log-bridge"
	show cat examples/python-app-log/deployment.yaml
	"$kubectl" get namespace $namespace >/dev/null 2>&1 || "$kubectl" create namespace $namespace >/dev/null
	show "$kubectl" apply -n $namespace -f examples/python-app-log/deployment.yaml
	step "Waiting for the pod" "$kubectl" rollout status -n $namespace deployment/python-app-log --timeout=300s

	title "The program is still there, beside its log"
	show "$kubectl" exec -n $namespace deploy/python-app-log -c app -- ls -l /app

	title "Its log lines are in kubectl logs"
	step "Waiting for the first lines" lines
	show "$kubectl" logs -n $namespace deploy/python-app-log -c log-bridge --tail=10

	title "Try it yourself"
	[ "${USE_KUBECONFIG:-}" = 1 ] || printf 'export KUBECONFIG=%s PATH=$PATH:%s\n' "$KUBECONFIG" "$(dirname "$kubectl")"
	cat <<-END
	kubectl logs -f -n $namespace deploy/python-app-log -c log-bridge
	kubectl get pod -n $namespace -o yaml          # what was added
	kubectl logs -n log-bridge deploy/log-bridge   # the webhook's decisions
	make demo-down${USE_KUBECONFIG:+ USE_KUBECONFIG=1}${DEMO_CLUSTER:+ DEMO_CLUSTER=$DEMO_CLUSTER}
	END
}

down() {
	if [ "${USE_KUBECONFIG:-}" = 1 ]; then
		kubectl delete namespace $namespace --ignore-not-found
		helm uninstall log-bridge --namespace log-bridge --ignore-not-found --wait
		kubectl delete namespace log-bridge --ignore-not-found
		return
	fi
	"$cluster" down --name "$name"
	rm -rf dist/demo
}

case "${1:-}" in
up) up ;;
down) down ;;
*)
	echo "usage: demo.sh up|down" >&2
	exit 2
	;;
esac
