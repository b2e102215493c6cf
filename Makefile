# `make demo` and `make test` each work alone on a bare Debian/Ubuntu with Python 3.11+.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PRODUCT := $(VENV)/.product
TESTS := $(VENV)/.tests

.PHONY: demo test check setup bench chaos soak clients schema faults clean

demo: $(PRODUCT)
	@$(BIN)/tandem demo

test: setup
	$(BIN)/python -m pytest -n 2

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/unit/test_architecture.py

setup: $(PRODUCT) $(TESTS)

$(PRODUCT): requirements.lock pyproject.toml setup.py deploy/install.py kernels/build.py \
		$(wildcard protos/tandem/v1/*.proto) $(wildcard kernels/native/*.cpp kernels/native/*/*)
	@$(PYTHON) -c 'import sys; sys.exit("Tandem needs Python 3.11 or newer; say which: make PYTHON=..." \
		if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -m deploy.install $(VENV)
	@touch $@

$(TESTS): $(PRODUCT) requirements-test.lock
	@$(PYTHON) -m deploy.install $(VENV) --tests
	@touch $@

bench: $(PRODUCT)
	$(BIN)/tandem bench

chaos: setup
	$(BIN)/python -m tests.chaos

soak: setup
	$(BIN)/python -m tests.soak $(SOAK)

clients: setup
	$(BIN)/python -m tests.clients

schema: setup
	$(BIN)/python -m tests.schema

faults: setup
	$(BIN)/python -m tests.faults $(FAULTS)

clean:
	rm -rf $(VENV) build dist kernels/*.so *.egg-info .cache .pytest_cache .mypy_cache .ruff_cache
	find . -name '*_pb2*.py*' -path './protos/*' -delete
