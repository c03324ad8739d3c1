"""What a restoration should take on a phone's chip, by the published rate of another network on it.

An estimate and no measurement: our multiply-accumulates over the rate at which that chip does those of a
published network, which has other layers. Convolutions alone are counted, on both sides.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from elir_mobile.harness.charts import number
from elir_mobile.harness.roofline import work_of
from elir_mobile.models.autoencoder import Form
from elir_mobile.tasks import get_task

SIDE = 512
# Form of the autoencoder and K: as released, and as our networks are trained.
NETWORKS: tuple[tuple[Form, int], ...] = (("taesd", 5), ("half", 5), ("half", 2))


def x4plus_macs(side: int) -> int:
    """Multiply-accumulates of Real-ESRGAN x4plus on a picture of ``side`` pixels: an RRDBNet of 64 channels,
    23 blocks of 3 dense blocks of 5 convolutions, growing by 32 (https://arxiv.org/abs/2107.10833)."""
    dense = sum((64 + 32 * i) * 32 for i in range(4)) + (64 + 32 * 4) * 64
    low = 3 * 64 + 23 * 3 * dense + 64 * 64
    # Two upsamplings with a convolution each, and two more at four times the side.
    pixels = 9 * side * side
    return pixels * (low + 4 * 64 * 64 + 16 * (2 * 64 * 64 + 64 * 3))


@dataclass(frozen=True)
class Published:
    """A published time of a network on a chip.

    Attributes:
        chip: for people.
        arithmetic: of the network there.
        network: what ran, with its size.
        macs: multiply-accumulates of its convolutions.
        ms: of one picture.
        source: where the time is published, and how the multiply-accumulates were counted if not here.
    """

    chip: str
    arithmetic: str
    network: str
    macs: float
    ms: float
    source: str


# Times of the TFLite files, all 1,025 (float) and 1,972 (w8a8) layers on the NPU.
_AI_HUB = (
    "quic/ai-hub-models, qai_hub_models/models/real_esrgan_x4plus/perf.yaml at 052dc1f3753a: TFLite, "
    "QAIRT 2.41, on QCS8550 (Snapdragon 8 Gen 2's sibling for other devices), Galaxy S24 and Galaxy S25"
)
_X4PLUS = ("Real-ESRGAN x4plus, 128 pixels", float(x4plus_macs(128)))
_FACE = (
    "google-ai-edge/litert-samples, compiled_model_api/face_restoration/README.md at 1a68da670b4c; GMAC "
    "counted on TencentARC/GFPGAN's GFPGANv1Clean at 7552a7791caa by torch.utils.flop_counter"
)
_NAFNET = (
    "google-ai-edge/litert-samples, compiled_model_api/image_restoration/conversion/README.md at "
    "29d02213ffb5; GMAC counted layer by layer from megvii-research/NAFNet's NAFNet_arch.py at 01a4c86733cd"
)
PUBLISHED = (
    Published("Snapdragon 8 Gen 2, NPU", "w8a8", *_X4PLUS, 18.649, _AI_HUB),
    Published("Snapdragon 8 Gen 2, NPU", "float16", *_X4PLUS, 66.756, _AI_HUB),
    Published("Snapdragon 8 Gen 3, NPU", "w8a8", *_X4PLUS, 14.328, _AI_HUB),
    Published("Snapdragon 8 Gen 3, NPU", "float16", *_X4PLUS, 49.001, _AI_HUB),
    Published("Snapdragon 8 Elite, NPU", "w8a8", *_X4PLUS, 11.844, _AI_HUB),
    Published("Snapdragon 8 Elite, NPU", "float16", *_X4PLUS, 38.135, _AI_HUB),
    Published("Mali GPU of a Pixel 8a", "float16", "GFPGAN 1.4, 512 pixels", 197.8e9, 1200, _FACE),
    Published("Mali GPU of a Pixel 8a", "float16", "NAFNet-SIDD width 32, 256 pixels", 16.0e9, 46, _NAFNET),
)


def restoration_macs(form: Form, steps: int, side: int = SIDE) -> float:
    """Multiply-accumulates of one restoration by the released network, with that form of the autoencoder."""
    arch = replace(get_task("bfr").arch, autoencoder=form)
    macs = {name: sum(layers.values()) for name, layers in work_of(json.dumps(asdict(arch)), side)[0].items()}
    return macs["encode"] + steps * macs["step"] + macs["decode"]


def estimated_ms(macs: float, published: Published) -> float:
    """Milliseconds that ``macs`` take at the rate of ``published``."""
    return published.ms * macs / published.macs


def estimate_table(published: Sequence[Published] = PUBLISHED) -> str:
    """A line for each published time: its rate, and what our networks should take by it."""
    ours = [(f"{form} K = {steps}", restoration_macs(form, steps)) for form, steps in NETWORKS]
    heads = [f"{name}, {number(macs / 1e9, 1)} GMAC: ms" for name, macs in ours]
    lines = [
        f"| chip | arithmetic | published network | GMAC | ms | TMAC/s | {' | '.join(heads)} |",
        f"|---|---|---|--:|--:|--:|{'--:|' * len(ours)}",
    ]
    sources: dict[str, int] = {}
    for row in published:
        mark = sources.setdefault(row.source, len(sources) + 1)
        times = " | ".join(f"≈ {number(estimated_ms(macs, row), 0)}" for _, macs in ours)
        lines.append(
            f"| {row.chip} | {row.arithmetic} | {row.network} [{mark}] | {number(row.macs / 1e9, 1)} "
            f"| {number(row.ms, 1)} | {number(row.macs / row.ms / 1e9, 2)} | {times} |"
        )
    notes = [f"[{mark}] {source}." for source, mark in sources.items()]
    said = (
        f"**Estimates**, not measurements: the released network at {SIDE} pixels, published ms × our GMAC / "
        "published GMAC."
    )
    return "\n\n".join(["\n".join(lines), said, *notes])
