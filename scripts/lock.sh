#!/usr/bin/env bash
# Writes requirements.lock (what a user runs), requirements-dev.lock (what the checks run on top),
# requirements-space.lock (what the page needs for shipped models; space/Dockerfile installs it),
# requirements-validate.lock (what `validate` alone needs; the GitHub Action installs it) and requirements-hub.lock (the oldest huggingface_hub, which speaks over another HTTP library) from pyproject.toml: every Python from 3.10 on, every platform, with hashes, and no index in them.
# Needs uv. Versions already locked stay; `scripts/lock.sh --upgrade` takes the newest.
set -euo pipefail
cd "$(dirname "$0")/.."

lock() {
    uv pip compile --quiet --universal --python-version 3.10 --generate-hashes \
        --no-header --no-emit-index-url --no-emit-find-links "$@"
}
lock "$@" pyproject.toml --output-file requirements.lock
lock "$@" pyproject.toml --group dev --constraints requirements.lock --output-file requirements-dev.lock
lock "$@" --group validate --constraints requirements.lock --output-file requirements-validate.lock
lock "$@" --group space --constraints requirements-dev.lock --output-file requirements-space.lock
sed -n 's/.*"huggingface_hub>=\([0-9.]*\)".*/huggingface_hub==\1.*/p' pyproject.toml |
    lock "$@" - --output-file requirements-hub.lock
