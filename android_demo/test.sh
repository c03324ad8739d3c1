#!/usr/bin/env bash
# The Android app's checks; a test whose tools are not installed is skipped and names the packages.
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${PYTHON:-.venv/bin/python}" -m pytest -rs android_demo/tests "$@"
