# The tests and the demo run a real Kubernetes from test/dev/cluster. It installs what it needs (Debian packages), or compiles
# it once into a cache outside the checkout. You only need Go.

# A tag v1.2.3 is the version 1.2.3 everywhere.
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
override VERSION := $(patsubst v%,%,$(VERSION))
GOFLAGS_STATIC := -trimpath -ldflags "-s -w -X main.version=$(VERSION)"
PLATFORM ?= linux/$(shell go env GOARCH)
CLUSTER := bin/cluster
# All modules with our own code. Those in test/dev/tools, and test/dev/cluster/kube, only pin tools that are built from them.
MODULES := . test/dev/bench test/helpers/cert-manager test/dev/cluster test/libraries test/policy test/prometheus test/dev/tools/collector

.PHONY: help
help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build the programs into bin/
	CGO_ENABLED=0 go build $(GOFLAGS_STATIC) -o bin/log-bridge ./sidecar
	CGO_ENABLED=0 go build $(GOFLAGS_STATIC) -o bin/log-bridge-webhook ./webhook
	CGO_ENABLED=0 go build $(GOFLAGS_STATIC) -o bin/kubectl-log_bridge ./webhook/kubectl-log_bridge

.PHONY: $(CLUSTER)
$(CLUSTER):
	@go build -C test/dev/cluster -o ../../../$(CLUSTER) .

.PHONY: images
images: $(CLUSTER) ## Build both images into dist/*.tar (PLATFORM=linux/arm64 for another processor)
	mkdir -p dist
	$(CLUSTER) build --file Dockerfile.sidecar --tag ghcr.io/log-bridge/log-bridge:$(VERSION) --build-arg VERSION=$(VERSION) --platform $(PLATFORM) --output dist/log-bridge.tar .
	$(CLUSTER) build --file Dockerfile.webhook --tag ghcr.io/log-bridge/log-bridge-webhook:$(VERSION) --build-arg VERSION=$(VERSION) --platform $(PLATFORM) --output dist/log-bridge-webhook.tar .

.PHONY: dist
dist: $(CLUSTER) ## Build all parts of a release in dist/, for example: make dist VERSION=v0.1.0
	@CLUSTER=$(CLUSTER) test/dev/release/dist.sh $(VERSION)

.PHONY: test
test: $(CLUSTER) ## Run all tests; as root on Debian also those on a real cluster
	go vet ./...
	@helm=$$($(CLUSTER) tool helm) && helm3=$$($(CLUSTER) tool helm3) && HELM=$$helm HELM3=$$helm3 go test -timeout 60m ./...
	go test -race -timeout 30m -run TestManyReviews ./webhook/internal/admit
	@helm=$$($(CLUSTER) tool helm) && HELM=$$helm go -C test/prometheus test ./...
	@helm=$$($(CLUSTER) tool helm) && HELM=$$helm go -C test/policy test ./...
	go -C test/dev/cluster vet ./...
	go -C test/dev/cluster test -timeout 30m ./...
	go -C test/libraries vet ./...
	go -C test/libraries test ./...

.PHONY: test-fast
test-fast: ## Run the tests that need neither a cluster nor root, in two minutes; only compile the others
	@set -e; for m in $(MODULES); do echo "go -C $$m vet ./..."; go -C $$m vet ./...; done
	go test -short ./sidecar/... ./webhook/... ./charts/... ./docs/... ./test/...
	go -C test/libraries test -short ./...

.PHONY: libraries
libraries: ## Test logging libraries and programs, also of Java and Node.js; as root on Debian with a JDK and npm
	apt-get install --yes --no-install-recommends liblog4j2-java liblogback-java runit daemontools s6 apache2-utils cronolog supervisor
	npm ci --no-audit --no-fund --prefix test/libraries/testdata/node
	LIBRARIES=all go -C test/libraries test -v -count 1 ./...

.PHONY: cert-manager
cert-manager: $(CLUSTER) ## Test the chart's mode cert-manager with cert-manager's own controllers, as root on Debian
	E2E_CERT_MANAGER=1 go test -v -timeout 30m -count 1 -run TestCertManager ./test/e2e

.PHONY: torture
torture: $(CLUSTER) ## Run random programs against the sidecar for TORTURE=10m, also on xfs and btrfs as root
	@if [ "$$(id -u)" = 0 ] && [ -f /etc/debian_version ]; then $(CLUSTER) install xfsprogs btrfs-progs; fi
	TORTURE=$(or $(TORTURE),10m) go test -v -timeout 0 -count 1 -run 'TestTorture|TestD3' ./sidecar/internal/follow ./sidecar

.PHONY: bench
bench: build $(CLUSTER) ## Compare the sidecar with similar programs, and write docs/performance.md; takes an hour
	go -C test/dev/bench build -o ../../../bin/ . ./nxadm
	go test -run '^$$' -bench . -benchmem -cpu 1 ./sidecar/internal/follow ./webhook/internal/admit | tee bin/bench.txt
	@helm=$$($(CLUSTER) tool helm) && HELM=$$helm BENCH=$(CURDIR)/bin/bench.md go test -count 1 -timeout 30m -run 'TestBench$$' ./test/e2e
	bin/bench -sidecar bin/log-bridge -nxadm bin/nxadm -busybox $$($(CLUSTER) tool busybox) -also bin/bench.md -go bin/bench.txt -page docs/performance.md

.PHONY: lint
lint: $(CLUSTER) ## Check formatting, modules and code, of every Go module
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo "run gofmt -w on these files"; exit 1; }
	@set -e; for m in $(MODULES); do go -C $$m mod tidy -diff; done
	@set -e; lint=$$($(CLUSTER) tool golangci-lint); config=$(CURDIR)/.golangci.yml; \
		for m in $(MODULES); do echo "golangci-lint run $$m"; (cd $$m && $$lint run --config $$config ./...); done

.PHONY: demo
demo: $(CLUSTER) ## Start a real Kubernetes cluster, install the chart and show the example
	@CLUSTER=$(CLUSTER) test/dev/demo/demo.sh up

.PHONY: demo-down
demo-down: $(CLUSTER) ## Remove everything that the demo started
	@CLUSTER=$(CLUSTER) test/dev/demo/demo.sh down
