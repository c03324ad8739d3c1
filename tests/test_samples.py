"""Calibration sees what the device will see: every step of every image's float trajectory."""

from __future__ import annotations

import torch

from elir_mobile.models.restorer import seeded_noise
from elir_mobile.precision import RECIPES
from export.executorch import quantize
from export.samples import collect_samples, digest
from tests.conftest import SIGMA_S, STEPS


def test_every_step_index_of_every_image_is_recorded(programs, degraded) -> None:
    samples = collect_samples(programs, degraded, seed=3)
    assert [len(samples[name]) for name in ("encode", "step", "decode")] == [3, 3 * STEPS, 3]
    for index, (_, row) in enumerate(samples["step"]):
        assert torch.equal(row, programs.row(index % STEPS))


def test_samples_are_the_float_trajectory(programs, restorer, degraded) -> None:
    samples = collect_samples(programs, degraded, seed=3)
    for index, image in enumerate(degraded):
        noise = seeded_noise(programs.latent_shape, 3 + index)
        z = restorer.encode(image) + SIGMA_S * noise
        for k in range(STEPS):
            assert torch.allclose(samples["step"][index * STEPS + k][0], z, atol=1e-3)
            z = z + restorer.velocity(z, torch.tensor([k / STEPS])) / STEPS
        assert torch.allclose(samples["decode"][index][0], z, atol=1e-3)


def test_observers_cover_the_range_of_all_steps(programs, degraded) -> None:
    """The input scale of the first quantized layer must span the latents of every step."""
    samples = collect_samples(programs, degraded, seed=3)
    graph = quantize(
        programs.modules["step"],
        programs.example_inputs["step"],
        RECIPES["w8a8"].on(programs.roles),
        samples["step"],
    )
    first = next(
        node
        for node in graph.graph.nodes
        if node.op == "call_function"
        and "quantize_per_tensor" in str(node.target)
        and node.args[0].name == "latent"
    )
    scale = first.args[1]
    seen = torch.cat([z.flatten() for z, _ in samples["step"]])
    only_first = torch.cat([samples["step"][i * STEPS][0].flatten() for i in range(len(degraded))])
    span, span_first = (seen.max() - seen.min()).item(), (only_first.max() - only_first.min()).item()
    assert span > span_first  # otherwise the next line could not tell
    # The histogram observer may clip a little of the tails, but not down to one step's range.
    assert 255 * scale > 0.5 * (span + span_first)


def test_digest_tells_one_calibration_from_another(programs, degraded) -> None:
    first = digest(collect_samples(programs, degraded, seed=3))
    assert first == digest(collect_samples(programs, degraded, seed=3))
    assert first != digest(collect_samples(programs, degraded, seed=4))
