# Atoll. `make help` lists what there is.
GO      ?= go
BIN     := bin/atoll
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X atoll/agent.Build=$(VERSION)
export CGO_ENABLED ?= 0

.PHONY: help build test race e2e power bench lint demo cross fuzz clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z0-9]+:.*## /{printf "  %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/atoll (needs Go)
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/atoll

test: ## unit and in-process tests; counts what it had to skip (needs Go)
	@scripts/test ./...

race: ## the same under the race detector (needs Go and a C compiler)
	@CGO_ENABLED=1 scripts/test -race ./...

e2e: build ## real processes in network namespaces, a real Docker engine (needs root; scripts/setup installs the rest)
	@ATOLL_BIN=$(CURDIR)/$(BIN) scripts/test -tags e2e -count 1 -timeout 20m ./e2e/...

power: build ## machines lose their power, and what was not synced (needs root and /dev/fuse; ATOLL_POWER_SEEDS=50 for longer)
	@scripts/test -tags power -count 1 -timeout 2m ./internal/forgetfs
	@scripts/test -tags power -count 1 -timeout 60m -run PowerLoss ./cell
	@ATOLL_BIN=$(CURDIR)/$(BIN) scripts/test -tags e2e,power -count 1 -timeout 60m -run PowerLoss ./e2e

bench: build ## benchmarks of the budgets; figures belong in docs/benchmarks.md (needs Go)
	$(GO) test -p 1 -run '^$$' -bench . -benchtime 1x -timeout 60m ./cell ./scheduler ./region
	$(GO) test -run '^$$' -bench . -benchtime 2s ./rpc
	ATOLL_BIN=$(CURDIR)/$(BIN) $(GO) test -tags bench -run '^$$' -bench . -benchtime 1x ./e2e

lint: ## gofmt, vet, staticcheck (needs Go)
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo 'run gofmt -w on these'; exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags e2e,bench ./e2e/...
	$(GO) vet -tags e2e,power ./cell ./e2e ./internal/forgetfs
	$(GO) tool staticcheck ./...

demo: build ## three regions on this machine: submit to one, run in another, lose one (needs Go)
	@scripts/demo

cross: ## build and vet for every supported system
	@scripts/cross

fuzz: ## fuzz whatever parses bytes from outside, FUZZTIME each (needs Go)
	@scripts/fuzz

clean: ## remove what was built
	rm -rf bin dist
