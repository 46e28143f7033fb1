# Everything a newcomer or CI runs. `make` alone lists it.
.DEFAULT_GOAL := help
BIN := .venv/bin
ARGS ?=
UV = $(or $(wildcard .venv/.uv/bin/uv),uv)
export PYTHON

.PHONY: help demo up test coverage lint format types docs bench soak audit image dist sbom clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.venv/.ready: uv.lock pyproject.toml scripts/bootstrap
	@scripts/bootstrap

demo: .venv/.ready ## watch the hub deliver, retry, give up, recover: about a minute, nothing to install
	$(BIN)/hub demo $(ARGS)

up: .venv/.ready ## run the whole hub in one process, its data under .hub
	$(BIN)/hub up $(ARGS)

test: .venv/.ready ## all tests on real, private servers (ARGS="-k breaker" for some)
	@$(BIN)/python -m tests.support.provision
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

coverage: .venv/.ready ## branch coverage by unit and integration tests, subprocesses included, with a floor
	@$(BIN)/python -m tests.support.provision
	$(BIN)/python -m pytest -p tests.support.branch_coverage -n 3 --dist loadfile tests/unit tests/integration $(ARGS)

lint: .venv/.ready ## style, formatting, and which module may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

format: .venv/.ready ## put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: .venv/.ready ## mypy, strict
	$(BIN)/mypy

docs: .venv/.ready ## the documentation as HTML in docs/_build/html; a broken link or stale reference page is an error
	$(BIN)/python scripts/reference.py --check
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html

bench: .venv/.ready ## events per second, beside Dramatiq, Celery and raw loops (ROWS=hub,celery ARGS=--quick)
	$(BIN)/python -m tests.bench $(if $(ROWS),--rows $(ROWS)) $(ARGS)

soak: .venv/.ready ## half an hour of load and faults, and is every promise kept? (ARGS="--minutes 5 --seed 7")
	@$(BIN)/python -m tests.support.provision
	$(BIN)/python -m tests.faults.soak $(ARGS)

audit: .venv/.ready ## known vulnerabilities of what uv.lock names, by OSV (needs the internet; fails without)
	$(UV) --preview-features audit-command audit --frozen --no-dev $(ARGS)

image: .venv/.ready ## build the image of deploy/Dockerfile and run its processes (root, Debian, some minutes)
	HUB_TEST_IMAGE=1 $(BIN)/python -m pytest tests/deploy/test_image.py --timeout 1800 $(ARGS)

dist: .venv/.ready ## a release in dist/: sdist, wheel, SBOM, SHA256SUMS; the same commit gives the same bytes
	$(BIN)/python scripts/dist.py

sbom: .venv/.ready ## sbom.cdx.json: what a hub is made of, as CycloneDX
	$(UV) export --quiet --frozen --no-dev --all-extras --format cyclonedx1.5 --output-file sbom.cdx.json

clean: ## remove .venv and caches; the data under .hub stays
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .grimp_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
