"""How near each program is to what this machine's convolutions can reach through the same runtime.

After Williams et al. (2009), with one roof: throughput in multiply-accumulates a second. The roof is the
best of a sweep of plain convolution chains, measured by ``python -m benchmarks.roofline`` and kept for each
machine in the cache folder. A program's own work is counted from its network: the convolutions that its
file really executes.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from elir_mobile.core.files import cache_dir
from elir_mobile.harness.protocol import machine_facts
from elir_mobile.models.restorer import Architecture, Restorer
from elir_mobile.models.roles import layer_roles
from elir_mobile.precision import FP32, W8A8, recipe_of

COMMAND = "python -m benchmarks.roofline"
# Nearest 2× upsampling before a 3×3 convolution is exported as one 4×4 transposed convolution of stride 2:
# 4 taps an output pixel instead of 9.
FUSED_UPSAMPLING = 4 / 9


def layer_macs(restorer: Restorer, size: int) -> dict[str, dict[str, float]]:
    """Multiply-accumulates of each program's layers on one image of ``size`` pixels, by name.

    Convolutions only: the time embedding is a table in the exported step, and norms and activations
    are no multiply-accumulates of this kind.
    """
    counted: dict[str, float] = {}
    upsampled: set[int] = set()
    names = {module: name for name, module in restorer.named_modules()}

    def count(module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        if isinstance(module, nn.ConvTranspose2d):
            taps = module.weight.numel() // module.in_channels
            counted[names[module]] = inputs[0].numel() * taps
        elif isinstance(module, nn.Conv2d):
            taps = module.weight.numel() // module.out_channels
            counted[names[module]] = out.numel() * taps * (FUSED_UPSAMPLING if id(module) in upsampled else 1)

    layers = list(restorer.dec.layers)
    upsampled |= {
        id(after)
        for before, after in zip(layers, layers[1:], strict=False)
        if isinstance(before, nn.Upsample)
    }
    handles = [m.register_forward_hook(count) for m in restorer.modules() if isinstance(m, _CONVS)]
    latent = torch.empty(restorer.arch.latent_shape(size, size), device="meta")
    calls = {
        "encode": lambda: restorer.encode(torch.empty(1, 3, size, size, device="meta")),
        "step": lambda: restorer.velocity(latent, torch.empty(1, device="meta")),
        "decode": lambda: restorer.decode(latent),
    }
    macs = {}
    with torch.no_grad():
        for name, call in calls.items():
            counted.clear()
            call()
            macs[name] = dict(counted)
    for handle in handles:
        handle.remove()
    return macs


_CONVS = (nn.Conv2d, nn.ConvTranspose2d)


@lru_cache(maxsize=8)
def work_of(architecture: str, size: int) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """:func:`layer_macs` and roles of an architecture given as JSON; no weight is ever allocated."""
    facts: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(architecture).items()
    }
    with torch.device("meta"):
        restorer = Restorer(Architecture(**facts)).eval()
        return layer_macs(restorer, size), layer_roles(restorer)


def machine_key(threads: int) -> str:
    """Names this machine, its runtimes' versions and a thread count."""
    facts = machine_facts()
    stable = {key: facts[key] for key in ("system", "cpu", "cores", "cpu_flags", "versions")}
    text = json.dumps({**stable, "threads": threads}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def cache_path(threads: int) -> Path:
    """Where this machine's roof is kept."""
    return cache_dir() / "roofline" / f"{machine_key(threads)}.json"


@dataclass(frozen=True)
class Roof:
    """Programs' work, and the best throughput of each target and kind of arithmetic.

    Attributes:
        macs: multiply-accumulates of each program's layers.
        roles: of every layer.
        best: (target, ``fp32`` or ``w8a8``) → GMAC/s; empty if the roof was not measured here.
    """

    macs: dict[str, dict[str, float]]
    roles: dict[str, str]
    best: dict[tuple[str, str], float]

    def of(self, target: str, recipe: dict | None, program: str, median_ms: float | None) -> dict:
        """``gmacs``, ``gmacs_per_s`` and ``roof_share`` of a program in a file of ``recipe``.

        A program some of whose layers multiply integers is held against the roof of integers: what the
        others give away shows in its share.

        Args:
            recipe: as the manifest has it; None, where it has none, has no roof.
        """
        gmacs = sum(self.macs[program].values()) / 1e9
        reached = None if not median_ms else gmacs / (median_ms / 1e3)
        roof = None
        if recipe is not None:
            chosen = recipe_of(recipe).on(self.roles)
            integer = any(chosen.precision_of(layer).integer for layer in self.macs[program])
            roof = self.best.get((target, (W8A8 if integer else FP32).name))
        share = None if reached is None or roof is None else reached / roof
        return {"gmacs": gmacs, "gmacs_per_s": reached, "roof_gmacs_per_s": roof, "roof_share": share}


def roof_facts(manifest: dict, threads: int) -> Roof:
    """The roof for a bundle on this machine."""
    macs, roles = work_of(json.dumps(manifest["model"]["architecture"]), manifest["size"])
    return Roof(macs, roles, read_roof(cache_path(threads)))


def read_roof(path: Path) -> dict[tuple[str, str], float]:
    """The best throughput of each (target, precision) in a file that the sweep wrote; empty if there is
    none, or none that can be read."""
    try:
        rows = json.loads(path.read_text())["rows"]
        best: dict[tuple[str, str], float] = {}
        for row in rows:
            key = (str(row["target"]), str(row["precision"]))
            best[key] = max(best.get(key, 0.0), float(row["gmacs_per_s"]))
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return best


def furthest(rows: list[dict]) -> dict | None:
    """The program that reaches the smallest share of its roof: row's names, program and figures."""
    known = [
        {"target": row["target"], "precision": row["precision"], "program": name, **program}
        for row in rows
        for name, program in row["programs"].items()
        if program.get("roof_share") is not None
    ]
    return min(known, key=lambda program: program["roof_share"]) if known else None
