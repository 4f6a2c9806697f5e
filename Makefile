# cpumap: `make help` lists what there is. Nothing has to be installed or made before.
.DEFAULT_GOAL := help
python := .venv/bin/python
export CPUMAP_QEMUS ?= $(HOME)/.cache/cpumap-qemus

help: ## this list
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

run: ## the explicit CPU of the shipped example domains, or of DOMAIN=file.xml
	@tools/run $(DOMAIN)

test: ## everything: installs QEMUs, libvirtd and Python packages (Debian, Ubuntu), lints, runs every test
	tools/setup-test
	$(MAKE) --no-print-directory lint
	tools/test

check: venv lint ## lint, types and the tests that need no QEMU, libvirtd or KVM
	$(python) -m pytest -q -m 'not live' $(ARGS)

live: ## the tests on real QEMUs, libvirtd and KVM only
	tools/setup-test
	tools/test -m live $(ARGS)

lint: venv
	$(python) -m ruff check .
	$(python) -m mypy

venv:
	@tools/venv test

man: venv ## the manual pages and the shells' completion, into build/share
	$(python) tools/manual.py build/share

matrix: venv ## measures where a guest's CPU stays the same, and writes the tables into docs/proof.md
	$(python) tools/matrix.py --only within,aliases,machines,across,topologies,causes,settings --write docs/proof.md $(ARGS)
	tools/nested-kvm $(python) tools/matrix.py --only kvm --every 12 | $(python) tools/matrix.py --only kvm --read --write docs/proof.md

regenerate: venv ## rewrites the golden files in tests/pin/cases and shows what changed
	$(python) -m pytest -q tests/pin/test_cases.py --regenerate

record: venv ## records the QEMUs of tools/fetch-qemus anew into data/x86_64/expansions, tcg and kvm
	tools/fetch-qemus
	for release in 5.2 7.2 8.2-ubuntu 10.0.2 10.0 11.1; do for accel in tcg kvm; do \
	  $(python) -m cpumap record --qemu "$$CPUMAP_QEMUS/bin/qemu-$$release" --accel $$accel -o data/x86_64/expansions || exit; done; done

fuzz: venv ## mutates every kind of input: ARGS="--seed 7 --number 20000"
	$(python) tools/fuzz.py $(ARGS)

bench: venv ## start-up, conversion and the like, as ratios, measured on this machine
	$(python) tools/bench.py $(ARGS)

packages: venv ## Debian's package for 12 and 13 and the RPM, built, judged and tried in clean roots (root, minutes)
	tools/build-rpm
	tools/build-deb bookworm
	tools/build-deb trixie

docs: venv ## the pages as a site in build/docs, to be read without a network
	@tools/venv test docs
	$(python) -m sphinx -q -W -b html docs build/docs

.PHONY: docs packages help run test check live lint venv man matrix regenerate record fuzz bench
