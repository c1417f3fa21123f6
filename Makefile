# Copyright 2026 The plyfs Authors.
# SPDX-License-Identifier: BSD-3-Clause

GO       ?= go
PREFIX   ?= /usr/local
DESTDIR  ?=
GOLANGCI ?= $(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
TESTTIME ?= 60m

.PHONY: all build test test-nobpf test-long test-cut bench bench-bpf lint fmt-check generate generate-check examples install clean

all: build

# The binary, static.
build:
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/plyfs ./cmd/plyfs

# Everything that CI runs, as root: the tests mount. The packages are tested
# one after the other, for the black-box tests want the machine for themselves,
# and anew, for the test cache does not see that they build and run plyfs.
test:
	$(GO) vet ./...
	$(GO) test -race -p 1 -count=1 -timeout $(TESTTIME) ./...

# Without the bpf room: passthrough and all the rest need no BPF. The tree is
# copied without it, so nothing can reach for it.
test-nobpf:
	@dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && \
	git ls-files -z --cached --others --exclude-standard ':!bpf' | xargs -0 cp --parents -t "$$dir" && cd "$$dir" && \
	CGO_ENABLED=0 $(GO) build -tags nobpf -o plyfs ./cmd/plyfs && $(GO) vet -tags nobpf ./cmd/... ./stack/... ./layers/... ./creds/... && \
	$(GO) test -tags nobpf ./cmd/... ./stack/journal/... ./layers/... ./creds/... && \
	$(GO) test -tags nobpf -run 'Policy|Plan|Passthrough|Choose|SetPolicy' ./stack

# The same with hours of random work instead of minutes.
test-long:
	PLYFS_CUTPOINTS=all $(GO) test -race -timeout 4h -run TestCutPoints ./stack
	PLYFS_SEED=random PLYFS_ORACLE_RUNS=5000 PLYFS_KILLS=500 PLYFS_FULL=10 PLYFS_DAMAGES=20 PLYFS_PARTIAL_RUNS=2000 PLYFS_LOAD_TIME=20m \
		$(GO) test -race -p 1 -timeout 12h -v ./integration/

# Power cuts by the hundred on each file system: PLYFS_CUTS=1000,
# PLYFS_CUT_FS=ext4,ext4-1k,ext4-disk, PLYFS_CUT_OPTIONS="io=coherent", PLYFS_SEED.
test-cut:
	PLYFS_CUTS=$${PLYFS_CUTS:-300} $(GO) test -run 'PowerCut' -timeout 12h -v ./integration/

# The table of the README, as root. ARGS="-quick" or ARGS="-rows untar".
bench: build
	$(GO) run ./integration/bench -plyfs $(CURDIR)/bin/plyfs $(ARGS)

# What asking a program costs, and reading through its plans, as root.
bench-bpf: build
	$(GO) test -run '^$$' -bench . -benchtime 2s ./bpf
	$(GO) run ./integration/bench -plyfs $(CURDIR)/bin/plyfs -rows plan $(ARGS)

lint: fmt-check
	$(GOLANGCI) run ./...

fmt-check:
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -d $$(git ls-files '*.go'); exit 1; }

# The objects of bpf/progs, with clang and llvm-strip.
generate:
	$(GO) generate ./...

# Compiles the objects again and compares, by the compiler that made those that
# are committed; any other one makes other code.
generate-check:
	sh bpf/progs/check.sh

# The programs of bpf/examples, into bpf/examples/out.
examples:
	$(MAKE) -C bpf/examples

# mount.fuse.plyfs makes `mount -t fuse.plyfs` and fstab work, mount.plyfs
# `mount -t plyfs`.
install: build
	install -D -m 0755 bin/plyfs $(DESTDIR)$(PREFIX)/bin/plyfs
	install -D -m 0644 bpf/include/plyfs.h $(DESTDIR)$(PREFIX)/include/plyfs.h
	install -d $(DESTDIR)/sbin
	ln -sf $(PREFIX)/bin/plyfs $(DESTDIR)/sbin/mount.plyfs
	ln -sf $(PREFIX)/bin/plyfs $(DESTDIR)/sbin/mount.fuse.plyfs

clean:
	rm -rf bin bpf/examples/out
