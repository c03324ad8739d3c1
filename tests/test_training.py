"""The training loss against its formulas written out, and runs that resume where they stopped."""

from __future__ import annotations

import copy
import errno
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

from elir_mobile import metrics
from elir_mobile.core.errors import UserError
from elir_mobile.models.restorer import Restorer
from elir_mobile.models.velocity import time_embedding
from elir_mobile.training.autoencoder import reconstruction_loss, spread_loss
from elir_mobile.training.lcfm import (
    Batch,
    LcfmConfig,
    LcfmTraining,
    consistency_loss,
    draw_noise,
    landing,
    lcfm_loss,
    path_point,
)
from elir_mobile.training.loop import Compute, SeededBatches, Strips, fit
from quant.student import log_mse
from tests.conftest import TINY

SIDE = 32
SEEDS = torch.tensor([1, 2, 3])


def triple(seed: int = 0, count: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    clean = torch.rand(count, 3, SIDE, SIDE, generator=generator)
    degraded = (clean + 0.1 * torch.randn(clean.shape, generator=generator)).clamp(0, 1)
    return degraded, clean, torch.randn(count, 16, SIDE // 8, SIDE // 8, generator=generator)


@pytest.mark.parametrize("steps", [1, 3, 5])
def test_consistency_loss_is_the_formula_image_by_image(steps: int) -> None:
    config = LcfmConfig(steps=steps, dt=0.2, alpha=0.3, sigma_min=1e-3)
    generator = torch.Generator().manual_seed(0)
    source, target = (torch.randn(8, 2, 3, 3, generator=generator) for _ in range(2))
    t = 0.8 * torch.rand(8, 1, 1, 1, generator=generator)

    def velocity(z: Tensor, time: Tensor) -> Tensor:
        return torch.sin(z) * (1 + time[:, None, None, None])

    loss, landed, ends = consistency_loss(velocity, source, target, t, config)
    consistency, velocities = 0.0, 0.0
    for i in range(8):
        time = t[i].item()
        end = next(e / steps for e in range(1, steps + 1) if time <= e / steps + 1e-7)
        assert ends[i].item() == pytest.approx(end)

        def on_path(s: float, i: int = i) -> Tensor:
            return (1 - (1 - config.sigma_min) * s) * source[i] + s * target[i]

        v_t = torch.sin(on_path(time)) * (1 + time)
        v_r = torch.sin(on_path(time + 0.2)) * (1 + time + 0.2)
        ours = on_path(time) + (end - time) * v_t
        goal = on_path(time + 0.2) + (end - time - 0.2) * v_r if time + 0.2 < end else on_path(end)
        assert torch.allclose(landed[i], ours, atol=1e-5)
        consistency += ((ours - goal) ** 2).mean().item() / 8
        velocities += ((v_t - v_r) ** 2).mean().item() / 8
    assert loss.item() == pytest.approx(consistency + 0.3 * velocities, rel=1e-4)


def test_both_branches_of_the_target_occur() -> None:
    """With K = 5 and dt = 0.05 some times stay in their segment and some leave it."""
    t = 0.95 * torch.rand(1000, generator=torch.Generator().manual_seed(0))
    ends = (t * 5).ceil() / 5
    inside = (t + 0.05 < ends).float().mean().item()
    assert 0.6 < inside < 0.9


def test_path_runs_from_source_to_target() -> None:
    source, target = torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)
    points = [
        path_point(source, target, torch.tensor(t).view(1, 1, 1, 1), 0.0).item() for t in (0.0, 0.25, 1.0)
    ]
    assert points == pytest.approx([0, 0.25, 1])


def test_landing_steps_from_the_sampled_path_and_learns_from_its_last_step_alone() -> None:
    torch.manual_seed(0)
    source, gain = torch.randn(2, 4, 3, 3), torch.tensor(0.5, requires_grad=True)

    def velocity(z: Tensor, t: Tensor) -> Tensor:
        return gain * z + t.view(-1, 1, 1, 1)

    landed = landing(velocity, source, 2, 5)
    with torch.no_grad():
        one = source + (0.5 * source + 0.0) / 5
        two = one + (0.5 * one + 0.2) / 5
    torch.testing.assert_close(landed, two + 0.6 * (0.5 * two + 0.4))
    landed.sum().backward()
    torch.testing.assert_close(gain.grad, 0.6 * two.sum())


def test_second_velocity_gets_no_gradient() -> None:
    scale = torch.ones((), requires_grad=True)
    times = []

    def velocity(z: Tensor, time: Tensor) -> Tensor:
        times.append((time[0].item(), torch.is_grad_enabled()))
        return z * scale

    z = torch.ones(1, 1, 1, 1)
    consistency_loss(velocity, z, 2 * z, torch.full((1, 1, 1, 1), 0.1), LcfmConfig())[0].backward()
    assert times == [(pytest.approx(0.1), True), (pytest.approx(0.15), False)]
    assert scale.grad is not None


def literal_terms(net: Restorer, degraded: Tensor, clean: Tensor, z_hq: Tensor, config: LcfmConfig, seeds):
    """The formulas of upstream's ``l2_fm_mse_loss`` and ``l2_cfm_mse_loss``, image by image."""
    mse, flow, decoded = [], [], []

    def velocity(z: Tensor, time: float) -> Tensor:
        return net.fmir(z, time_embedding(torch.tensor([time]), TINY.t_emb_dim))

    for i, seed in enumerate(seeds.tolist()):
        target = z_hq[i : i + 1]
        z_mmse = net.mmse(net.enc(degraded[i : i + 1]))
        mse.append(((z_mmse - target) ** 2).mean().item())
        generator = torch.Generator().manual_seed(seed)
        noises = torch.randn((config.flow_repeats, *target.shape[1:]), generator=generator)
        times = torch.rand(config.flow_repeats, 1, 1, 1, generator=generator).flatten().tolist()
        for repeat, (noise, uniform) in enumerate(zip(noises, times, strict=True)):
            source = z_mmse + config.sigma_s * noise

            def on_path(time: float, source: Tensor = source, target: Tensor = target) -> Tensor:
                return (1 - (1 - config.sigma_min) * time) * source + time * target

            if config.objective == "flow":
                v = velocity(on_path(uniform), uniform)
                flow.append(((v - (target - (1 - config.sigma_min) * source)) ** 2).mean().item())
                final = on_path(uniform) + (1 - uniform) * v
            else:
                t = (1 - config.dt) * uniform
                end = next(e / config.steps for e in range(1, config.steps + 1) if t <= e / config.steps)
                v, v_next = velocity(on_path(t), t), velocity(on_path(t + config.dt), t + config.dt)
                landed = on_path(t) + (end - t) * v
                goal = on_path(end)
                if t + config.dt < end:
                    goal = on_path(t + config.dt) + (end - t - config.dt) * v_next
                velocities = ((v - v_next) ** 2).mean()
                flow.append((((landed - goal) ** 2).mean() + config.alpha * velocities).item())
                final = landed + (1 - end) * velocity(landed, end)
            if repeat == 0 and i < (config.decoded_images or len(seeds)):
                decoded.append(((net.dec(final) - clean[i]) ** 2).mean().item())
    return {"mse": np.mean(mse), config.objective: np.mean(flow), "decoded": np.mean(decoded)}


@pytest.mark.parametrize("coarse", [True, False])
@pytest.mark.parametrize(
    "config",
    [
        LcfmConfig(steps=5),
        LcfmConfig(steps=1, dt=0.2),
        LcfmConfig(steps=3, dt=0.3, alpha=0.5, beta=0.25, sigma_s=0.4, sigma_min=0.01),
        LcfmConfig(steps=5, alpha=0.0, beta=1.0, flow_repeats=3, decoded_images=2),
        LcfmConfig(objective="flow"),
        LcfmConfig(objective="flow", beta=0.25, sigma_s=0.4, sigma_min=0.01, flow_repeats=2),
    ],
    ids=["lcfm", "no-segments", "constants", "economies", "flow", "flow-constants"],
)
def test_every_loss_is_its_formula_written_out(
    overparametrized: Restorer, config: LcfmConfig, coarse: bool
) -> None:
    net = overparametrized
    if not coarse:
        net = copy.deepcopy(net)
        net.mmse = nn.Identity()  # type: ignore[assignment]
    seeds = torch.tensor([5, 2**31 - 1, 17])
    terms = lcfm_loss(net, *triple(), config, seeds)
    expected = literal_terms(net, *triple(), config, seeds)
    assert set(terms) == {"loss", *expected}
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value, rel=1e-4), name
    total = (
        expected["mse"] + (1 - config.beta) * expected[config.objective] + config.beta * expected["decoded"]
    )
    assert terms["loss"].item() == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize("objective", ["consistency", "flow"])
