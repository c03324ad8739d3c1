"""The browser as a device: the ``.tflite`` files in LiteRT.js, and the page that serves people, too.

The page (``browser_demo/``) restores photos on the device that opens it, and does a job file without a
person. Here are the web server that both need and the headless Chromium of the latter. Threads of
WebAssembly need a page that is isolated from other origins, hence the headers
(https://web.dev/articles/coop-coep).

``python -m elir_mobile.devices.browser BUNDLE`` serves the page; ``--set-up`` (``make browser``) fetches
LiteRT.js and playwright-core into the cache, by the versions and digests of
``browser_demo/package-lock.json``.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

import typer

from elir_mobile.core.errors import UserError, exits_with_2
from elir_mobile.core.files import cache_dir, written
from elir_mobile.core.jobs import Job, Result, read_result, write_json
from elir_mobile.core.manifest import read_manifest
from elir_mobile.devices.protocol import Progress
from elir_mobile.devices.remote import call, last_line, only_finite
from elir_mobile.runtimes.table import runtimes_on
from elir_mobile.terminal import Terminal

PAGE = Path(__file__).parents[2] / "browser_demo"
PACKAGES = ("package.json", "package-lock.json")
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")
# Of a file put by the page: raw outputs are megabytes at most.
MOST_BYTES = 1 << 30
HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}


def modules_folder() -> Path:
    """The ``node_modules`` in the cache."""
    return cache_dir() / "browser" / "node_modules"


def is_ready() -> bool:
    """Whether the cache holds the npm packages that ``browser_demo/package-lock.json`` names."""
    lock = cache_dir() / "browser" / "package-lock.json"
    return lock.is_file() and lock.read_bytes() == (PAGE / "package-lock.json").read_bytes()


class Handler(SimpleHTTPRequestHandler):
    """Files below a few folders by the first part of the path; ``PUT`` into ``job/`` alone.

    Args:
        roots: first part of the path → folder; ``""``: what no other part names.
    """

    extensions_map = {
        **SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript",
        ".wasm": "application/wasm",
    }

    def __init__(self, *arguments: Any, roots: dict[str, Path], **options: Any) -> None:
        self.roots = roots
        super().__init__(*arguments, **options)

    def translate_path(self, path: str) -> str:
        """The file that ``path`` names; a path that leads out of its folder names none."""
        parts = PurePosixPath(unquote(urlsplit(path).path).lstrip("/")).parts
        inside = parts[0] if parts and parts[0] in self.roots else ""
        root = self.roots[inside].resolve()
        found = root.joinpath(*parts[1 if inside else 0 :]).resolve()
        return str(found) if found.is_relative_to(root) else str(root / "no" / "such" / "file")

    def list_directory(self, path: Any) -> None:
        """No folder is listed."""
        self.send_error(HTTPStatus.NOT_FOUND)

    def end_headers(self) -> None:
        """With the headers of an isolated page."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def do_PUT(self) -> None:
        """Keep a file that the page of a job made."""
        target = Path(self.translate_path(self.path))
        length = int(self.headers.get("Content-Length", "0"))
        if "job" not in self.roots or target.parent != self.roots["job"].resolve() or length > MOST_BYTES:
            self.send_error(HTTPStatus.FORBIDDEN)
            return
        with written(target) as staged:
            staged.write_bytes(self.rfile.read(length))
        self.send_response(HTTPStatus.CREATED)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: requests are not news."""


@contextmanager
def serving(bundle: Path, job: Path | None = None, port: int = 0) -> Iterator[str]:
    """Serve the page with ``bundle`` on this machine only, for as long as the block runs.

    Args:
        bundle: a verified bundle.
        job: folder of a job file, into which the page may put its results.
        port: 0: any that is free.

    Yields:
        The page's address.

    Raises:
        UserError: the npm packages are not there, or the port is taken.
    """
    if not is_ready():
        raise UserError("LiteRT.js is not in the cache: run make browser")
    roots = {"": PAGE, "bundle": bundle, "litert": modules_folder() / "@litertjs"}
    if job is not None:
        roots["job"] = job
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), partial(Handler, roots=roots))
    except OSError as error:
        raise UserError(f"port {port} cannot be used ({error.strerror}): choose another --port") from error
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()


class Browser:
    """Headless Chromium; a :class:`~elir_mobile.devices.protocol.Device`."""

    name = "browser"
    kind = "browser"
    runtimes = runtimes_on("browser")

    def __init__(self, node: str, chromium: str) -> None:
        self.node, self.chromium = node, chromium

    def run(self, bundle: Path, job: Job, folder: Path, progress: Progress) -> Result:
        """Run ``job``; see :meth:`elir_mobile.devices.protocol.Device.run`."""
        read_manifest(bundle, job.files)
        with tempfile.TemporaryDirectory() as temporary, serving(bundle, Path(temporary)) as url:
            work = Path(temporary)
            write_json(work / "job.json", replace(job, bundle="../bundle"))
            self._open(f"{url}?job=job/job.json", progress)
            result = read_result(work / "result.json")
            for path in work.iterdir():
                if path.name != "job.json":
                    shutil.move(path, folder / path.name)
        return replace(result, rows=tuple(only_finite(row, folder) for row in result.rows))

    def _open(self, url: str, progress: Progress) -> None:
        """Open the page and wait until it is done.

        Raises:
            UserError: the browser does not start, or the page says what is wrong.
        """
        command = [self.node, str(PAGE / "headless.mjs"), str(modules_folder()), self.chromium, url]
        with tempfile.TemporaryFile("w+") as log:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    now = json.loads(line)
                    progress(round(now["done"]), round(now["of"]), now["what"])
            finally:
                process.stdout.close()
                if process.poll() is None:
                    process.terminate()
                process.wait()
            log.seek(0)
            said = log.read()
        if process.returncode != 0:
            raise UserError(f"the browser could not do the job: {last_line(said) or 'it says nothing'}")


def connect(spec: str = "browser") -> Browser:
    """Headless Chromium on this machine.

    Raises:
        UserError: node, Chromium or the npm packages are missing.
    """
    node = shutil.which("node")
    chromium = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    if node is None or chromium is None:
        missing = "nodejs" if node is None else "chromium"
        raise UserError(f"the device '{spec}' needs {missing}: apt-get install nodejs npm chromium")
    if not is_ready():
        raise UserError(f"the device '{spec}' is not set up: run make browser")
    return Browser(node, chromium)


def set_up() -> None:
    """Fetch the npm packages into the cache, whole or not at all.

    Raises:
        UserError: npm is not installed, or fails.
    """
    if shutil.which("npm") is None:
        raise UserError("make browser needs npm: apt-get install nodejs npm chromium")
    target = cache_dir() / "browser"
    with written(target, synced=False) as staging:
        staging.mkdir()
        for name in PACKAGES:
            shutil.copyfile(PAGE / name, staging / name)
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        call(command, "npm could not fetch the packages", cwd=staging)


@exits_with_2
def main(
    bundle: Annotated[Path | None, typer.Argument(help="The bundle to restore with.")] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the page; 0: any.")] = 8000,
    fetch: Annotated[
        bool, typer.Option("--set-up", help="Fetch LiteRT.js and playwright-core into the cache first.")
    ] = False,
) -> None:
    """Serve the page that restores photos in the browser, on this machine only."""
    console = Terminal()
    if fetch and not is_ready():
        with console.status("fetching npm packages"):
            set_up()
    if fetch:
        console.print(f"ready: {modules_folder().parent}")
    if bundle is None:
        if not fetch:
            raise UserError("no bundle: name its folder, as in out/bfr-demo")
        return
    read_manifest(bundle)
    with serving(bundle, port=port) as url:
        console.print(f"{url} (end with Ctrl-C)")
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            console.print("ended")


if __name__ == "__main__":
    typer.run(main)
