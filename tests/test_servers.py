"""What is at the other end of a socket or a cable may be hostile, broken off, silent, or many at once."""

from __future__ import annotations

import http.client
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from elir_mobile.core.errors import UserError
from elir_mobile.core.jobs import Job
from elir_mobile.devices import adb, arm64, browser, remote


@pytest.fixture
def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Of the page's server, with a bundle and the folder ``job`` of a job."""
    monkeypatch.setattr(browser, "is_ready", lambda: True)
    monkeypatch.setattr(browser, "modules_folder", lambda: tmp_path / "node_modules")
    for name in ("bundle", "job"):
        (tmp_path / name).mkdir()
    (tmp_path / "bundle" / "manifest.json").write_text("{}")
    (tmp_path / "secret").write_text("secret")
    with browser.serving(tmp_path / "bundle", tmp_path / "job") as url:
        yield int(url.rstrip("/").rpartition(":")[2])


def answer(port: int, request: str, body: bytes = b"", host: str = "127.0.0.1") -> int:
    """Status of the answer to a request with the connection closed after ``body``."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(f"{request}\r\nHost: {host}\r\n\r\n".encode() + body)
        connection.shutdown(socket.SHUT_WR)
        head = connection.makefile("rb").readline()
    return int(head.split()[1])


@pytest.mark.parametrize(
    ("path", "length", "body", "status"),
    [
        ("/job/a", "Content-Length: 5", b"12345", 201),
        ("/job/a", "Content-Length: 0", b"", 201),
        ("/job/a", "Content-Length: 500", b"12345", 400),
        ("/job/a", "Content-Length: -1", b"12345", 411),
        ("/job/a", "Content-Length: 0x5", b"12345", 411),
        ("/job/a", "Content-Length: ٥", b"12345", 411),
        ("/job/a", "Transfer-Encoding: chunked", b"5\r\n12345\r\n0\r\n\r\n", 411),
        ("/job/a", f"Content-Length: {browser.MOST_BYTES + 1}", b"12345", 413),
        ("/job/a", f"Content-Length: {'9' * 5000}", b"12345", 413),
        ("/job/../secret", "Content-Length: 5", b"12345", 403),
        ("/job/%2e%2e/secret", "Content-Length: 5", b"12345", 403),
        ("/bundle/manifest.json", "Content-Length: 5", b"12345", 403),
        ("/job/%00", "Content-Length: 5", b"12345", 403),
        ("/job/" + "a" * 300, "Content-Length: 5", b"12345", 507),
    ],
)
def test_an_upload_is_whole_or_it_is_not(
    port: int, tmp_path: Path, path: str, length: str, body: bytes, status: int
) -> None:
    assert answer(port, f"PUT {path} HTTP/1.1\r\n{length}", body) == status
    assert [found.name for found in (tmp_path / "job").iterdir()] == (["a"] if status == 201 else [])
    if status == 201:
        assert (tmp_path / "job" / "a").read_bytes() == body
    assert (tmp_path / "secret").read_text() == "secret"
    assert (tmp_path / "bundle" / "manifest.json").read_text() == "{}"


def test_an_upload_that_stops_is_given_up(port: int, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(browser.Handler, "timeout", 0.2)
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(b"PUT /job/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n12345")
        assert b" 400 " in connection.makefile("rb").readline()
    assert list((tmp_path / "job").iterdir()) == []


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200),
        ("localhost", 200),
        ("LOCALHOST:9000", 200),  # forwarded from another port
        ("[::1]:8000", 200),
        ("rebound.example", 421),
        ("rebound.example:8000", 421),
        ("127.0.0.1.rebound.example", 421),
        ("localhost@rebound.example", 421),
        ("[", 421),
        ("", 421),
    ],
)
def test_only_this_machine_s_own_names_are_answered(
    port: int, tmp_path: Path, host: str, status: int
) -> None:
    assert answer(port, "GET /bundle/manifest.json HTTP/1.1", host=host) == status
    put = answer(port, "PUT /job/a HTTP/1.1\r\nContent-Length: 1", b"1", host=host)
    assert put == (201 if status == 200 else 421)


@pytest.mark.parametrize(
    "path", ["/%00", "/bundle/../secret", "/bundle/%2e%2e/secret", "/" + "a" * 5000, "/job/"]
)
def test_a_path_that_names_no_file_of_a_folder_is_not_found(port: int, path: str) -> None:
    assert answer(port, f"GET {path} HTTP/1.1") == 404


def test_uploads_at_once_all_arrive(port: int, tmp_path: Path) -> None:
    """Forty files, and one of them by everybody."""
    statuses = []

    def put(index: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for name in (f"{index}", "shared"):
            connection.request("PUT", f"/job/{name}", body=f"{index:5}".encode() * 20_000)
            response = connection.getresponse()
            response.read()
            statuses.append(response.status)
        connection.close()

    threads = [threading.Thread(target=put, args=(index,)) for index in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [201] * 80
    made = {path.name: path.read_bytes() for path in (tmp_path / "job").iterdir()}
    assert made.keys() == {"shared", *map(str, range(40))}
    for index in range(40):
        assert made[str(index)] == f"{index:5}".encode() * 20_000
    assert made["shared"] in made.values()
    assert len({made["shared"][i : i + 5] for i in range(0, 100_000, 5)}) == 1


def script(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(0o755)
    return str(path)


def test_a_browser_that_falls_silent_is_ended(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(browser, "SILENCE_LIMIT_S", 1.0)
    monkeypatch.setattr(browser, "modules_folder", lambda: tmp_path / "node_modules")
    (tmp_path / "node_modules" / browser.DRIVER).mkdir(parents=True)
    node = script(
        tmp_path / "node",
        f"""
