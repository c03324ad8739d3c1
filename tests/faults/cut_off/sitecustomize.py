"""Python imports this as it starts, where its folder is on PYTHONPATH: no address but this machine's own.

Who asks for another one gets an error, and is noted in the file ``$CUT_OFF_LOG``.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Any

OWN = (None, "", "localhost", "127.0.0.1", "::1", "0.0.0.0", socket.gethostname())
_connect, _getaddrinfo = socket.socket.connect, socket.getaddrinfo


def refuse(host: object) -> None:
    with Path(os.environ["CUT_OFF_LOG"]).open("a") as file:
        file.write(f"{host} by {sys.argv}\n")
    raise OSError(f"the network is cut off, and {host} was asked for")


def connect(self: socket.socket, address: Any) -> None:
    if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in OWN:
        refuse(address[0])
    _connect(self, address)


def getaddrinfo(host: Any, *arguments: Any, **more: Any) -> Any:
    if host not in OWN:
        refuse(host)
    return _getaddrinfo(host, *arguments, **more)


socket.socket.connect, socket.getaddrinfo = connect, getaddrinfo  # type: ignore[method-assign, assignment]