def test_without_beta_nothing_is_decoded(overparametrized: Restorer, objective) -> None:
    net = copy.deepcopy(overparametrized)
    net.dec = None  # type: ignore[assignment]
    config = LcfmConfig(objective=objective, beta=0.0)
    terms = lcfm_loss(net, *triple(), config, SEEDS)
    assert terms["loss"].item() == pytest.approx(terms["mse"].item() + terms[objective].item(), rel=1e-6)


def training(trained: tuple[str, ...] = ("enc", "mmse", "fmir")) -> LcfmTraining:
    torch.manual_seed(0)
    student, teacher = Restorer(TINY, overparametrized=True), Restorer(TINY).enc
    return LcfmTraining(student, teacher, LcfmConfig(steps=2), steps=4, lr=1e-3, trained=trained)


def draw_seed(generator: torch.Generator) -> int:
    return int(torch.randint(2**31, (), generator=generator))


def batch_of(count: int, seed: int = 0) -> Batch:
    degraded, clean, _ = triple(seed, count)
    return Batch(degraded, clean, torch.arange(count), seed + SEEDS[:count])


@pytest.mark.parametrize("trained", [("mmse", "fmir"), ("fmir",)])
def test_the_named_parts_alone_are_trained(trained: tuple[str, ...]) -> None:
    """An encoder that is frozen gets no gradient, and the estimator behind it does."""
    module = training(trained)
    module.training_step(batch_of(3), 0).backward()
    reached = {name.split(".")[0] for name, p in module.student.named_parameters() if p.grad is not None}
    assert reached == {*trained}


