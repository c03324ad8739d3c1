"""The page's modules in Node, which asks a server of the test for files."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Callable
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


def printed(script: str, handler: Callable) -> Any:
    """The JSON that ``tests/SCRIPT`` prints; it is given the page's folder and the address of a server."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("not installed: apt-get install nodejs")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = [node, ROOT / "tests" / script, ROOT / "browser_demo"]
        command.append(f"http://127.0.0.1:{server.server_address[1]}/")
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        server.shutdown()
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
