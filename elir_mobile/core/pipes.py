"""What two processes say to each other over a pipe: a line of JSON, and after it the bytes of arrays."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import IO, Any

import numpy as np


def send(stream: IO[bytes], message: Mapping[str, Any], *arrays: np.ndarray) -> None:
    """Write ``message``, a JSON object, and after it ``arrays``, as float32."""
    shapes = [array.shape for array in arrays]
    stream.write(json.dumps([message, shapes]).encode() + b"\n")
    for array in arrays:
        stream.write(np.ascontiguousarray(array, np.float32).data)
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[dict[str, Any], list[np.ndarray]] | None:
    """What :func:`send` wrote; None where the stream ended before or in the middle of it."""
    line = stream.readline()
    if not line.endswith(b"\n"):
        return None
    message, shapes = json.loads(line)
    arrays = []
    for shape in shapes:
        values = np.empty(math.prod(shape), np.float32)
        if stream.readinto(values.view(np.uint8)) < values.nbytes:  # type: ignore[attr-defined]  # buffered
            return None
        arrays.append(values.reshape(shape))
    return message, arrays
