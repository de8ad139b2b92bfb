# The commands of the project; `make` alone lists them.

PYTHON = python3
BIN = .venv/bin
CONF = ppolicy.conf

# Debian packages, beside Python, that the live tests and the benchmarks need.
TEST_PACKAGES = git ldnsutils mariadb-server p0f postfix slapd unbound
# python-ldap is compiled.
LDAP_PACKAGES = gcc libc6-dev python3-dev libldap-dev libsasl2-dev
BENCH_PACKAGES = gcc libc6-dev postgrey policyd-rate-limit postfix-policyd-spf-python mariadb-server unbound

# Installed again when one of these has changed.
INPUTS = setup.cfg setup.py pyproject.toml ppolicy/__init__.py
PIP = $(BIN)/python -m pip --disable-pip-version-check
# Without pip it is half made: Debian's python3-venv was missing.
VENV = $(PIP) --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
PYTEST = $(BIN)/python -m pytest
# The tests of several files side by side.
ASIDE = --numprocesses=auto --dist=loadfile

.DEFAULT_GOAL = help
.PHONY: help run check test bench bench-large fuzz faults reference dist clean style

help: ## list these commands
	@sed -n 's/^\([a-z-]*\):.* ## \(.*\)/make \1\t\2/p' Makefile | expand -t 18

run: export PPOLICY_CONF = $(CONF)
run: .venv/installed ## install into .venv, print Postfix's lines, start the server with ppolicy.conf (or CONF=FILE)
	@$(BIN)/ppolicy check -c $(CONF) --postfix
	@$(BIN)/twistd -noy ppolicy.tac --pidfile=

check: style ## format, lint, types, unit tests
	$(PYTEST) $(ASIDE) --ignore=tests/live

test: style ## make check and the live tests; as root it installs the Debian packages they need
	@.ci/packages $(TEST_PACKAGES)
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
	PPOLICY_KILLS=100 PPOLICY_LONG=1 $(PYTEST) tests/live/test_crash.py tests/live/test_database_faults.py tests/live/test_dnsbl.py tests/test_limiting.py

reference: .venv/installed ## write MODULES and the other generated files again
	$(BIN)/python -m ppolicy.reference

dist: .venv/installed-for-tests ## sdist and wheel in dist/
	rm -rf dist
	$(BIN)/python -m build

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
	$(PIP) install --quiet --editable '.[test]'
	@$(PIP) install --quiet --editable '.[ldap]' || echo "python-ldap cannot be compiled. What needs it is skipped." >&2
	@touch .venv/installed $@
