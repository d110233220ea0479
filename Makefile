# The front door: `make demo` and `make test` are all a person needs.
# What is built and downloaded is kept outside the checkout and survives a fresh clone.
CACHE := $(or $(CLUSTERCTL_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/clusterctl)
export CLUSTERCTL_CACHE := $(CACHE)
export CARGO_TARGET_DIR := $(CACHE)/target
TRIPLE := $(shell rustc -vV | sed -n 's/^host: //p')
KUBERNETES := 1.36.3
BUNDLE := target/kubernetes-$(KUBERNETES).bundle
# What `make test-all` runs as well.
NEWEST := 1.37.2
BINARY := target/release/clusterctl

.PHONY: demo demo-down test test-all test-unit test-hosts test-faults lint format bench bench-ssh bench-converge hosts hosts-down binary bundle bundle-newest bed clean deny

## demo: test bed, bundle, `up` on three hosts; leaves the cluster up
demo: binary bundle
	@tests/demo.sh $(BINARY) $(BUNDLE)

## demo-down: gives the demo's hosts back and removes them
demo-down:
	@tests/demo.sh --down $(BINARY)

## test: everything that judges a change
test: lint test-unit test-hosts

## test-all: and what takes longer: more comparisons with upstream's kubeadm, and another minor of Kubernetes
test-all: lint test-unit binary bundle bundle-newest
	CLUSTERCTL=$(abspath $(BINARY)) CLUSTERCTL_BUNDLE=$(abspath $(BUNDLE)) \
	  cargo test --locked --test integration -- --include-ignored --test-threads=$(or $(TEST_THREADS),2)

test-unit: packages
	cargo test --locked --lib --bins

test-hosts: binary bundle
	CLUSTERCTL=$(abspath $(BINARY)) CLUSTERCTL_BUNDLE=$(abspath $(BUNDLE)) \
	  cargo test --locked --test integration -- --test-threads=$(or $(TEST_THREADS),2)

## test-faults: the whole list of faults of a seed, on from where it was stopped; the table goes to tests/faults.md.
## SEED=7, COUNT=2 series at most, SECONDS=600 to begin another at most, ONLY=12,200 (numbers) or ONLY=disk-full (words of a case)
test-faults: binary bundle
	CLUSTERCTL=$(abspath $(BINARY)) CLUSTERCTL_BUNDLE=$(abspath $(BUNDLE)) FAULTS_SEED=$(SEED) \
	  FAULTS_COUNT=$(or $(COUNT),all) FAULTS_SECONDS=$(SECONDS) FAULTS_ONLY=$(ONLY) \
	  cargo test --locked --test integration -- --nocapture faults_are_survived

lint:
	cargo fmt --check
	cargo clippy --locked --all-targets -- --deny warnings

format:
	cargo fmt

## deny: licences, bans and advisories of all dependencies (installs cargo-deny once)
deny:
	@command -v cargo-deny >/dev/null || cargo install --locked cargo-deny
	cargo deny check

## hosts: N fresh hosts to play with (N=3), and their inventory
hosts: bed
	@vagrant/bed hosts destroy play >/dev/null 2>&1 || true
	@vagrant/bed hosts create --name play --count $(or $(N),3)
	@mkdir -p target/play && vagrant/bed inventory play > target/play/inventory.yaml
	@echo "inventory: target/play/inventory.yaml"

hosts-down:
	@vagrant/bed hosts destroy play

bed:
	@vagrant/bed engine
	@vagrant/bed image >/dev/null

## binary: the one static program
binary:
	RUSTFLAGS="-C target-feature=+crt-static -C force-unwind-tables=no" cargo build --locked --release --bin clusterctl --target $(TRIPLE)
	@mkdir -p target/release
	@install -m 0755 $(CARGO_TARGET_DIR)/$(TRIPLE)/release/clusterctl $(BINARY)

## bundle: Kubernetes for the test bed in one file
bundle: binary bed
	@tests/bundle.sh $(BINARY) $(KUBERNETES) $(BUNDLE)

bundle-newest: binary bed
	@tests/bundle.sh $(BINARY) $(NEWEST) target/kubernetes-$(NEWEST).bundle

## bench: `up` beside the scripted upstream way, on fresh hosts
bench: binary bundle
	@benches/up.sh $(BINARY) $(BUNDLE)
	@benches/init.sh $(BINARY)
	@benches/certificates.sh $(BINARY)

## bench-ssh: commands and bytes over SSH beside the usual tools
bench-ssh: binary bed
	@for part in exec bytes; do if [ -x benches/ssh-$$part.sh ]; then benches/ssh-$$part.sh $(BINARY) || exit 1; fi; done

## bench-converge: what a second `up`, one more worker and latency cost
bench-converge: binary bundle
	@benches/converge.sh $(BINARY) $(BUNDLE)

## packages: what the unit tests call besides cargo
packages:
	@tests/packages.sh

clean:
	rm -rf target
	vagrant/bed hosts destroy --all
.PHONY: packages
