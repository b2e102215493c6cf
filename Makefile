# `make demo` and `make test` each work alone on a bare Debian/Ubuntu with Python 3.11+.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test check setup bench clean

demo: setup
	$(BIN)/tandem demo

test: setup
	$(BIN)/python -m pytest

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/unit/test_architecture.py

setup: $(STAMP)

# torchvision is the oracle of the image tests only; its compiled operators are never loaded,
# so it is installed without its dependencies.
$(STAMP): requirements.lock pyproject.toml setup.py $(wildcard protos/tandem/v1/*.proto) \
		$(wildcard kernels/native/*) kernels/build.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --requirement requirements.lock
	$(BIN)/python -m pip install --no-deps torchvision==0.28.0
	$(BIN)/python -m pip install --no-deps --editable .
	touch $(STAMP)

bench: setup
	$(BIN)/tandem bench

clean:
	rm -rf $(VENV) build dist kernels/*.so *.egg-info .cache .pytest_cache .mypy_cache .ruff_cache
	find . -name '*_pb2*.py*' -path './protos/*' -delete
