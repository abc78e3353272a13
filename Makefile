# The tests and the demo run a real Kubernetes from test/cluster; what it needs beside Go
# it installs itself (Debian packages) or compiles once into a cache outside the checkout.

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
GOFLAGS_STATIC := -trimpath -ldflags "-s -w -X main.version=$(VERSION)"
PLATFORM ?= linux/$(shell go env GOARCH)
CLUSTER := bin/cluster

.PHONY: help
help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build both programs into bin/
	CGO_ENABLED=0 go build $(GOFLAGS_STATIC) -o bin/log-bridge ./sidecar
	CGO_ENABLED=0 go build $(GOFLAGS_STATIC) -o bin/log-bridge-webhook ./webhook

.PHONY: $(CLUSTER)
$(CLUSTER):
	@go build -C test/cluster -o ../../$(CLUSTER) .

.PHONY: images
images: $(CLUSTER) ## Build both images into dist/*.tar (PLATFORM=linux/arm64 for another processor)
	mkdir -p dist
	$(CLUSTER) build --file Dockerfile.sidecar --tag ghcr.io/log-bridge/log-bridge:$(VERSION) --build-arg VERSION=$(VERSION) --platform $(PLATFORM) --output dist/log-bridge.tar .
	$(CLUSTER) build --file Dockerfile.webhook --tag ghcr.io/log-bridge/log-bridge-webhook:$(VERSION) --build-arg VERSION=$(VERSION) --platform $(PLATFORM) --output dist/log-bridge-webhook.tar .

.PHONY: test
test: $(CLUSTER) ## Run all tests; as root on Debian also those on a real cluster
	go vet ./...
	@helm=$$($(CLUSTER) tool helm) && HELM=$$helm go test -timeout 45m ./...
	go -C test/cluster vet ./...
	go -C test/cluster test -timeout 30m ./...

.PHONY: torture
torture: ## Play random programs against the sidecar for TORTURE=10m, also on xfs and btrfs as root
	TORTURE=$(or $(TORTURE),10m) go test -v -timeout 0 -count 1 -run TestTorture ./sidecar/internal/follow

.PHONY: lint
lint: $(CLUSTER) ## Check formatting, modules and code
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo "run gofmt -w on these files"; exit 1; }
	go mod tidy -diff
	go -C test/cluster mod tidy -diff
	go -C test/tools/collector mod tidy -diff
	@lint=$$($(CLUSTER) tool golangci-lint) && $$lint run ./...

.PHONY: demo
demo: $(CLUSTER) ## Start a real Kubernetes, install the chart and show the example
	@CLUSTER=$(CLUSTER) test/demo/demo.sh up

.PHONY: demo-down
demo-down: $(CLUSTER) ## Remove everything that the demo started
	@CLUSTER=$(CLUSTER) test/demo/demo.sh down
