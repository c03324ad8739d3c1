"""What every training run shares: deterministic resumable batches and the Lightning trainer.

Batch ``n`` of a run is a function of ``(seed, n)`` alone, so that a run that was stopped and
resumed sees the very batches it would have seen. A batch that is drawn as a list, to be prepared
later, is divided over the processes of a distributed run, which so train as one process would.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from elir_mobile.core.errors import UserError
from elir_mobile.core.files import written
from elir_mobile.training.checkpoint import read_checkpoint, write_checkpoint

MakeBatch = Callable[[torch.Generator], object]
Prepare = Callable[[list], object]


@dataclass(frozen=True)
class Compute:
    """Where and how a run computes; its result depends on the precision alone."""

    devices: int = 1  # accelerators, or processes on a CPU, of each machine
    nodes: int = 1
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    workers: int = 0  # processes of each device that prepare batches; 0: the training process itself

    def under_torchrun(self) -> Compute:
        """The same, except that under ``torchrun`` its numbers of processes and machines hold."""
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            return self
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        return replace(self, devices=devices, nodes=int(os.environ["WORLD_SIZE"]) // devices)

    @property
    def processes(self) -> int:
        """How many processes a batch is divided over."""
        return self.devices * self.nodes


@dataclass(eq=False)
class SeededBatches(IterableDataset):
    """Endless batches ``make(generator)`` from number ``start`` on.

    The generator is seeded by ``seed`` and the batch's number. With ``prepare``, ``make`` draws a
    list that says what is in the whole batch, and ``prepare`` makes the batch of every
    ``world``-th entry from ``rank`` on.
    """

    make: MakeBatch
    seed: int
    start: int
    prepare: Prepare | None = None
    rank: int = 0
    world: int = 1

    def __iter__(self) -> Iterator[object]:
        worker = get_worker_info()  # the loader takes one batch of each worker in turn
        first, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        for index in count(self.start + first, stride):
            drawn = self.make(torch.Generator().manual_seed(self.seed * 1_000_003 + index))
            if self.prepare is None:
                yield drawn
            else:
                assert isinstance(drawn, list)
                yield self.prepare(drawn[self.rank :: self.world])


class WholeCheckpoints(TorchCheckpointIO):
    """Lightning's checkpoints, written by :func:`elir_mobile.training.checkpoint.write_checkpoint`."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        write_checkpoint(checkpoint, Path(path))


@dataclass(eq=False)
class Strips(Callback):
    """Saves ``strip-STEP.png`` every so many steps, drawn by a function of the module.

    TensorBoard gets it too.
    """

    draw: Callable[[], Image.Image]
    every: int
    run_dir: Path

    def on_train_batch_end(self, trainer: L.Trainer, *unused: object) -> None:
        if trainer.global_step % self.every or not trainer.is_global_zero:
            return
        strip = self.draw()
        with written(self.run_dir / f"strip-{trainer.global_step:06}.png") as staged:
            strip.save(staged)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                pixels = np.asarray(strip)
                logger.experiment.add_image("strip", pixels, trainer.global_step, dataformats="HWC")


def one_cycle(parameters: Iterable[Tensor], lr: float, steps: int) -> dict:
    """AdamW with a one-cycle learning rate (a tenth of the steps rising), as Lightning takes it."""
    optimizer = torch.optim.AdamW(parameters, lr=lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.1)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def fit(
    module: L.LightningModule,
    make_batch: MakeBatch,
    draw: Callable[[], Image.Image],
    run_dir: Path,
    *,
    steps: int,
    seed: int,
    ema_decay: float,
    save_every: int = 100,
    clip: float = 1.0,
    prepare: Prepare | None = None,
    compute: Compute = Compute(),
    callbacks: Sequence[Callback] = (),
) -> None:
    """Train ``module`` for ``steps`` optimizer steps, resuming from ``run_dir/last.ckpt`` if there.

    Checkpoints and a sample strip are written every ``save_every`` steps, the loss terms to
    ``metrics.csv`` and TensorBoard files below ``run_dir``. The module leaves with its weights replaced
    by their exponential moving average.

    Args:
        make_batch, prepare: see :class:`SeededBatches`; several processes need ``prepare``.
        clip: the norm that gradients are scaled down to.
        callbacks: more of them; they run last.

    Raises:
        ValueError: ``steps`` is not a multiple of ``save_every``, so that the end would not be saved.
        UserError: this machine lacks the devices, or no checkpoint of the run is whole.
        SystemExit: it was told to end, with 143.
    """
    if steps % save_every:
        raise ValueError(f"{steps} steps are not a multiple of the {save_every} between checkpoints")
    if compute.processes > 1 and prepare is None:
        raise ValueError("a run on several processes needs batches that can be divided")
    run_dir.mkdir(parents=True, exist_ok=True)
    found, start = read_checkpoint(run_dir / "last.ckpt"), 0
    if found:
        whole, checkpoint = found
        start = checkpoint["global_step"]
        if start >= steps:  # finished before; the saved weights are the averaged ones
            module.load_state_dict(checkpoint["state_dict"])
            return
    version = f"from-{start}"
    try:
        trainer = L.Trainer(
            max_steps=steps,
            accelerator="auto",
            devices=compute.devices,
            num_nodes=compute.nodes,
            strategy="ddp" if compute.processes > 1 else "auto",
            precision=compute.precision,
            logger=[
                CSVLogger(run_dir, name="logs", version=version, flush_logs_every_n_steps=save_every),
                TensorBoardLogger(run_dir, name="tensorboard", version=version, default_hp_metric=False),
            ],
            log_every_n_steps=10,
            default_root_dir=run_dir,
            gradient_clip_val=clip,
            use_distributed_sampler=False,  # the batches divide themselves
            enable_model_summary=False,
            plugins=[WholeCheckpoints()],
            callbacks=[
                EMAWeightAveraging(decay=ema_decay),
                ModelCheckpoint(
                    run_dir,
                    save_last=True,
                    save_top_k=0,
                    every_n_train_steps=save_every,
                    enable_version_counter=False,  # a folder that was moved goes on, too
                ),
                Strips(draw, save_every, run_dir),
                RichProgressBar(refresh_rate=10),
                *callbacks,
            ],
        )
    except MisconfigurationException as error:
        raise UserError(f"this machine cannot train on {compute.devices} devices: {error}") from error
    batches = SeededBatches(make_batch, seed, start, prepare, trainer.global_rank, trainer.world_size)
    loader = DataLoader(batches, batch_size=None, num_workers=compute.workers)
    try:
        trainer.fit(module, loader, ckpt_path=str(whole) if found else None, weights_only=True)
    except SIGTERMException:
        raise SystemExit(128 + signal.SIGTERM) from None  # Lightning's own exit says that all is well
    except UserError as error:  # of a process that prepares batches it comes with a traceback in its words
        raise UserError(
            str(error).strip().splitlines()[-1].rpartition(f"{UserError.__name__}: ")[2]
        ) from error
