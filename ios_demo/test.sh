#!/bin/bash
# Everything of the iOS app that a Linux machine can check; called by `make test-apps`.
#
# Needs the Python environment (.venv), and Swift (swift.sh, which needs the Debian package mmdebstrap on a
# machine without Swift). What is missing is skipped by name; a failure ends with exit code 1.
set -uo pipefail

demo=$(cd "$(dirname "$0")" && pwd)
repository=$(dirname "$demo")
python=${PYTHON:-.venv/bin/python}
build=$demo/.build
log=$build/log.txt
passed=0 failed=0 skipped=0
mkdir -p "$build"
cd "$repository" || exit 1

check() { # TITLE COMMAND…: exit code 3 of the command is a skip, its last line the reason
  local title=$1 code
  shift
  "$@" >"$log" 2>&1
  code=$?
  case $code in
    0) passed=$((passed + 1)) && echo "passed: $title" ;;
    3) skipped=$((skipped + 1)) && echo "skipped: $title: $(tail -n 1 "$log")" ;;
    *)
      failed=$((failed + 1))
      echo "FAILED: $title"
      grep -vE "^Test (Case|Suite).*(started|passed)" "$log" | tail -n 60 | cut -c 1-400
      ;;
  esac
  return $code
}

parse_all() {
  local place=$HOME/.cache/elir-mobile/tree-sitter-swift-0.7.4
  if [ ! -f "$place/ready" ]; then
    "$python" -m venv "$place" &&
      "$place/bin/pip" install --quiet --disable-pip-version-check tree-sitter==0.26.1 tree-sitter-swift==0.7.4 &&
      touch "$place/ready" || { echo "tree-sitter-swift 0.7.4 cannot be installed by pip"; return 3; }
  fi
  "$place/bin/python" "$demo/parse.py" "$demo"
}

fixtures() { PYTHONPATH=$repository "$python" -m tests.app_fixtures "$build/fixtures"; }

swift_there() { "$demo/swift.sh" swiftc --version; }

swift_test() {
  local server="" code
  if [ -n "${ELIR_BUNDLE:-}" ]; then serve; fi
  timeout 540 "$demo/swift.sh" \
    swift-test --configuration release --package-path "$demo/ElirCore" --scratch-path "$build/core"
  code=$?
  if [ -n "$server" ]; then kill "$server" 2>/dev/null; fi
  return $code
}

# A Python process that executes an ExecuTorch file of the bundle for the Swift tests; it sets "server".
serve() {
  local path
  path=$("$python" -c 'import json, sys
files = [f for f in json.load(open(sys.argv[1]))["files"] if f["target"] == "executorch"]
print(min(files, key=lambda f: f["precision"] != "w8a8")["path"] if files else "")' "$ELIR_BUNDLE/manifest.json")
  if [ -z "$path" ]; then return; fi
  export ELIR_SERVED=$path ELIR_REQUESTS=$build/requests ELIR_ANSWERS=$build/answers
  rm -f "$ELIR_REQUESTS" "$ELIR_ANSWERS"
  mkfifo "$ELIR_REQUESTS" "$ELIR_ANSWERS"
  "$python" -m android_demo.tests.serve "$ELIR_BUNDLE" "$path" \
    <"$ELIR_REQUESTS" >"$ELIR_ANSWERS" 2>"$build/serve.txt" &
  server=$!
}

typecheck() { "$demo/typecheck.sh" "$build/modules" "$@"; }

# The stubs must tell a wrong label, or the type-check shows nothing.
wrong_labels() {
  local changed=$build/ExecuTorchPrograms.swift
  sed 's/Module(filePath:/Module(path:/' "$demo/App/Sources/Runtimes/ExecuTorchPrograms.swift" >"$changed"
  "$demo/swift.sh" swiftc -swift-version 5 -parse-as-library -typecheck -I "$build/modules" "$changed" >"$log" 2>&1
  if grep -q "incorrect argument label in call (have 'path:', expected 'filePath:')" "$log"; then return 0; fi
  cat "$log"
  return 1
}

# The code of docs/integrate.md, as it stands there.
integrate() {
  local code=$build/Integrate.swift
  awk '/^```swift$/ { inside = 1; next } /^```$/ { inside = 0 } inside' "$repository/docs/integrate.md" >"$code"
  [ -s "$code" ] && "$demo/swift.sh" swiftc -swift-version 5 -parse-as-library -typecheck -I "$build/modules" "$code"
}

formatted() {
  "$demo/swift.sh" swift-format lint --strict --configuration "$demo/.swift-format" --recursive \
    "$demo"/App/Sources "$demo"/ElirCore/{Sources,Tests,Package.swift}
}

project() { "$python" "$demo/check_project.py" "$demo"; }

# What the check of the project must tell where keys are missing.
faulty_project() {
  local faulty=$build/faulty key code
  local keys="UIBackgroundModes BGTaskSchedulerPermittedIdentifiers CFBundleDocumentTypes ElirExecuTorchVersion"
  rm -rf "$faulty" && mkdir -p "$faulty/demo" &&
    ln -s "$repository/pyproject.toml" "$faulty" && ln -s "$demo/App" "$demo/ElirCore" "$faulty/demo" || return 1
  for key in $keys; do
    "$python" - "$demo/project.yml" "$key" >"$faulty/demo/project.yml" <<'END' || return
import sys
try:
    import yaml
except ImportError:
    print("PyYAML is not installed", file=sys.stderr)
    sys.exit(3)
project = yaml.safe_load(open(sys.argv[1]))
del project["targets"]["ElirDemo"]["info"]["properties"][sys.argv[2]]
print(yaml.safe_dump(project))
END
    "$python" "$demo/check_project.py" "$faulty/demo" >"$faulty/told.txt" 2>&1
    code=$?
    cat "$faulty/told.txt"
    [ $code = 1 ] && [ -z "$(grep -v "^$key " "$faulty/told.txt" | grep -v "pins another ExecuTorch")" ] || return 1
  done
}

if ! command -v "$python" >/dev/null; then
  echo "no Python environment: run make .venv/ready" >&2
  exit 1
fi
if [ -n "${CI:-}" ] && [ "$(id -u)" = 0 ] && ! command -v mmdebstrap swiftc >/dev/null; then
  apt-get update -qq && apt-get install -y -qq -o DPkg::Lock::Timeout=300 mmdebstrap >/dev/null
fi

mapfile -t sources < <(find "$demo/App/Sources" -name '*.swift' | sort)
check "every Swift file parses (tree-sitter)" parse_all
check "the Xcode project names what is there" project && check "the check of the project tells missing keys" faulty_project
check "golden files from the Python package" fixtures
if check "Swift toolchain" swift_there; then
  check "every Swift file is as swift-format has it" formatted
  # An exported bundle is verified too, where the repository has one (make demo).
  bundle=$(find "$repository/out" -maxdepth 2 -name manifest.json -printf '%h\n' 2>/dev/null | sort | head -n 1)
  if [ -n "$bundle" ]; then export ELIR_BUNDLE=$bundle; fi
  export ELIR_FIXTURES=$build/fixtures ELIR_RESULT=$build/result.json
  check "swift test" swift_test && grep -E "verified|skipped - |Executed" "$log" | sort -u
  if check "the app type-checks against the stubs" typecheck "${sources[@]}"; then
    check "the stubs tell wrong labels" wrong_labels
    check "the code of docs/integrate.md type-checks" integrate
  fi
fi
echo "ios: $passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
