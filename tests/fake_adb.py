"""An ``adb`` for a phone that is a folder: runs as a script, takes the client's arguments, records them.

``$FAKE_PHONE`` is the folder: ``calls.jsonl`` is what was asked, ``state.json`` how the phone behaves, and
everything else its files. It knows the commands that the backend uses, and no others.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path

PHONE = Path(os.environ["FAKE_PHONE"])
APP = "org.elir.mobile.demo"


def local(path: str) -> Path:
    """Where the phone's ``path`` is kept."""
    return PHONE / "files" / path.lstrip("/")


def instrument(command: str, state: dict) -> int:
    """What ``am instrument -w`` prints, and what the app leaves."""
    match = re.search(r"am instrument -w -e job (\S+) -e result (\S+) (\S+)$", command)
    assert match, command
    assert match[3] == f"{APP}/.JobInstrumentation"
    job = json.loads(local(match[1]).read_text())
    bundle = local(match[1]).parent / job["bundle"]
    if state.get("crashes_on") in job["files"]:
        print("INSTRUMENTATION_RESULT: shortMsg=Process crashed.\nINSTRUMENTATION_CODE: 0")
        return 0
    if "refuses" in state:
        print(f"INSTRUMENTATION_RESULT: error={state['refuses']}\nINSTRUMENTATION_CODE: 0")
        return 0
    manifest = json.loads((bundle / "manifest.json").read_text())
    times = {"median_ms": 2.0, "p90_ms": 3.0, "runs_ms": [2.0] * job["runs"]}
    rows = []
    for path in job["files"]:
        (entry,) = [entry for entry in manifest["files"] if entry["path"] == path]
        assert (bundle / path).is_file()
        row = {"path": path, "sha256": entry["sha256"], "target": entry["target"], "error": None}
        row |= {"precision": entry["precision"], "threads": job["threads"], "peak_bytes": 1000}
        timed = {"first_ms": 4.0, "total": times, "programs": {"encode": times}}
        row |= {
            "load_ms": 1.0,
            **(timed if job["runs"] else {"first_ms": None, "total": None, "programs": {}}),
        }
        row |= {"parity": {"encode": 40.0}, "output_sha256": {}}
        rows.append(row)
    device = {"name": "phone", "kind": "android", "system": "Android 14", "arch": "arm64-v8a"}
    device |= {"cpu": "Tensor G3", "emulated": False, "runtimes": {"executorch": "1.1.0"}}
    result = {"schema_version": 1, "device": device, "rows": rows}
    local(match[2]).write_text(json.dumps(result))
    print("INSTRUMENTATION_CODE: -1")
    return 0


def shell(command: str, state: dict) -> int:
    """One command line on the phone."""
    if command.startswith("getprop "):
        print(state.get("properties", {}).get(command.split()[1], ""))
        return 0
    if command == f"pm path {APP}":
        return 0 if state["app"] else 1
    if command.startswith("python3 "):
        print("sh: python3: not found", file=sys.stderr)
        return 127
    if command == "cat /proc/cpuinfo":
        return 0
    if match := re.fullmatch(r"rm -rf (\S+) && mkdir -p \1 && echo \1", command):
        shutil.rmtree(local(match[1]), ignore_errors=True)
        local(match[1]).mkdir(parents=True)
        print(match[1])
        return 0
    if match := re.fullmatch(r"rm -rf (\S+)", command):
        shutil.rmtree(local(match[1]))
        return 0
    if " am instrument " in command:
        return instrument(command, state)
    raise AssertionError(command)


def main(arguments: list[str]) -> int:
    """One call of the client."""
    with (PHONE / "calls.jsonl").open("a") as calls:
        calls.write(json.dumps(arguments) + "\n")
    state = json.loads((PHONE / "state.json").read_text())
    assert arguments[:2] == ["-s", "SERIAL"]
    verb, rest = arguments[2], arguments[3:]
    if verb == "get-state":
        if state["state"] != "device":
            print(f"error: {state['state']}", file=sys.stderr)
            return 1
        print("device")
        return 0
    if verb == "shell":
        return shell(*rest, state)
    source, target = rest
    if verb == "push":
        if state.get("full"):
            print(f"adb: error: failed to copy to '{target}': No space left on device", file=sys.stderr)
            return 1
        assert source.endswith("/.")
        shutil.copytree(source, local(target), dirs_exist_ok=True)
        return 0
    assert verb == "pull"
    shutil.copyfile(local(source), target)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
