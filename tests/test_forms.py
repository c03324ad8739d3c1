"""Each rewrite computes what it replaces, on random and on the bundled trained weights."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from elir_mobile.checkpoints import load_weights
from elir_mobile.core.statistics import sqnr_db
from elir_mobile.models.restorer import Restorer, sample, seeded_noise
from elir_mobile.models.velocity import resnet_blocks, time_embedding
from elir_mobile.tasks import get_task
from export.forms import (
    CPU,
    CPU_CHANNELS_LAST,
    GPU,
    GroupNorm4d,
    GroupNormConv,
    GroupNormGpu,
    TableUnet,
    clip_by_fused_relu,
    clip_by_minimum,
    clip_by_relus,
    rewrite_group_norms,
    rewrite_upsampling,
    timestep_table,
    transposed_from_upsampled,
)
from export.programs import build_programs
from tests.conftest import SIZE

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def trained() -> Restorer:
    return load_weights("demo", get_task("bfr"))[0]


@pytest.fixture(params=["random", "trained"])
def net(request, restorer, trained) -> Restorer:
    return restorer if request.param == "random" else trained


def latents(net: Restorer) -> Tensor:
    return seeded_noise(net.arch.latent_shape(SIZE, SIZE), 2)


def relative(out: Tensor, reference: Tensor) -> float:
    """Largest error against the largest value, or against 1 where values are small."""
    return ((out - reference).abs().max() / reference.abs().max().clamp(min=1)).item()


GROUP_NORMS = (GroupNorm4d, GroupNormConv, GroupNormGpu)


@pytest.mark.parametrize("form", GROUP_NORMS)
@pytest.mark.parametrize(("channels", "height", "width"), [(32, 8, 8), (64, 5, 7), (128, 4, 4)])
def test_form_equals_group_norm(form, channels: int, height: int, width: int) -> None:
    torch.manual_seed(0)
    norm = nn.GroupNorm(32, channels)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = torch.randn(1, channels, height, width) * 3 + 100  # a large mean shows cancellation
    assert relative(form(norm)(x), norm(x)) <= 1e-4
    x = x - 100
    assert relative(form(norm)(x), norm(x)) <= TOLERANCE


@pytest.mark.parametrize("form", GROUP_NORMS)
def test_group_norms_of_the_network(net: Restorer, form) -> None:
    rewritten = copy.deepcopy(net.fmir)
    rewrite_group_norms(rewritten, form)
    assert not any(isinstance(m, nn.GroupNorm) for m in rewritten.modules())
    z, emb = latents(net), time_embedding(torch.tensor([0.4]), net.arch.t_emb_dim)
    assert relative(rewritten(z, emb), net.fmir(z, emb)) <= TOLERANCE


def test_gpu_norm_does_not_overflow_in_float16() -> None:
    """Every operator in float16, sums too, on a plane of 256 × 256 with activations of 200."""
    torch.manual_seed(0)
    norm = nn.GroupNorm(4, 8)
    form = GroupNormGpu(norm)
    x = (torch.rand(1, 8, 256, 256) * 2 - 1) * 200
    assert x.abs().max() > 199
    largest = []

    class Half(TorchDispatchMode):
        def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
            out = operator(*args, **(kwargs or {}))
            if isinstance(out, Tensor) and out.is_floating_point():
                out = out.half().float()
                largest.append(float(out.abs().max()))
            return out

    with Half():
        out = form(x)
    assert 1000 < max(largest) < 65504
    assert sqnr_db(norm(x).detach().numpy(), out.numpy()) > 50
    with Half():
        assert torch.isinf((x * x).sum((2, 3))).all()  # what the form avoids


@pytest.mark.parametrize("bias", [True, False])
def test_transposed_convolution_equals_upsampling_and_convolution(bias: bool) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(5, 6, 3, padding=1, bias=bias)
    x = torch.randn(2, 5, 7, 4)
    expected = conv(nn.functional.interpolate(x, scale_factor=2, mode="nearest"))
    assert relative(transposed_from_upsampled(conv)(x), expected) <= TOLERANCE


@pytest.mark.parametrize(
    "conv", [nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3, padding=1, groups=2)]
)
def test_other_convolutions_after_upsampling_are_refused(conv: nn.Conv2d) -> None:
    with pytest.raises(ValueError, match="plain 3×3"):
        transposed_from_upsampled(conv)


def test_upsampling_of_the_decoder(net: Restorer) -> None:
    rewritten = copy.deepcopy(net.dec)
    rewrite_upsampling(rewritten.layers)
    assert not any(isinstance(m, nn.Upsample) for m in rewritten.modules())
    assert relative(rewritten(latents(net)), net.dec(latents(net))) <= TOLERANCE


def test_timestep_table_equals_the_time_mlp(net: Restorer) -> None:
    steps = 5
    table = timestep_table(net.fmir, steps)
    z = latents(net)
    for k in range(steps):
        emb = time_embedding(torch.tensor([k / steps]), net.arch.t_emb_dim)
        expected = net.fmir(z, emb)
        rewritten = TableUnet(copy.deepcopy(net.fmir))
        assert relative(rewritten(z, table[k].view(1, -1, 1, 1)), expected) <= TOLERANCE


def test_table_has_one_column_for_each_block_channel(net: Restorer) -> None:
    widths = [block.conv2d.out_channels for block in resnet_blocks(net.fmir)]
    assert timestep_table(net.fmir, 3).shape == (3, sum(widths))


@pytest.mark.parametrize("form", [CPU, CPU_CHANNELS_LAST, GPU])
def test_programs_equal_the_network(net: Restorer, degraded, form) -> None:
    programs = build_programs(net, size=SIZE, steps=4, sigma_s=0.1, form=form)
    noise = seeded_noise(programs.latent_shape, 1)
    out, _ = sample(
        programs.modules["encode"],
        lambda z, k: programs.modules["step"](z, programs.row(k)),
        programs.modules["decode"],
        degraded[0],
        noise,
        steps=4,
        sigma_s=0.1,
    )
    assert (out - net(degraded[0], noise, steps=4, sigma_s=0.1)).abs().max() <= TOLERANCE


@pytest.mark.parametrize("clip", (clip_by_relus, clip_by_minimum, clip_by_fused_relu))
def test_clip_forms_equal_a_clamp_and_never_leave_0_to_1(clip) -> None:
    x = torch.cat((torch.linspace(-1.5, 2.5, 4001), torch.tensor([-1e6, -1e-9, 1e-9, 1 + 1e-6, 1e6])))
    clipped = clip(x)
    assert clipped.min() >= 0 and clipped.max() <= 1
    assert (clipped - x.clamp(0, 1)).abs().max() < 1e-7


def test_building_programs_leaves_the_network_as_it_was(restorer) -> None:
    before = copy.deepcopy(restorer.state_dict())
    build_programs(restorer, size=SIZE, steps=2, sigma_s=0.1)
    after = restorer.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("size", [0, -16, 50])
def test_unsuitable_sizes_are_refused(restorer, size: int) -> None:
    with pytest.raises(ValueError, match="multiple of 16"):
        build_programs(restorer, size=size, steps=2, sigma_s=0.1)
