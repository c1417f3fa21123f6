# Copyright 2026 The plyfs Authors.
# SPDX-License-Identifier: BSD-3-Clause

GO       ?= go
PREFIX   ?= /usr/local
DESTDIR  ?=
GOLANGCI ?= $(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
TESTTIME ?= 25m

.PHONY: all build test test-long bench lint fmt-check generate install clean

all: build

# The binary, static.
build:
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/plyfs ./cmd/plyfs

# Everything that CI runs, as root: the tests mount. The packages are tested
# one after the other, for the black-box tests want the machine for themselves.
test:
	$(GO) vet ./...
	$(GO) test -race -p 1 -timeout $(TESTTIME) ./...

# The same with hours of random work instead of minutes.
test-long:
	PLYFS_SEED=random PLYFS_ORACLE_RUNS=5000 PLYFS_KILLS=500 PLYFS_LOAD_TIME=20m \
		$(GO) test -race -p 1 -timeout 12h -v ./integration/

# The table of the README, as root. ARGS="-quick" or ARGS="-rows untar".
bench: build
	$(GO) run ./integration/bench -plyfs $(CURDIR)/bin/plyfs $(ARGS)

lint: fmt-check
	$(GOLANGCI) run ./...

fmt-check:
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -d $$(git ls-files '*.go'); exit 1; }

generate:
	$(GO) generate ./...

# mount.fuse.plyfs makes `mount -t fuse.plyfs` and fstab work, mount.plyfs
# `mount -t plyfs`.
install: build
	install -D -m 0755 bin/plyfs $(DESTDIR)$(PREFIX)/bin/plyfs
	install -d $(DESTDIR)/sbin
	ln -sf $(PREFIX)/bin/plyfs $(DESTDIR)/sbin/mount.plyfs
	ln -sf $(PREFIX)/bin/plyfs $(DESTDIR)/sbin/mount.fuse.plyfs

clean:
	rm -rf bin
