"""What every training run shares: deterministic resumable batches and the Lightning trainer.

Batch ``n`` of a run is a function of ``(seed, n)`` alone, so that a run that was stopped and
resumed sees the very batches it would have seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import count
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import CSVLogger
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

MakeBatch = Callable[[torch.Generator], object]


def draw_seed(generator: torch.Generator) -> int:
    """A seed for the noise of one batch."""
    return int(torch.randint(2**31, (), generator=generator))


class SeededBatches(IterableDataset):
    """Endless batches ``make(generator)`` from number ``start`` on.

    The generator is seeded by ``seed`` and the batch's number.
    """

    def __init__(self, make: MakeBatch, seed: int, start: int) -> None:
        self.make = make
        self.seed = seed
        self.start = start

    def __iter__(self) -> Iterator[object]:
        for index in count(self.start):
            yield self.make(torch.Generator().manual_seed(self.seed * 1_000_003 + index))


class Strips(Callback):
    """Saves ``strip-STEP.png`` every so many steps, drawn by a function of the module."""

    def __init__(self, draw: Callable[[], Image.Image], every: int, run_dir: Path) -> None:
        self.draw = draw
        self.every = every
        self.run_dir = run_dir

    def on_train_batch_end(self, trainer: L.Trainer, *unused: object) -> None:
        if trainer.global_step % self.every == 0:
            self.draw().save(self.run_dir / f"strip-{trainer.global_step:06}.png")


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
) -> None:
    """Train ``module`` for ``steps`` optimizer steps, resuming from ``run_dir/last.ckpt`` if there.

    Checkpoints and a sample strip are written every ``save_every`` steps, the loss terms to
    ``metrics.csv`` below ``run_dir``. The module leaves with its weights replaced by their
    exponential moving average.

    Raises:
        ValueError: ``steps`` is not a multiple of ``save_every``, so that the end would not be saved.
    """
    if steps % save_every:
        raise ValueError(f"{steps} steps are not a multiple of the {save_every} between checkpoints")
    run_dir.mkdir(parents=True, exist_ok=True)
    last, start = run_dir / "last.ckpt", 0
    if last.exists():
        checkpoint = torch.load(last, map_location="cpu", weights_only=True)
        start = checkpoint["global_step"]
        if start >= steps:  # finished before; the saved weights are the averaged ones
            module.load_state_dict(checkpoint["state_dict"])
            return
    trainer = L.Trainer(
        max_steps=steps,
        accelerator="auto",
        devices=1,
        logger=CSVLogger(run_dir, name="logs", version=f"from-{start}", flush_logs_every_n_steps=save_every),
        log_every_n_steps=10,
        default_root_dir=run_dir,
        gradient_clip_val=1.0,
        enable_model_summary=False,
        callbacks=[
            EMAWeightAveraging(decay=ema_decay),
            ModelCheckpoint(run_dir, save_last=True, save_top_k=0, every_n_train_steps=save_every),
            Strips(draw, save_every, run_dir),
            RichProgressBar(refresh_rate=10),
        ],
    )
    loader = DataLoader(SeededBatches(make_batch, seed, start), batch_size=None)
    trainer.fit(module, loader, ckpt_path=str(last) if start else None, weights_only=True)
