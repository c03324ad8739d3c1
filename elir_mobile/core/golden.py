"""A bundle's golden vectors through three programs, and how far the outputs are from the float ones.

NumPy alone: the worker does this on any device, and ``compare.golden_parity`` with it when a bundle is
written, so that both mean the same numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np

from elir_mobile.core.errors import UserError
from elir_mobile.core.manifest import GoldenArrays
from elir_mobile.core.sampling import Loop
from elir_mobile.core.statistics import psnr_db, sqnr_db, unless_equal

_SIGNALS = {"encode": "coarse", "step": "step"}  # program → the golden array of its output


def golden_outputs(loop: Loop, golden: GoldenArrays) -> dict[str, np.ndarray]:
    """What each program makes of its golden input (``encode``, ``step``, ``decode``), and the ``image``
    that the whole loop makes of the golden input and noise.

    Raises:
        UserError: one of them has values that are not finite, or one value alone.
    """
    start = golden["coarse"] + np.float32(loop.sigma_s) * golden["noise"]
    outputs = {
        "encode": loop.encode(golden["input"]),
        "step": loop.step(start, 0),
        "decode": loop.decode(golden["latent"]),
        "image": loop.restore(golden["input"], golden["noise"])[0],
    }
    for name, values in outputs.items():
        check_output(name, values)
    return outputs


def check_output(name: str, values: np.ndarray) -> None:
    """Refuse an output that no figure can be had of.

    Raises:
        UserError: some of ``values`` are infinite or not a number, or all are the same: GPUs and NPUs are
            known to return zeros without an error.
    """
    check_finite(name, values)
    if values.size > 1 and values.min() == values.max():
        raise UserError(f"{name} gives {values.flat[0]:g} everywhere")


def check_finite(name: str, values: np.ndarray) -> None:
    """Refuse an output that cannot be compared.

    Raises:
        UserError: some of ``values`` are infinite or not a number.
    """
    if not np.isfinite(values).all():
        raise UserError(f"{name} gives values that are not finite")


def expected(golden: GoldenArrays) -> dict[str, np.ndarray]:
    """What each program of the float network makes of its golden input, and the whole loop."""
    arrays = {**_SIGNALS, "decode": "output", "image": "output"}
    return {name: golden[array] for name, array in arrays.items()}


def golden_parity_db(outputs: Mapping[str, np.ndarray], golden: GoldenArrays) -> dict[str, float | None]:
    """Of ``encode`` and ``step`` the SQNR, of ``decode`` and ``image`` the PSNR against the stored 8-bit
    picture, in dB; None where they are equal to the last bit, which no finite number says.

    Raises:
        UserError: an output has values that are not finite.
    """
    found = {
        name: (sqnr_db if name in _SIGNALS else psnr_db)(values, outputs[name])
        for name, values in expected(golden).items()
    }
    return {name: unless_equal(value) for name, value in found.items()}


def output_bytes(output: np.ndarray) -> bytes:
    """``output`` as little-endian float32."""
    return np.ascontiguousarray(output, "<f4").tobytes()


def output_sha256(output: np.ndarray) -> str:
    """Digest of :func:`output_bytes`: equal digests on two devices are equal bits."""
    return hashlib.sha256(output_bytes(output)).hexdigest()
