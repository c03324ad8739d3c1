"""The browser as a device: the ``.tflite`` files in LiteRT.js, and the page that serves people, too.

The page (``browser_demo/``) restores photos on the device that opens it, and does a job file without a
person. Here are the web server that both need and the headless Chromium of the latter. Threads of
WebAssembly need a page that is isolated from other origins, hence the headers
(https://web.dev/articles/coop-coep).

``python -m elir_mobile.devices.browser BUNDLE`` serves the page; ``--export FOLDER`` makes one of it that any
web server can serve, whose service worker sets those headers; ``--set-up`` (``make browser``) fetches
LiteRT.js and playwright-core into the cache, by the versions and digests of
``browser_demo/package-lock.json``.
"""

from __future__ import annotations

import json
import os
import pwd
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import IO, Annotated, Any
from urllib.parse import unquote, urlsplit

import typer

from elir_mobile.core.errors import UserError, exits_with_2
from elir_mobile.core.files import cache_dir, written
from elir_mobile.core.jobs import Job, Result, read_result, write_json
from elir_mobile.core.manifest import artifact_sha256, copy_files, read_manifest
from elir_mobile.devices.protocol import Progress
from elir_mobile.devices.remote import call, last_line, only_finite
from elir_mobile.runtimes.table import can_run, runtimes_on
from elir_mobile.terminal import Terminal

PAGE = Path(__file__).parents[2] / "browser_demo"
PACKAGES = ("package.json", "package-lock.json")
HOSTS = ("127.0.0.1", "localhost", "::1")  # what this machine calls itself; the first is listened on
HEADLESS, DRIVER = "headless.mjs", "playwright-core"
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")
# Of a file put by the page: raw outputs are megabytes at most.
MOST_BYTES = 1 << 30
SILENCE_LIMIT_S = 900.0  # a browser whose page does not come further for so long is ended
OTHER_USER = "nobody"  # as whom root runs Chromium, whose sandbox root cannot have
HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
RUNTIME = "litert"  # first part of the paths of LiteRT.js
# Of the page: what its export starts with instead, see browser_demo/offline.js.
START = '<script type="module" src="page.js"></script>'
OFFLINE = '<link rel="manifest" href="app.webmanifest" />\n    ' + START.replace("page.js", "offline.js")


def modules_folder() -> Path:
    """The ``node_modules`` in the cache."""
    return cache_dir() / "browser" / "node_modules"


def is_ready() -> bool:
    """Whether the cache holds the npm packages that ``browser_demo/package-lock.json`` names."""
    lock = cache_dir() / "browser" / "package-lock.json"
    return lock.is_file() and lock.read_bytes() == (PAGE / "package-lock.json").read_bytes()


