"""Speed of training against the plain eager loop: ``python -m benchmarks.training_throughput``.

Both train the same overparametrized network with the same loss on the same batches, in one run,
their steps alternating. *Plain*: the 3×3 → 1×1 pairs computed as two convolutions, so that the wide
activations exist, as upstream does; the teacher run on every batch; backward, clipping, AdamW and
average of the weights in a bare loop. *Ours*: what ``python -m elir_mobile.train`` runs, from
Lightning's start of the step to its end, callbacks and all; the teacher's latents come from the
cache, as they do from the second epoch on. Making the batches is in neither time.
Writes ``benchmarks/results/training-throughput.json``.
"""

from __future__ import annotations

import copy
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated
from unittest.mock import patch

import lightning as L
import torch
import typer
from lightning.pytorch.callbacks import Callback
from PIL import Image
from rich.console import Console
from torch import Tensor, nn

from benchmarks.released import RESULTS
from elir_mobile.core.errors import exits_with_2
from elir_mobile.core.files import write_json
from elir_mobile.data.pairs import bundled
from elir_mobile.harness.protocol import machine_facts
from elir_mobile.models.autoencoder import Encoder
from elir_mobile.models.restorer import Architecture, Restorer
from elir_mobile.tasks import ALIGNED_FACE, get_task
from elir_mobile.training.folder import Batch, Item, Pictures, TaughtTraining
from elir_mobile.training.lcfm import LcfmConfig, lcfm_loss
from elir_mobile.training.loop import fit

TASK, LR, EMA_DECAY, CLIP = "bfr", 1e-4, 0.999, 1.0
TRAINED = ("enc", "mmse", "fmir")


@dataclass(frozen=True)
class Setting:
    """What is trained."""

    arch: Architecture
    size: int
    batch: int
    loss: LcfmConfig = LcfmConfig()


SMALL = Architecture(
    enc_width=32, dec_width=32, coarse_width=32, hid_channels=32, n_mid_blocks=2, t_emb_dim=32
)
SETTINGS = {
    "small, upstream's loss": Setting(SMALL, 128, 4),
    "small, with both economies": Setting(
        SMALL, 128, 8, LcfmConfig(sigma_s=0.1, flow_repeats=4, decoded_images=2)
    ),
    "released bfr": Setting(get_task(TASK).arch, 256, 2),
}


def wide_pair(x: Tensor, first: nn.Module, second: nn.Module) -> Tensor:
    """A pair as it is written: the activations between are four times as wide."""
    return second(first(x))


class PlainLoop:
    """The plain loop's own copy of the network, and its step."""

    def __init__(self, student: Restorer, teacher: Encoder, config: LcfmConfig) -> None:
        self.student, self.teacher, self.config = copy.deepcopy(student), copy.deepcopy(teacher), config
        self.parameters = [p for p in self.student.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=LR)
        self.average = [p.detach().clone() for p in self.parameters]

    def step(self, batch: Batch) -> None:
        """One optimizer step."""
        with (
            patch("elir_mobile.models.coarse.conv_pair", wide_pair),
            patch("elir_mobile.models.velocity.conv_pair", wide_pair),
        ):
            with torch.no_grad():
                z_hq = self.teacher(batch.x_hq)
            loss = lcfm_loss(self.student, batch.x_lq, batch.x_hq, z_hq, self.config, batch.seeds)["loss"]
            self.optimizer.zero_grad()
            loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, CLIP)
        self.optimizer.step()
        with torch.no_grad():
            for mean, current in zip(self.average, self.parameters, strict=True):
                mean.lerp_(current, 1 - EMA_DECAY)


@dataclass
class Alternating(Callback):
    """After each of our steps, the plain loop's on the same batch; seconds of both, wall and processor."""

    plain: PlainLoop
    seconds: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: {"ours": [], "plain": []})

    def on_train_batch_start(self, *unused: object) -> None:
        self.started = now()

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: object, batch: Batch, index: int
    ) -> None:
        self.seconds["ours"].append(since(self.started))
        started = now()
        self.plain.step(batch)
        self.seconds["plain"].append(since(started))


def now() -> tuple[float, float]:
    """Wall clock and this process's processor time, seconds."""
    return time.perf_counter(), time.process_time()


def since(start: tuple[float, float]) -> tuple[float, float]:
    """Both, since ``start``."""
    wall, processor = now()
    return wall - start[0], processor - start[1]


def compare(setting: Setting, warmups: int, runs: int, run_dir: Path) -> dict:
    """Median seconds a step of both, and their ratio."""
    torch.manual_seed(0)
    student, teacher = Restorer(setting.arch, overparametrized=True), Encoder(setting.arch.enc_width)
    config = setting.loss
    module = TaughtTraining(
        student, teacher, config, steps=warmups + runs, lr=LR, trained=TRAINED, cache_bytes=10**9
    )
    paths = [path for part in ("calibration", "evaluation") for path in bundled(ALIGNED_FACE, part)]
    pictures = Pictures(paths, get_task(TASK), setting.size, setting.batch, crops=False)

    def batch(generator: torch.Generator) -> list[Item]:
        """Always the same images, so that all latents are known after the first step."""
        drawn = enumerate(pictures.draw(generator))
        return [item._replace(image=index % len(paths), mirrored=False) for index, item in drawn]

    alternating = Alternating(PlainLoop(student, teacher, config))
    fit(
        module,
        batch,
        lambda: Image.new("RGB", (1, 1)),
        run_dir,
        steps=warmups + runs,
        seed=0,
        ema_decay=EMA_DECAY,
        save_every=warmups + runs,
        clip=CLIP,
        prepare=pictures.prepare,
        callbacks=[alternating],
    )
    median = {
        name: torch.tensor(times[warmups:]).median(0).values.tolist()
        for name, times in alternating.seconds.items()
    }
    return {
        "setting": asdict(setting),
        "wall_s": {name: values[0] for name, values in median.items()},
        "processor_s": {name: values[1] for name, values in median.items()},
        "speedup_wall": median["plain"][0] / median["ours"][0],
        "speedup_processor": median["plain"][1] / median["ours"][1],
    }


app = typer.Typer(add_completion=False)


@app.command()
@exits_with_2
def main(
    released: Annotated[bool, typer.Option(help="The released network too: some minutes.")] = False,
    runs: Annotated[int, typer.Option(help="Timed steps of each.", min=1)] = 5,
    warmups: Annotated[int, typer.Option(help="Steps before them.", min=1)] = 1,
    threads: Annotated[int, typer.Option(help="Processor threads.", min=1)] = 1,
) -> None:
    """Time both loops and write the JSON."""
    torch.set_num_threads(threads)
    console = Console()
    rows = {}
    for name, setting in list(SETTINGS.items())[: 3 if released else 2]:
        with tempfile.TemporaryDirectory() as folder:
            rows[name] = row = compare(setting, warmups, runs, Path(folder))
        console.print(
            f"{name}: {row['speedup_wall']:.2f}× by the clock, "
            f"{row['speedup_processor']:.2f}× in processor time"
        )
    result = {
        "kind": "throughput",
        "machine": machine_facts(),
        "threads": threads,
        "warmups": warmups,
        "runs": runs,
        "rows": rows,
    }
    write_json(RESULTS / "training-throughput.json", result)


if __name__ == "__main__":
    app()