def test_what_an_image_draws_depends_on_its_seed_alone() -> None:
    seeds = torch.tensor([3, 1, 2])
    noise, times = draw_noise(torch.Size((6, 2, 4, 4)), seeds)
    for i in range(3):
        alone = draw_noise(torch.Size((2, 2, 4, 4)), seeds[i : i + 1])
        assert torch.equal(noise[i::3], alone[0])
        assert torch.equal(times[i::3], alone[1])
    assert len(set(times.flatten().tolist())) == 6


def test_loss_is_the_weighted_sum_of_its_terms(overparametrized) -> None:
    config = LcfmConfig(steps=2, beta=0.25)
    terms = lcfm_loss(overparametrized, *triple(), config, SEEDS)
    expected = terms["mse"] + 0.75 * terms["consistency"] + 0.25 * terms["decoded"]
    assert terms["loss"].item() == pytest.approx(expected.item(), rel=1e-6)
    degraded, _, z_hq = triple()
    assert terms["mse"].item() == pytest.approx(
        F.mse_loss(overparametrized.encode(degraded), z_hq).item(), rel=1e-5
    )


def test_coarse_estimator_learns_from_the_mse_term_alone(overparametrized) -> None:
    """The flow starts from a detached estimate: its terms must not reach encoder or estimator."""
    net = copy.deepcopy(overparametrized).requires_grad_(True)
    net.dec.requires_grad_(False)
    terms = lcfm_loss(net, *triple(), LcfmConfig(steps=2), SEEDS)
    (terms["consistency"] + terms["decoded"]).backward()
    assert all(p.grad is None for part in (net.enc, net.mmse, net.dec) for p in part.parameters())
    assert all(p.grad is not None for p in net.fmir.parameters())


def test_economies_change_the_draws_not_the_weights_of_terms(overparametrized) -> None:
    config = LcfmConfig(steps=2, flow_repeats=3, decoded_images=1)
    terms = lcfm_loss(overparametrized, *triple(), config, SEEDS)
    plain = lcfm_loss(overparametrized, *triple(), LcfmConfig(steps=2), SEEDS)
    assert terms["mse"].item() == plain["mse"].item()
    assert terms["consistency"].item() == pytest.approx(plain["consistency"].item(), rel=0.5)
    assert terms["decoded"].isfinite()


