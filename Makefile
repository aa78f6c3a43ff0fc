# Everything here needs Go and nothing else, except test-race, which needs a C
# compiler as the race detector does.

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c

GOLANGCI_LINT_VERSION := v2.15.0

# One way to build for all but the race detector, which needs a C compiler, so that
# nothing is built twice.
export CGO_ENABLED := 0

BIN    := bin
CACHE  := $(CURDIR)/.cache
LINTER := $(CACHE)/bin/golangci-lint-$(GOLANGCI_LINT_VERSION)

# Variables for the command line.
FUZZTIME     ?= 20s
CRASH        ?= 50
CHAOS        ?= 10m
RUN          ?= .
TEST_TIMEOUT ?= 30m
TESTFLAGS    ?=
# What continuous integration runs of whole processes under the race detector; all of it
# takes two cores longer than half an hour. It is those where most goes on at a time.
RACES        ?= ^Test(Steering|TwoGateways|WorkersJoin|MovesUnderTraffic|CrashOfTheAPIAndTheWorker|CrashOfTheGatewayUnderWrites|ALimitHolds|VerifyUnderLiveWrites)
BENCHFLAGS   ?=

# The modules nested in this one; the Go tool does not look into them.
NESTED    := $(patsubst ./%/go.mod,%,$(shell find . -mindepth 2 -name go.mod -not -path './.*'))
GENERATED := events/asyncapi.yaml events/schemas events/examples

.DEFAULT_GOAL := help
.PHONY: help build demo test test-race test-ci test-r3 chaos crash fuzz bench lint generate verify clean

help: ## show this help
	@awk 'BEGIN { FS = ":.*## " } /^[a-z0-9-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo 'RUN=pattern chooses tests, TESTFLAGS="-v -count=1" says how to run them;'
	@echo 'FUZZTIME=5m, CRASH=200 and BENCHFLAGS="-large 0" change fuzz, crash and bench.'

build: ## build the programs into bin/
	go build -trimpath -o $(BIN)/ ./cmd/...

demo: ## a rebalance between real InfluxDB servers, with a worker killed half-way (KEEP=1 leaves it running)
	go run -trimpath ./integration/demo

test: ## run all tests
	go test -timeout $(TEST_TIMEOUT) -run '$(RUN)' $(TESTFLAGS) ./...
	$(call nested,go test $(TESTFLAGS) ./...)

test-race: ## run all tests under the race detector (needs a C compiler)
	CGO_ENABLED=1 go test -race -timeout $(TEST_TIMEOUT) -run '$(RUN)' $(TESTFLAGS) ./...
	$(call nested,go test $(TESTFLAGS) ./...)

test-ci: ## run all tests once, all but the whole processes' under the race detector, and of those a part
	CGO_ENABLED=1 go test -race -timeout $(TEST_TIMEOUT) $(TESTFLAGS) ./cmd/... ./deploy/... ./events/... ./pkg/...
	go test -timeout $(TEST_TIMEOUT) $(TESTFLAGS) ./integration/...
	CGO_ENABLED=1 go test -race -timeout $(TEST_TIMEOUT) -run '$(RACES)' $(TESTFLAGS) ./integration
	$(call nested,go test $(TESTFLAGS) ./...)

test-r3: ## run the engine's and the whole's tests on three NATS servers instead of one
	NATS_NODES=3 go test -timeout $(TEST_TIMEOUT) -run '$(RUN)' $(TESTFLAGS) ./pkg/... ./integration

chaos: ## a long random run with kills, stops and partitions of everything: CHAOS=10m, CHAOS_SEED=n repeats one
	CHAOS=$(CHAOS) go test -count=1 -timeout 24h -run '^TestChaos$$' -v ./integration/chaos

crash: ## run the crash suite at length: CRASH rounds of each kind of kill -9
	CRASH=$(CRASH) go test -count=1 -timeout 6h -run '^TestCrash' -v ./integration

fuzz: ## run each fuzz target for FUZZTIME
	@grep -rlE '^func Fuzz' --include='*_test.go' cmd events integration pkg | sort | while read -r file; do \
		for target in $$(sed -nE 's/^func (Fuzz[A-Za-z0-9_]*)\(.*/\1/p' "$$file"); do \
			echo "$$target in ./$${file%/*}"; \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "./$${file%/*}" </dev/null; \
		done; \
	done

bench: ## measure: the packages' benchmarks, then whole moves against a bare loop in the same run
	go test -run '^$$' -bench . -benchmem ./pkg/... ./events/... | grep -v -e 'no test files' -e '^PASS'
	go run ./integration/bench $(BENCHFLAGS)

lint: $(LINTER) ## run golangci-lint, built once in its pinned version
	GOLANGCI_LINT_CACHE=$(CACHE)/golangci-lint $(LINTER) run ./...

$(LINTER):
	@echo 'building golangci-lint $(GOLANGCI_LINT_VERSION)'
	@mkdir -p $(CACHE)/bin/fresh
	GOBIN=$(CACHE)/bin/fresh go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
	@mv $(CACHE)/bin/fresh/golangci-lint $@
	@rmdir $(CACHE)/bin/fresh

generate: ## write the generated files
	go generate ./...

verify: generate ## check that what is committed is generated, formatted and tidy
	@stale=$$(git status --porcelain -- $(GENERATED)); if [ -n "$$stale" ]; then \
		echo 'generated files are not what is committed; commit what make generate has written:'; \
		echo "$$stale"; git --no-pager diff --stat -- $(GENERATED); exit 1; fi
	@unformatted=$$(gofmt -l cmd events integration pkg deploy); if [ -n "$$unformatted" ]; then \
		echo 'not formatted by gofmt:'; echo "$$unformatted"; exit 1; fi
	go mod tidy -diff
	$(call nested,go mod tidy -diff)
	@echo 'verified: generated files, formatting, modules'

clean: ## remove what make has built
	rm -rf $(BIN) .cache

# nested runs a command in each nested module.
define nested
@for dir in $(NESTED); do echo "$$dir: $(1)"; (cd $$dir && $(1)); done
endef