class Handler(SimpleHTTPRequestHandler):
    """Files below a few folders by the first part of the path; ``PUT`` into ``job/`` alone.

    Answers a request by the name of this machine alone: with a name of its own that leads here, another site
    would otherwise read along (DNS rebinding).

    Args:
        roots: first part of the path → folder; ``""``: what no other part names.
    """

    timeout = 60.0  # seconds in which a client must send something
    extensions_map = {
        **SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript",
        ".wasm": "application/wasm",
    }

    def __init__(self, *arguments: Any, roots: dict[str, Path], **options: Any) -> None:
        self.roots = roots
        super().__init__(*arguments, **options)

    def parse_request(self) -> bool:
        """Whether there is a request to answer."""
        if not super().parse_request():
            return False
        try:
            host = urlsplit(f"//{self.headers.get('Host', '')}").hostname
        except ValueError:
            host = None
        if host not in HOSTS:
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
            return False
        return True

    def translate_path(self, path: str) -> str:
        """The file that ``path`` names; a path that leads out of its folder names none."""
        parts = PurePosixPath(unquote(urlsplit(path).path).lstrip("/")).parts
        inside = parts[0] if parts and parts[0] in self.roots else ""
        root = self.roots[inside].resolve()
        try:
            found = root.joinpath(*parts[1 if inside else 0 :]).resolve()
        except (OSError, ValueError):  # too long, or with a zero byte
            found = root.parent
        return str(found) if found.is_relative_to(root) else str(root / "no" / "such" / "file")

    def list_directory(self, path: Any) -> None:
        """No folder is listed."""
        self.send_error(HTTPStatus.NOT_FOUND)

    def end_headers(self) -> None:
        """With the headers of an isolated page."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        # LiteRT.js is megabytes and changes with its version alone: a browser may keep it, and asks first.
        kept = getattr(self, "path", "").startswith(f"/{RUNTIME}/")  # it lacks where a request is none
        self.send_header("Cache-Control", "no-cache" if kept else "no-store")
        super().end_headers()

    def do_PUT(self) -> None:
        """Keep a file that the page of a job made, whole or not at all."""
        self.close_connection = True  # what was not read of a body that is refused is no request
        target = Path(self.translate_path(self.path))
        said = self.headers.get("Content-Length", "")
        if "job" not in self.roots or target.parent != self.roots["job"].resolve():
            self.send_error(HTTPStatus.FORBIDDEN)
        elif not (said.isascii() and said.isdecimal()):
            self.send_error(HTTPStatus.LENGTH_REQUIRED)
        elif len(said) > len(str(MOST_BYTES)) or int(said) > MOST_BYTES:
            self.send_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        else:
            try:
                with written(target) as staged, staged.open("wb") as file:
                    self._receive(int(said), file)
            except _Broken:
                self.send_error(HTTPStatus.BAD_REQUEST)
            except (UserError, OSError):
                self.send_error(HTTPStatus.INSUFFICIENT_STORAGE)
            else:
                self.send_response(HTTPStatus.CREATED)
                self.send_header("Content-Length", "0")
                self.end_headers()

    def _receive(self, length: int, file: IO[bytes]) -> None:
        """Write ``length`` bytes of the request to ``file``.

        Raises:
            _Broken: they do not come.
        """
        while length:
            try:
                chunk = self.rfile.read(min(length, 1 << 18))
            except OSError as error:
                raise _Broken from error
            if not chunk:
                raise _Broken
            file.write(chunk)
            length -= len(chunk)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: requests are not news."""


class _Broken(Exception):
    """A body ended before its length."""


class Server(ThreadingHTTPServer):
    """A thread for each request."""

    request_queue_size = 128  # a page opens its files and puts its results at once

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing of a client that went away in the middle; of a fault of ours the usual."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


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
    roots = {"": PAGE, "bundle": bundle, RUNTIME: modules_folder() / "@litertjs"}
    if job is not None:
        roots["job"] = job
    try:
        server = Server((HOSTS[0], port), partial(Handler, roots=roots))
    except OSError as error:
        raise UserError(f"port {port} cannot be used ({error.strerror}): choose another --port") from error
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
    thread.start()
    try:
        yield f"http://{HOSTS[0]}:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()


def export_page(bundle: Path, target: Path) -> None:
    """Write the page with ``bundle`` as a folder for any web server; ``target`` appears when it is whole.

    Raises:
        UserError: the npm packages are not there, the bundle has no file for browsers, or ``target`` exists.
    """
    if not is_ready():
        raise UserError("LiteRT.js is not in the cache: run make browser")
    if target.exists():
        raise UserError(f"{target} exists: name a new folder, or remove it")
    manifest = read_manifest(bundle)
    files = [entry for entry in manifest["files"] if can_run("browser", entry)]
    if not files:
        raise UserError(f"{bundle} has no .tflite file: export one with --targets litert")
    with written(target) as staging:
        left_out = shutil.ignore_patterns(HEADLESS, "*.json", "*.map", "*.d.ts", "*.md")
        shutil.copytree(PAGE, staging, ignore=left_out)
        shutil.copytree(modules_folder() / "@litertjs", staging / RUNTIME, ignore=left_out)
        version = Path(RUNTIME, "core", "package.json")  # which the page states
        shutil.copyfile(modules_folder() / "@litertjs" / "core" / version.name, staging / version)
        shutil.copyfile(PAGE.parent / "LICENSE", staging / "LICENSE")  # LiteRT.js' and the detector's, too
        copy_files(bundle, manifest, files, staging / "bundle")
        index, worker = staging / "index.html", staging / "worker.js"
        index.write_text(index.read_text().replace(START, OFFLINE))
        worker.write_text(f'const DIGEST = "{artifact_sha256(staging)}";\n{worker.read_text()}')


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
        with tempfile.TemporaryDirectory() as home, tempfile.TemporaryFile("w+") as log:
            script, modules = PAGE / HEADLESS, modules_folder()
            as_whom: dict[str, Any] = {}
            if os.geteuid() == 0:
                script, modules, as_whom = other_user(Path(home), [self.node, self.chromium])
            command = [self.node, str(script), str(modules), self.chromium, url]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, **as_whom)
            assert process.stdout is not None
            watch = _Silence(process)
            try:
                for line in process.stdout:
                    watch.again()
                    now = json.loads(line)
                    progress(round(now["done"]), round(now["of"]), now["what"])
            finally:
                watch.stop()
                process.stdout.close()
                _end(process)
            log.seek(0)
            said = last_line(log.read()) or "it says nothing"
        if watch.ended:
            said = f"the page did not come further within {SILENCE_LIMIT_S:g} s"
        if process.returncode != 0:
            raise UserError(f"the browser could not do the job: {said}")


