"""A bundle's golden vectors through three programs, and how far the outputs are from the float ones.

NumPy alone: the worker does this on any device, and ``compare.golden_parity`` with it when a bundle is
written, so that both mean the same numbers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

import numpy as np

from elir_mobile.core.manifest import GoldenArrays
from elir_mobile.core.sampling import Loop

_SIGNALS = {"encode": "coarse", "step": "step"}  # program → the golden array of its output


def golden_outputs(loop: Loop, golden: GoldenArrays) -> dict[str, np.ndarray]:
    """What each program makes of its golden input (``encode``, ``step``, ``decode``), and the ``image``
    that the whole loop makes of the golden input and noise."""
    start = golden["coarse"] + np.float32(loop.sigma_s) * golden["noise"]
    return {
        "encode": loop.encode(golden["input"]),
        "step": loop.step(start, 0),
        "decode": loop.decode(golden["latent"]),
        "image": loop.restore(golden["input"], golden["noise"])[0],
    }


def golden_parity_db(outputs: Mapping[str, np.ndarray], golden: GoldenArrays) -> dict[str, float | None]:
    """Of ``encode`` and ``step`` the SQNR, of ``decode`` and ``image`` the PSNR against the stored 8-bit
    picture, in dB; None where they are equal to the last bit, which no finite number says."""
    found = {name: sqnr_db(golden[array], outputs[name]) for name, array in _SIGNALS.items()}
    found |= {name: psnr_db(golden["output"], outputs[name]) for name in ("decode", "image")}
    return {name: value if math.isfinite(value) else None for name, value in found.items()}


def sqnr_db(reference: np.ndarray, out: np.ndarray) -> float:
    """``10·log10(Σref² / Σ(ref - out)²)`` in dB; infinite where the two are equal."""
    signal = np.square(reference, dtype=np.float64).sum()
    error = np.square(reference - out, dtype=np.float64).sum()
    return math.inf if error == 0 else float(10 * np.log10(signal / error))


def psnr_db(reference: np.ndarray, out: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of values in [0, 1]; infinite where the two are equal."""
    error = np.square(reference - out, dtype=np.float64).mean()
    return math.inf if error == 0 else float(-10 * np.log10(error))


def output_bytes(output: np.ndarray) -> bytes:
    """``output`` as little-endian float32."""
    return np.ascontiguousarray(output, "<f4").tobytes()


def output_sha256(output: np.ndarray) -> str:
    """Digest of :func:`output_bytes`: equal digests on two devices are equal bits."""
    return hashlib.sha256(output_bytes(output)).hexdigest()
