"""Executes a bundle's file for a process that cannot: ``python -m android_demo.tests.serve BUNDLE PATH``.

Reads a command byte (``e``, ``s``, ``d``) and its float32 arrays from stdin and writes the program's output
to stdout, each array as a count and its values, big-endian, until stdin ends.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from elir_mobile.bundle import read_bundle
from elir_mobile.runtimes.runner import open_runner


def receive(stream: BinaryIO) -> Tensor:
    """The next array, flat."""
    (count,) = struct.unpack(">i", stream.read(4))
    return torch.from_numpy(np.frombuffer(stream.read(4 * count), ">f4").astype(np.float32))


def send(stream: BinaryIO, values: Tensor) -> None:
    """Write an array."""
    stream.write(struct.pack(">i", values.numel()) + values.numpy().astype(">f4").tobytes())
    stream.flush()


def serve(folder: Path, path: str, given: BinaryIO, made: BinaryIO) -> None:
    """Answer until ``given`` ends. A row must be one of the table's, to the last bit."""
    bundle = read_bundle(folder)
    (entry,) = (entry for entry in bundle.manifest["files"] if entry["path"] == path)
    runner = open_runner(entry["target"], folder / path, bundle.table)
    size = bundle.manifest["size"]
    latent = (1, 16, size // 8, size // 8)
    while command := given.read(1):
        values = receive(given)
        if command == b"e":
            send(made, runner.encode(values.view(1, 3, size, size)))
        elif command == b"d":
            send(made, runner.decode(values.view(latent)))
        else:
            row = receive(given)
            (k,) = (bundle.table == row).all(1).nonzero().flatten().tolist()
            send(made, runner.step(values.view(latent), k))


if __name__ == "__main__":
    # Runtimes print; what is meant for the other process must stay alone on its pipe.
    answers, sys.stdout = sys.stdout.buffer, sys.stderr
    serve(Path(sys.argv[1]), sys.argv[2], sys.stdin.buffer, answers)