class _Silence:
    """Ends a process that is not heard of for ``SILENCE_LIMIT_S``."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process, self.ended = process, False
        self.timer = threading.Timer(0, lambda: None)
        self.again()

    def again(self) -> None:
        """It was heard of."""
        self.timer.cancel()
        self.timer = threading.Timer(SILENCE_LIMIT_S, self._fire)
        self.timer.daemon = True
        self.timer.start()

    def stop(self) -> None:
        """It need not be heard of any more."""
        self.timer.cancel()

    def _fire(self) -> None:
        self.ended = True
        _end(self.process)


def _end(process: subprocess.Popen[str]) -> None:
    """End the browser's process, which closes Chromium if it still can; wait until it is gone."""
    try:
        if process.poll() is None:
            process.terminate()
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def other_user(home: Path, programs: list[str]) -> tuple[Path, Path, dict[str, Any]]:
    """How root runs Chromium as somebody else, in a sandbox: a page computes with a stranger's model.

    Chromium refuses root its sandbox. Where the other user cannot run the programs, or the system gives no
    user namespaces, root runs it without, and is told.

    Args:
        home: an empty folder, which becomes the other user's.
        programs: paths of what will be run.

    Returns:
        The script, the folder of node's modules, and options of :class:`subprocess.Popen`.
    """
    try:
        facts = pwd.getpwnam(OTHER_USER)
        modules = home / "node_modules"  # the cache is below root's home, which nobody else may enter
        shutil.copytree(modules_folder() / DRIVER, modules / DRIVER)
        shutil.copyfile(PAGE / HEADLESS, home / HEADLESS)
        for path in (home, *home.rglob("*")):
            os.chown(path, facts.pw_uid, facts.pw_gid)
        options: dict[str, Any] = {"user": facts.pw_uid, "group": facts.pw_gid, "extra_groups": ()}
        options |= {"cwd": home, "env": {**os.environ, "HOME": str(home), "TMPDIR": str(home)}}
        runnable = " && ".join(f"test -x {shlex.quote(program)}" for program in programs)
        probe = ["sh", "-c", f"{runnable} && unshare --user --pid --fork true"]
        if subprocess.run(probe, capture_output=True, timeout=30, **options).returncode == 0:
            return home / HEADLESS, modules, options
    except (KeyError, OSError, subprocess.SubprocessError):
        pass
    print(
        "note: Chromium runs as root and so without its sandbox: measure only bundles that you trust, "
        "or run this as another user",
        file=sys.stderr,
    )
    return PAGE / HEADLESS, modules_folder(), {}


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
    export: Annotated[
        Path | None,
        typer.Option("--export", metavar="FOLDER", help="Write the page for any web server instead."),
    ] = None,
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
    if export:
        export_page(bundle, export)
        console.print(f"{export}: put it on a web server with https")
        return
    read_manifest(bundle)
    with serving(bundle, port=port) as url:
        console.print(f"{url} (end with Ctrl-C)")
        threading.Event().wait()


if __name__ == "__main__":
    typer.run(main)