def test_reconstruction_loss_sees_blur_in_edges() -> None:
    edge = torch.zeros(1, 1, 8, 8)
    edge[..., 4:] = 1
    blurred = F.avg_pool2d(F.pad(edge, (1, 1, 0, 0), mode="replicate"), (1, 3), 1)
    assert reconstruction_loss(edge, edge) == 0
    assert reconstruction_loss(blurred, edge) > 2 * F.l1_loss(blurred, edge)


def test_batches_depend_on_seed_and_index_alone() -> None:
    def numbers(start: int, seed: int) -> list[int]:
        return list(islice(SeededBatches(draw_seed, seed, start), 4))

    assert numbers(0, 1)[2:] == numbers(2, 1)[:2]
    assert numbers(0, 1) != numbers(0, 2)


def test_processes_and_workers_divide_the_batches_without_changing_them() -> None:
    def draw(generator: torch.Generator) -> list[int]:
        return torch.randint(1000, (6,), generator=generator).tolist()

    whole = list(islice(SeededBatches(draw, 1, 0), 4))
    parts = [list(islice(SeededBatches(draw, 1, 0, list, rank, 3), 4)) for rank in range(3)]
    for step, batch in enumerate(whole):
        assert sorted(batch) == sorted(part for rank in parts for part in rank[step])
        assert [rank[step] for rank in parts] == [batch[0::3], batch[1::3], batch[2::3]]
    loader = DataLoader(SeededBatches(draw, 1, 0, list), batch_size=None, num_workers=2)
    assert list(islice(iter(loader), 4)) == whole


def test_several_processes_refuse_batches_that_cannot_be_divided(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="divided"):
        fit(
            training(),
            draw_seed,
            lambda: Image.new("RGB", (1, 1)),
            tmp_path,
            steps=2,
            seed=0,
            ema_decay=0.5,
            save_every=1,
            compute=Compute(devices=2),
        )


def train(run_dir: Path, steps: int) -> dict[str, Tensor]:
    module = training()

    def batch(generator: torch.Generator) -> Batch:
        return batch_of(2, draw_seed(generator))

    degraded, clean, _ = triple()
    fit(
        module,
        batch,
        lambda: module.draw(degraded, clean),
        run_dir,
        steps=steps,
        seed=5,
        ema_decay=0.5,
        save_every=2,
    )
    return module.student.state_dict()


def test_a_resumed_run_ends_where_the_whole_run_ends(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", 4)
    train(tmp_path / "parts", 2)
    parts = train(tmp_path / "parts", 4)
    finished = train(tmp_path / "parts", 4)  # a run that is over gives its result again
    assert whole.keys() == parts.keys()
    for name in whole:
        assert torch.allclose(whole[name], parts[name], atol=1e-6), name
        assert torch.equal(parts[name], finished[name]), name
    torch.manual_seed(0)
    untrained = Restorer(TINY, overparametrized=True).state_dict()
    moved = {name.split(".")[0] for name in whole if not torch.equal(whole[name], untrained[name])}
    assert moved == {"enc", "mmse", "fmir"}  # the decoder is frozen
    for step in (2, 4):
        with Image.open(tmp_path / "whole" / f"strip-{step:06}.png") as strip:
            assert strip.size == (4 * SIDE + 6, 3 * SIDE + 4)


def test_a_strip_that_cannot_be_written_whole_is_not_there(tmp_path: Path) -> None:
    class Broken:
        def save(self, path: Path) -> None:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")

    earlier = tmp_path / "strip-000004.png"
    earlier.write_bytes(b"whole")
    trainer = SimpleNamespace(global_step=4, is_global_zero=True, loggers=[])
    with pytest.raises(UserError, match="No space left"):
        Strips(Broken, 2, tmp_path).on_train_batch_end(trainer)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [(earlier.name, b"whole")]


def test_log_mse_is_the_psnr_of_each_image() -> None:
    degraded, clean, _ = triple()
    decibels = metrics.psnr(degraded, clean).mean().item()
    assert log_mse(degraded, clean).item() == pytest.approx(-decibels / 10 * np.log(10), abs=1e-3)


def test_spread_loss_is_zero_at_mean_0_and_spread_1_alone() -> None:
    torch.manual_seed(0)
    z = torch.randn(8, 4, 50, 50)
    assert spread_loss(z).item() < 1e-3
    assert spread_loss(z + 0.5).item() == pytest.approx(0.25, abs=0.02)
    assert spread_loss(3 * z).item() == pytest.approx(4, abs=0.1)
