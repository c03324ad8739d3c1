"""The commands that the harness disturbs, with networks so small that one takes seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from elir_mobile.checkpoints import load_weights, save_weights
from elir_mobile.tasks import PHOTO, get_task
from tests.conftest import SIGMA_S, SIZE, STEPS, write_micro_bundle, write_pictures

TINY_WEIGHTS = Path(__file__).parents[1] / "fixtures" / "upstream-tiny.pth"


@dataclass(frozen=True)
class Command:
    """One command line.

    Attributes:
        name: of the command.
        arguments: after ``elir-mobile``, for a folder to write into.
        varies: patterns of written files that no two runs write alike: clocks, and what was timed.
    """

    name: str
    arguments: Callable[[Path], list[object]]
    varies: tuple[str, ...] = ()


def inputs(folder: Path) -> None:
    """Weights and pictures in ``folder``."""
    bfr = get_task("bfr")
    network, _ = load_weights(str(TINY_WEIGHTS), bfr)
    weights, facts = folder / "tiny.safetensors", {"steps": STEPS, "sigma_s": SIGMA_S}
    save_weights(network, weights, task="bfr", size=SIZE, **facts, dtype=torch.float32)
    save_weights(network, folder / "denoising.safetensors", task="denoising", size=32, domain=PHOTO, **facts)
    write_pictures(folder / "pictures", 4)


def bundle_of(folder: Path) -> None:
    """A bundle in ``folder``, of its :func:`inputs`."""
    pixels = np.asarray(Image.open(folder / "pictures" / "0.png").resize((SIZE, SIZE)), np.float32) / 255
    degraded = [torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous()]
    artifacts = (("litert", "fp32"), ("litert", "w8"))
    write_micro_bundle(folder / "bfr-micro", artifacts, degraded, folder / "tiny.safetensors")


def commands(given: Path, address: str) -> list[Command]:
    """All of them, on the :func:`inputs` in ``given`` and a bundle there.

    Args:
        address: of a server that has a checkpoint there, and is slow.
    """
    tiny, denoising = given / "tiny.safetensors", given / "denoising.safetensors"
    pictures, bundle = given / "pictures", given / "bfr-micro"
    ptq = ("--task", "bfr", "--weights", tiny, "--images", pictures, "--threads", 1, "--precision", "fp32")
    denoise = ("--task", "denoising", "--weights", denoising, "--threads", 1)
    report = ("report/*", "manifest.json")
    run = ("logs/*", "tensorboard/*", "*.ckpt")

    def line(name: str, *arguments: object, at: str = "", varies: tuple[str, ...] = ()) -> Command:
        return Command(name, lambda out: [name.partition(" ")[0], *arguments, out / at], varies)

    return [
        line("quantize", *ptq, "--out", varies=report),
        line(  # of the runtime whose int8 file is made soonest
            "search", *ptq, "--targets", "onnx", "--few", "--max-psnr-drop", 5, "--out", varies=report
        ),
        line(
            "qat", "--task", "bfr", "--weights", tiny, "--images", pictures, "--evaluate", pictures,
            "--steps", 50, "--batch", 1, "--out", varies=(*run, "report.json"),
        ),
        line(
            "train", "--task", "denoising", "--data", pictures, "--teacher", denoising, "--init", denoising,
            "--size", 32, "--batch", 2, "--steps", 20, "--save-every", 10, "--workers", 0, "--out",
            varies=run,
        ),
        line(
            "distill", "--task", "bfr", "--weights", tiny, "--data", pictures, "--minutes", 0.02,
            "--threads", 1, "--out", varies=("*",),
        ),
        line("restore", *denoise, pictures),
        line("restore --bundle", "--task", "bfr", "--anyway", "--bundle", bundle, pictures),
        line("restore from an address", "--task", "denoising", "--weights", address, pictures),
        line("evaluate", pictures, *denoise, "--resamples", 100, "--json", at="report.json"),
        line(
            "measure", bundle, "--weights", tiny, "--images", pictures, "--runs", 2, "--warmups", 0,
            "--threads", 1, "--out", varies=("report.*",),
        ),
        line("push", bundle, "--android-folder"),
    ]  # fmt: skip
