"""Which file of a bundle each class of device is advised to run, and why.

Quality decides before speed: a file that somebody executed and that holds the bundle's budget goes before one
that does not hold it, and that before one that nobody executed. Among equals :data:`RECOMMENDED` decides,
the faster first. The reasons are sentences made from what the manifest says of a file: who ran it, and what
it was measured to cost.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from elir_mobile.precision import RECIPES


@dataclass(frozen=True)
class Advice:
    """What a class of device runs fastest.

    Attributes:
        title: of the class, for people.
        targets: the faster first.
        precisions: built-in recipes, the faster first.
        because: why the first target is fast there, from what was measured or published (docs/chips.md).
    """

    title: str
    targets: tuple[str, ...]
    precisions: tuple[str, ...]
    because: str


_INT8 = ("w8a8", "mixed", "w8")
# By measurement, so no other table has it: LiteRT's int8 file of the released network takes half of
# ExecuTorch's time (docs/results.md), float16 is slow on most computers, and not delegated in browsers.
_PROCESSOR = (
    "on a processor int8 is faster than float, and LiteRT's int8 file of the released network took half the "
    "time of ExecuTorch's on a computer"
)
RECOMMENDED: dict[str, Advice] = {
    # int16 activations first: they keep 6 dB more of the update than int8 (docs/chips.md).
    "android-npu": Advice(
        "Android, Snapdragon's NPU",
        ("onnx/qnn", "litert/qnn"),
        ("w8a16", "w8a8", "fp16"),
        "the NPU has units made for quantized convolutions, and nothing of the three programs is left to the "
        "processor",
    ),
    "android-gpu": Advice(
        "Android, GPU",
        ("litert/gpu",),
        ("fp16", "fp32"),
        "a GPU has more multipliers than a processor's cores, and a phone's computes in float16 whatever the "
        "file holds",
    ),
    "android": Advice("Android, processor", ("litert", "executorch"), (*_INT8, "fp16", "fp32"), _PROCESSOR),
    "ios": Advice(
        "iPhone",
        ("coreml", "executorch"),
        (*_INT8, "fp16", "fp32"),
        "Core ML alone reaches the Neural Engine",
    ),
    "browser-gpu": Advice(
        "browser with WebGPU",
        ("litert/gpu",),
        ("fp16", "fp32"),
        "a GPU has more multipliers than a processor's cores, and the smaller file is fetched sooner",
    ),
    "browser": Advice(
        "browser",
        ("litert",),
        (*_INT8, "fp32", "fp16"),
        "WebAssembly has int8 kernels, and none for float16, which took four times float32's time",
    ),
    "host": Advice("computer", ("litert", "executorch", "onnx"), (*_INT8, "fp32", "fp16"), _PROCESSOR),
}

# What a file may cost where the user named no budget: the upper ends of the 95 % intervals, and what must be
# left of z_K - z_0, all that the flow does. docs/quantization.md holds every int8 file to the same.
BUDGET: dict[str, float] = {"psnr_drop_db": 0.10, "lpips_rise": 0.005, "update_sqnr_db": 15.0}
_DIGITS = {"update_sqnr_db": 1, "psnr_drop_db": 3, "lpips_rise": 4}
_NAMES = {"update_sqnr_db": "SQNR of the update", "psnr_drop_db": "PSNR drop", "lpips_rise": "LPIPS rise"}


def recommendation(files: Sequence[dict], budget: Mapping[str, float] = BUDGET) -> dict[str, str]:
    """Path of the file that each class of device is advised to run; a class that can run none is left out.

    Of those of equal standing, see :func:`_standing`, a recipe of one's own goes first, since it was made for
    this very network; then the built-in ones as :data:`RECOMMENDED` has them, and last those that it does not
    name. Of one precision the faster target goes first, of one target and class the file that the manifest
    names first.

    Args:
        files: entries of the manifest.
        budget: see :data:`BUDGET`.
    """
    return {kind: ranked[0]["path"] for kind, ranked in _ranked(files, budget).items()}


def reasons(files: Sequence[dict], budget: Mapping[str, float] = BUDGET) -> dict[str, str]:
    """For each class of :func:`recommendation` a sentence: who ran the file, what it costs, why it is fast
    there, and which faster one it goes before."""
    said = {}
    for kind, ranked in _ranked(files, budget).items():
        chosen, fastest = ranked[0], min(ranked, key=lambda entry: _speed(entry, RECOMMENDED[kind]))
        advice = RECOMMENDED[kind]
        said[kind] = f"{_name(chosen)}: {_evidence(chosen, budget)}"
        if chosen["target"] == advice.targets[0]:
            said[kind] += f"; {advice.because}"
        if fastest is not chosen:
            said[kind] += f"; it goes before {_name(fastest)}: {_evidence(fastest, budget)}"
    return said


def _ranked(files: Sequence[dict], budget: Mapping[str, float]) -> dict[str, list[dict]]:
    """The files that each class of device can run, the advised one first; a class without any is left out."""
    found = {}
    for kind, advice in RECOMMENDED.items():
        known = [entry for entry in files if entry["target"] in advice.targets]
        if known:
            found[kind] = sorted(known, key=lambda entry: (_standing(entry, budget), *_speed(entry, advice)))
    return found


def _standing(entry: dict, budget: Mapping[str, float]) -> int:
    """0: executed, and holds the budget; 1: executed, its pictures not judged; 2: executed, does not hold it;
    3: nobody executed it."""
    if not _executed(entry):
        return 3
    if entry.get("quality") is None:
        return 1
    return 2 if _shortfalls(entry["quality"], budget) else 0


def _executed(entry: dict) -> bool:
    """Whether a run on the golden vectors has left its figures; what nobody ran has budgets alone."""
    return any("host_db" in of_output for of_output in entry.get("parity", {}).values())


def _speed(entry: dict, advice: Advice) -> tuple[int, int]:
    """Place of a file among those of its class, the fastest first."""
    precision = entry["precision"]
    if precision in advice.precisions:
        place = advice.precisions.index(precision)
    else:
        place = len(advice.precisions) if precision in RECIPES else -1
    return place, advice.targets.index(entry["target"])


def _shortfalls(quality: Mapping[str, float | None], budget: Mapping[str, float]) -> list[str]:
    """The figures of ``quality`` that do not hold ``budget``; what was not measured is not among them."""
    short = []
    for name, limit in budget.items():
        value = quality.get(name)
        if name == "update_sqnr_db":
            holds = (math.inf if value is None else value) >= limit  # None: equal to the last bit
        else:
            high = quality.get(f"{name}_high")
            surely = value if high is None else high  # one photograph has no interval
            holds = surely is None or surely <= limit
        if not holds:
            short.append(name)
    return short


def _name(entry: dict) -> str:
    return f"{entry['target']} {entry['precision']}"


def _evidence(entry: dict, budget: Mapping[str, float]) -> str:
    """Who ran a file, and what it was measured to cost."""
    if not _executed(entry):
        return "nobody executed it"
    ran = f"{entry['executed_by']} ran it" if "executed_by" in entry else "it was executed"
    quality = entry.get("quality")
    if quality is None:
        return f"{ran}, its pictures were not judged"
    short = _shortfalls(quality, budget)
    figures = []
    for name, digits in _DIGITS.items():
        value, high, unit = quality[name], quality.get(f"{name}_high"), " dB" if name.endswith("_db") else ""
        if value is None and name != "update_sqnr_db":
            continue
        text = f"{_NAMES[name]} " + ("exact" if value is None else f"{value:.{digits}f}{unit}")
        text += "" if high is None else f" (at most {high:.{digits}f})"
        if name in short:
            bound = "at least" if name == "update_sqnr_db" else "at most"
            text += f", where {bound} {budget[name]:g} is asked"
        figures.append(text)
    pairs, photographs = quality["pairs"], quality["photographs"]
    return f"{ran}: {', '.join(figures)} on {pairs} pairs of {photographs} photographs"
