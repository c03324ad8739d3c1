"""One stage of training, as a flat loop: Muon, warm-up and cosine, moving average, checkpoints.

A stage has a budget in minutes of processor time (:func:`busy_seconds`), not in steps, so that one budget
suits any machine, and other work on it takes nothing away. Step ``n`` draws from generators seeded by the
stage's seed and ``n`` alone. A stage that was stopped goes on from its last checkpoint; one whose budget
was raised goes on from where its schedule then is.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from elir_mobile.core.files import written
from elir_mobile.training.checkpoint import read_checkpoint, write_checkpoint
from elir_mobile.training.muon import optimizers

CLIP = 1.0  # norm that gradients are scaled down to
FINAL_LR = 0.02  # at the end, as a share of the peak
LAST = "last.pt"

Loss = Callable[[np.random.Generator, float], dict[str, Tensor]]
Show = Callable[[Path], str]


def busy_seconds() -> float:
    """Seconds that this process has computed on each of its threads; with an accelerator, a clock."""
    if torch.cuda.is_available():
        return time.monotonic()
    return time.process_time() / torch.get_num_threads()


@dataclass(frozen=True)
class Plan:
    """How long and how fast a stage trains."""

    minutes: float
    lr: float
    seed: int
    ema: float = 0.999
    warmup: int = 50  # steps
    save_minutes: float = 1.0
    show_minutes: float = 5.0


def learning_rate(plan: Plan, step: int, progress: float) -> float:
    """Linear warm-up, then a cosine over the budget; ``progress`` is the share of it that is spent."""
    cosine = FINAL_LR + (1 - FINAL_LR) * 0.5 * (1 + math.cos(math.pi * min(progress, 1)))
    return plan.lr * min(1, (step + 1) / plan.warmup) * cosine


def averaged(folder: Path) -> tuple[dict[str, Tensor], float] | None:
    """A stage's averaged weights so far and the minutes that it has trained."""
    found = read_checkpoint(folder / LAST)
    return None if found is None else (found[1]["average"], found[1]["seconds"] / 60)


def write_state(state: dict[str, Tensor], minutes: float, path: Path) -> None:
    """Averaged weights in float16, from which :func:`train` can go on elsewhere."""
    halved = {name: tensor.detach().to("cpu", torch.float16).contiguous() for name, tensor in state.items()}
    with written(path) as staged:
        staged.write_bytes(save(halved, {"minutes": f"{minutes:.2f}"}))


def read_state(path: Path) -> tuple[dict[str, Tensor], float]:
    """What :func:`write_state` wrote, in float32."""
    with safe_open(path, framework="pt") as file:
        minutes = float((file.metadata() or {})["minutes"])
    return {name: tensor.float() for name, tensor in load_file(path).items()}, minutes


def train(
    net: nn.Module,
    loss: Loss,
    show: Show,
    folder: Path,
    plan: Plan,
    *,
    start: Path | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Train the parameters of ``net`` that want gradients, until the budget is spent.

    ``net`` leaves with the moving average of its weights.

    Args:
        loss: (generator, share of the budget spent) → terms, with their sum under ``loss``. Torch's own
            generator is seeded too.
        show: called every ``show_minutes`` and at the end with the average in ``net``; writes pictures
            to the path it is given and returns a line of figures.
        folder: of the checkpoints, strips and figures of this stage.
        start: weights to begin with where ``folder`` has no checkpoint, with the minutes already spent.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parameters = [p for p in net.parameters() if p.requires_grad]
    learners = optimizers(parameters, plan.lr)
    step, seconds = 0, 0.0
    _, checkpoint = read_checkpoint(folder / LAST) or (None, None)
    if checkpoint is not None:
        net.load_state_dict(checkpoint["net"])
        for learner, state in zip(learners, checkpoint["optimizers"], strict=True):
            learner.load_state_dict(state)
        step, seconds = checkpoint["step"], checkpoint["seconds"]
    elif start is not None:
        state, minutes = read_state(start)
        net.load_state_dict(state)
        seconds = 60 * minutes
    average = {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}
    if checkpoint is not None:
        for name, tensor in average.items():
            tensor.copy_(checkpoint["average"][name])
    tracked = [average[name] for name, p in net.named_parameters() if p.requires_grad]

    def save() -> None:
        content = {
            "net": net.state_dict(),
            "average": average,
            "optimizers": [learner.state_dict() for learner in learners],
            "step": step,
            "seconds": seconds,
        }
        write_checkpoint(content, folder / LAST)

    def show_average() -> None:
        current = {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}
        net.load_state_dict(average)
        with torch.no_grad():
            line = show(folder / f"strip-{step:06}.png")
        net.load_state_dict(current)
        with (folder / "figures.txt").open("a") as file:
            file.write(f"{seconds / 60:.1f} min, step {step}: {line}\n")
        say(f"{folder.name} {seconds / 60:.1f} min, step {step}: {line}")

    budget = plan.minutes * 60
    saved = shown = told = seconds
    trained = seconds < budget
    while seconds < budget:
        began = busy_seconds()
        progress = seconds / budget
        for learner in learners:
            learner.zero_grad()
            for group in learner.param_groups:
                group["lr"] = learning_rate(plan, step, progress)
        torch.manual_seed(plan.seed * 1_000_003 + step)
        terms = loss(np.random.default_rng([plan.seed, step]), progress)
        terms["loss"].backward()
        nn.utils.clip_grad_norm_(parameters, CLIP)
        for learner in learners:
            learner.step()
        step += 1
        decay = min(plan.ema, step / (step + 20))
        with torch.no_grad():
            torch._foreach_lerp_(tracked, [p.detach() for p in parameters], 1 - decay)
        seconds += busy_seconds() - began
        if seconds - told > 10:
            told = seconds
            figures = ", ".join(f"{name} {value.item():.4f}" for name, value in terms.items())
            say(f"{folder.name} {seconds / 60:.1f} of {plan.minutes:g} min, step {step}: {figures}")
        if seconds - saved > plan.save_minutes * 60:
            saved = seconds
            save()
        if seconds - shown > plan.show_minutes * 60:
            shown = seconds
            show_average()
    if trained or checkpoint is None:  # what was started with stays with the run, too
        save()
    if trained:
        show_average()
    net.load_state_dict(average)
