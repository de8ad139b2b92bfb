# The commands of the project; `make` alone lists them.

PYTHON = python3
BIN = .venv/bin
CONF = ppolicy.conf

# Debian packages, beside Python, that the live tests and the benchmarks need.
TEST_PACKAGES = git ldnsutils logrotate mariadb-server p0f postfix python3-seccomp rsyslog slapd systemd unbound
# python-ldap is compiled.
LDAP_PACKAGES = gcc libc6-dev python3-dev libldap-dev libsasl2-dev
# The Debian package is built with Debian's Python.
DEB_PACKAGES = $(LDAP_PACKAGES) dpkg-dev python3-venv
BENCH_PACKAGES = gcc libc6-dev postgrey policyd-rate-limit postfix-policyd-spf-python mariadb-server unbound

# Installed again when one of these has changed.
INPUTS = setup.cfg setup.py pyproject.toml ppolicy/__init__.py
# The time that archives bear: the same commit gives the same bytes.
EPOCH = $(or $(shell git log -1 --format=%ct 2>/dev/null),$(shell date -r setup.cfg +%s))
PIP = $(BIN)/python -m pip --disable-pip-version-check
# Into an environment that has no pip of its own.
PIP_FOR = build/tools/bin/python -m pip --disable-pip-version-check --python
PIN = build/uv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--upgrade --custom-compile-command 'make lock'
# Without pip it is half made: Debian's python3-venv was missing.
VENV = $(PIP) --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
PYTEST = $(BIN)/python -m pytest
# The tests of several files side by side; one more than there are processors, as some tests only wait.
ASIDE = --numprocesses=$(shell expr $$(nproc) + 1) --dist=loadfile

.DEFAULT_GOAL = help
.PHONY: help run check test bench bench-large fuzz faults soak docs reference dist deb packages lock sbom clean style

help: ## list these commands
	@sed -n 's/^\([a-z-]*\):.* ## \(.*\)/make \1\t\2/p' Makefile | expand -t 18

run: export PPOLICY_CONF = $(CONF)
run: .venv/installed ## install into .venv, print Postfix's lines, start the server with ppolicy.conf (or CONF=FILE)
	@$(BIN)/ppolicy check -c $(CONF) --postfix
	@$(BIN)/twistd -noy ppolicy.tac --pidfile=

check: style ## format, lint, types, unit tests
	$(PYTEST) $(ASIDE) --ignore=tests/live

test: style ## make check and the live tests; as root it installs the Debian packages they need
	@.ci/packages $(TEST_PACKAGES) $(DEB_PACKAGES)
	$(PYTEST) $(ASIDE)

style: .venv/installed-for-tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: .venv/installed-for-tests ## measure the speed; as root it installs a compiler and the peers
	@.ci/packages $(BENCH_PACKAGES)
	$(BIN)/python -m bench.run

bench-large: .venv/installed-for-tests ## the line "growth" of make bench with ten million rows
	@.ci/packages $(BENCH_PACKAGES)
	$(BIN)/python -m bench.run --only growth --rows 10000000

fuzz: .venv/installed-for-tests ## ten million hostile requests to a running server, and as many hostile DNS messages
	PPOLICY_FUZZ=10000000 PPOLICY_FUZZ_DNS=10000000 $(PYTEST) tests/live/test_fuzz.py tests/test_dnsmessage.py

faults: .venv/installed-for-tests ## kill the server a hundred times; database faults that last longer
	@.ci/packages $(TEST_PACKAGES)
	PPOLICY_KILLS=100 PPOLICY_LONG=1 PPOLICY_RELOADS=200 $(PYTEST) tests/live/test_reload_load.py tests/live/test_crash.py tests/live/test_database_faults.py tests/live/test_dnsbl.py tests/test_limiting.py

soak: .venv/installed-for-tests ## half an hour of mixed traffic: memory and open files stay as they are
	PPOLICY_SOAK=1800 $(PYTEST) -s tests/live/test_soak.py

docs: .venv/installed-for-tests ## the documentation as a site, in build/docs
	$(BIN)/sphinx-build -b html -n -W --keep-going -d build/doctrees docs build/docs

reference: .venv/installed ## write MODULES and the other generated files again
	$(BIN)/python -m ppolicy.reference

dist deb sbom: export SOURCE_DATE_EPOCH ?= $(EPOCH)

dist: build/tools/installed ## sdist and wheel in dist/; the wheel is the same, byte for byte, from the same commit
	rm -f dist/*.whl dist/*.tar.gz
	umask 022; build/tools/bin/python -m build --no-isolation

deb: dist ## Debian package in dist/, with an environment of its own; for the Debian it is made on
	@.ci/packages $(DEB_PACKAGES)
	contrib/debian/build

packages: .venv/installed-for-tests ## the tests of the packages that take minutes: a fresh Debian, the SBOM
	@.ci/packages $(DEB_PACKAGES) debootstrap
	PPOLICY_LONG=1 $(PYTEST) tests/live/test_packages.py

lock: build/uv/installed ## requirements.lock anew: the newest versions that setup.cfg allows, with their hashes
	$(PIN) --extra ldap --extra metrics --extra tls setup.cfg --output-file requirements.lock
	printf 'build\nsetuptools\n' | $(PIN) --constraint requirements.lock - --output-file requirements-build.lock

sbom: dist build/cyclonedx/installed ## dist/ppolicy.cdx.json: what requirements.lock installs, with licences, in CycloneDX
	@.ci/packages $(LDAP_PACKAGES)
	$(PYTHON) -m venv --clear --without-pip build/locked
	$(PIP_FOR) build/locked/bin/python install --quiet --require-hashes -r requirements.lock
	$(PIP_FOR) build/locked/bin/python install --quiet --no-deps --no-index --find-links dist --pre ppolicy
	build/cyclonedx/bin/cyclonedx-py environment --output-reproducible --output-file dist/ppolicy.cdx.json \
		build/locked/bin/python

clean: ## remove what these commands made, .venv too; what the server keeps in state/ stays
	rm -rf .venv bench/build build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

.venv/installed: $(INPUTS)
	@$(VENV)
	$(PIP) install --quiet --editable .
	@touch $@

.venv/installed-for-tests: $(INPUTS)
	@$(VENV)
	@.ci/packages $(LDAP_PACKAGES)
	$(PIP) install --quiet --editable '.[test,docs]'
	@$(PIP) install --quiet --editable '.[ldap]' || echo "python-ldap cannot be compiled. What needs it is skipped." >&2
	@touch .venv/installed $@

build/tools/installed: requirements-build.lock
build/tools/installed: NEEDS = --require-hashes -r requirements-build.lock
build/uv/installed: NEEDS = 'uv>=0.9'
build/cyclonedx/installed: NEEDS = 'cyclonedx-bom>=7,<8'
build/tools/installed build/uv/installed build/cyclonedx/installed:
	@$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python -m pip --disable-pip-version-check install --quiet $(NEEDS)
	@touch $@
