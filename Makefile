# Needs python3 (3.10 to 3.13) with venv, and a network to PyPI for the first run.
# Another interpreter: make venv PYTHON=python3.12
# Without CUDA packages: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make venv

PYTHON ?= python3
BACKBONE ?= animatediff
TEST_WORKERS ?= 2
PIP = .venv/bin/python -m pip
INSTALLED = .venv/.installed

.PHONY: venv demo test check format clean

venv: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "error: $(PYTHON) is not Python 3.10 to 3.13; name one: make venv PYTHON=python3.12" >&2; exit 2; }
	@echo "Setting up .venv: torch first (the largest part), then the rest"
	@$(PIP) --version >/dev/null 2>&1 || $(PYTHON) -m venv .venv
	$(PIP) install --disable-pip-version-check -c constraints.txt torch setuptools
	$(PIP) install --disable-pip-version-check -c constraints.txt --no-build-isolation -e '.[dev]'
	@touch $@

demo: $(INSTALLED)
	.venv/bin/python demo/run_demo.py --config configs/$(BACKBONE)/demo.yaml

test: $(INSTALLED)
	.venv/bin/python -m pytest -n $(TEST_WORKERS)

check: $(INSTALLED)
	.venv/bin/pre-commit run --all-files

format: $(INSTALLED)
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

clean:
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -path ./.venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
