# `just check` is what CI runs: .ci/run calls the same recipe on a clean clone.
set shell := ["bash", "-euo", "pipefail", "-c"]

# list the recipes
default:
    @just --list

# everything CI checks: lock, style, import contracts, tests and beside them types, whose errors come among the dots
check: lint
    nice -n 5 uv run pyright & types=$!; trap 'kill $types 2>/dev/null || true' EXIT; \
    uv run pytest && tests=0 || tests=$?; \
    wait $types || { echo "pyright has found errors, see above"; exit 1; }; exit $tests

# lock file, formatting, style, import contracts
lint:
    uv lock --check
    uv run ruff format --check .
    uv run ruff check .
    uv run lint-imports

# static types
types:
    uv run pyright

# the test command of the README
test:
    uv run pytest

# all that takes minutes: full-size models with random weights, serve.yaml on a Ray of its own; 10 GB of memory
slow:
    uv run pytest -n 0 -m slow -k "not soak"

# servers under random requests, cancels and killed replicas, half an hour each or what ADDIFFUSION_SOAK_S says, in seconds
soak:
    uv run pytest -n 0 -s -m slow -k soak tests/serving tests/cluster

# the documented commands on SD 1.5 and its scorers at full size, random weights: half an hour on two idle cores, 20 GB of memory
full-size:
    uv run pytest -n 0 -s -m fullsize tests/full_size

# three simulated hosts, jobs, nodes that join, Prometheus, the dashboard in a browser: half an hour, as root; see docs/cluster.md
test-cluster:
    uv run pytest -n 0 -m cluster -s tests/cluster

# README, docs/ and the Python API as a site in build/site; a link that leads nowhere fails
docs:
    NO_MKDOCS_2_WARNING=1 uv run mkdocs build --strict

# what is released: the wheel and the source archive in dist/, the wheel tried in an empty environment
release:
    rm -rf dist
    uv build --out-dir dist
    uv run pytest -n 0 tests/test_wheel.py
    @ls -l dist

# rewrite formatting and what ruff can mend
fix:
    uv run ruff format .
    uv run ruff check --fix .