import json, os, time
open({str(tmp_path / "pid")!r}, "w").write(str(os.getpid()))
print(json.dumps({{"done": 1, "of": 2, "what": "restoring"}}), flush=True)
time.sleep(600)
""",
    )
    told = []
    device = browser.Browser(node, "chromium")
    with pytest.raises(UserError, match="the page did not come further within 1 s"):
        device._open("http://127.0.0.1:1/", lambda *what: told.append(what))
    assert told == [(1, 2, "restoring")]
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    # Nobody but root may enter pytest's folders, so that root's Chromium would have no sandbox here.
    assert ("without its sandbox" in capsys.readouterr().err) == (os.geteuid() == 0)


def test_a_phone_that_falls_silent_is_one_sentence(tmp_path: Path, monkeypatch) -> None:
    script(tmp_path / "adb", "import time\ntime.sleep(600)")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(adb.Adb._call, "__kwdefaults__", {"limit_s": 0.3})
    start = time.monotonic()
    with pytest.raises(
        UserError, match="PHONE did not answer 'adb get-state' within 0.3 s: connect it again"
    ):
        adb.connect("adb:PHONE")
    monkeypatch.setattr(adb, "JOB_LIMIT_S", 0.3)
    for run in (adb.run_worker, adb.run_app):
        with pytest.raises(remote.WorkerDied, match="it did not end within 0.3 s"):
            run(adb.Adb("PHONE"), "/sdcard/x")
    assert time.monotonic() - start < 20


def test_a_tool_that_does_not_end_is_one_sentence(monkeypatch) -> None:
    monkeypatch.setattr(remote, "TOOL_LIMIT_S", 0.3)
    with pytest.raises(UserError, match="npm could not fetch: it did not end within 0.3 s"):
        remote.call([sys.executable, "-c", "import time; time.sleep(600)"], "npm could not fetch")


def test_an_emulated_device_that_falls_silent_is_ended(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(arm64, "SILENCE_LIMIT_S", 0.2)
    monkeypatch.setattr(arm64, "POLL_S", 0.05)
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    monkeypatch.setattr(arm64, "python_command", lambda *unused: (command, {"PYTHONPATH": ""}))
    job = Job("", ("a.pte",), threads=1, warmup=0, runs=0)
    with pytest.raises(remote.WorkerDied, match="no file was done within 0.2 s"):
        arm64.Arm64(tmp_path)._run(job, tmp_path, tmp_path, lambda *what: None)
