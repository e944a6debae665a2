# What a developer of stoker runs. `make test` is what CI runs.
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
RACE_TIMEOUT = 15m

.PHONY: accessibility demo test lint bench bench-large model fuzz kills restarts upgrade archive cluster verdicts rows crawl plot build tools

demo: ## the whole job, on a site of its own
	go run ./cmd/stoker demo

test: tools lint ## everything, with the race detector
	go test -race -timeout $(RACE_TIMEOUT) ./...

lint: ## formatting, vet, staticcheck
	@test -z "$$(gofmt -l cmd tasks worker scheduler deploy)" || { gofmt -l cmd tasks worker scheduler deploy; echo "run gofmt -w on these"; exit 1; }
	go vet ./...
	go run $(STATICCHECK) ./...

bench: tools ## every timed claim, each against a peer in the same run
	go test -run '^$$' -bench . -benchtime 3x -timeout 60m ./...

bench-large: tools ## whole namespaces of 5 million keys: the worker's memory, the time a key; some minutes, 6 GB
	STOKER_BENCH_LARGE=1 go test -run '^$$' -bench Large -benchtime 1x -timeout 120m -v ./cmd/stoker

model: ## the protocol's model at length: 100,000 histories, and every rule broken on purpose
	STOKER_TEST_HISTORIES=100000 go test -timeout 60m -run 'NoHistory|TheModel' -v ./worker/invalidation

FUZZ_TIME = 30s
fuzz: ## every decoder, half a minute each (FUZZ_TIME=10m for longer)
	@for target in $$(grep -rlE '^func Fuzz' --include '*_test.go' . | xargs -n1 dirname | sort -u); do \
	  for name in $$(grep -hoE '^func Fuzz[A-Za-z]*' $$target/*_test.go | cut -c6-); do \
	    go test -run '^$$' -fuzz "^$$name$$" -fuzztime $(FUZZ_TIME) $$target || exit 1; done; done

KILLS = 50
kills: ## killed in mid-work: KILLS times in each of carry, snapshot, expire and restore, on each kind of cache Redis; half an hour
	STOKER_TEST_KILLS=$(KILLS) go test -timeout 120m -parallel 3 -run TestKilledInEveryWork -v ./cmd/stoker

RESTARTS = 10m
restarts: ## two schedulers and three workers, one of each killed every 20 s, all restarted in turn and the queue Redis killed three times, for RESTARTS
	STOKER_TEST_RESTARTS=$(RESTARTS) go test -timeout 120m -run TestRestarts -v ./cmd/stoker

UPGRADE_FROM = 59e153e
upgrade: ## a site upgraded and taken back in mid-work, from the stoker of an earlier revision, and to one a version ahead
	STOKER_TEST_UPGRADE_FROM=$(UPGRADE_FROM) go test -timeout 20m -run TestUpgrade -v ./cmd/stoker

# STOKER_TEST_REDIS_SERVER=/path/to/redis-server (or valkey-server) runs any test on another server; then this
# also restores archives of one server on the other.
archive: ## archives at length: 10,000 flipped bits, a set of a million members, a string of 64 MiB
	STOKER_TEST_FLIPS=10000 STOKER_TEST_LARGE=1 go test -run 'Flipped|LargeAndOdd|RealClients|Fields|AcrossVersions|GoesOn' -v ./worker/namespace ./worker/snapshot ./worker/retire ./worker/restore

cluster: ## every work on a Redis Cluster through every kind of failover
	STOKER_TEST_LONG_FAILOVERS=1 go test -timeout 30m -run 'MidWork|OnACluster' -v ./worker/namespace ./worker/invalidation ./cmd/stoker

verdicts: ## the comparisons at length: 20 pairs of real releases of each kind, 500 made-up ones
	STOKER_TEST_RUNS=20 go test -timeout 30m -run TestVerdicts -v ./cmd/stoker/demo
	STOKER_TEST_RUNS=500 go test -timeout 30m -run 'ComparePower|NoFalseAlarm|WatchAlarms' -v ./worker/health

rows: tools ## a million rows of PostgreSQL into a namespace: flat memory, and the speed against psql | redis-cli
	STOKER_TEST_ROWS=1000000 go test -timeout 60m -run FlatMemory -bench BenchmarkRows -benchtime 1x -v ./worker/warm

crawl: ## a million addresses in flat memory, and the speed against wrk and hey over nginx
	STOKER_TEST_URLS=1000000 go test -timeout 30m -run TestManyURLs -v ./worker/warm
	go test -run '^$$' -bench BenchmarkCrawl -benchtime 3x -timeout 10m ./worker/warm/crawl

plot: ## the picture of how warms treat an origin, worker/warm/origin/origin.svg
	go test -count 1 -run TestStory ./worker/warm/origin -update

AXE = axe-core@4.14.1
accessibility: ## the console's pages, judged by axe-core (which npm fetches), light and dark, wide and narrow
	@dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && (cd "$$dir" && npm pack --silent $(AXE) >/dev/null && tar xzf axe-core-*.tgz package/axe.min.js) && \
	STOKER_TEST_AXE="$$dir/package/axe.min.js" go test -run Accessible -v ./cmd/stoker/web

build: ## one static binary in ./bin
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o bin/stoker ./cmd/stoker

# The tests run against real servers and a real browser; install from the system's packages
# what is missing. gcc is for the race detector. Without Python's redis, PHP or Ruby, the tests of the
# port and of the examples in that language are skipped.
tools:
	@missing=""; \
	command -v redis-server >/dev/null || missing="$$missing redis-server"; \
	command -v chromium >/dev/null || missing="$$missing chromium"; \
	command -v gcc >/dev/null || missing="$$missing gcc libc6-dev"; \
	ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="$$missing postgresql"; \
	command -v mariadbd >/dev/null || missing="$$missing mariadb-server"; \
	if command -v apt-get >/dev/null; then \
	  /usr/bin/python3 -c 'import redis' 2>/dev/null || missing="$$missing python3-redis"; \
	  command -v php >/dev/null || missing="$$missing php-cli"; \
	  command -v ruby >/dev/null || missing="$$missing ruby"; \
	fi; \
	if [ -n "$$missing" ]; then \
	  if ! command -v apt-get >/dev/null; then echo "install these first:$$missing"; exit 1; fi; \
	  SUDO=$$(test "$$(id -u)" = 0 || echo sudo); \
	  $$SUDO apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$SUDO apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	fi
