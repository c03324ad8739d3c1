"""Exact rewrites that let a mobile runtime take the whole graph.

Each function changes a module in place into one that computes the same thing (float32 error at
most 1e-5) out of operators that XNNPACK, LiteRT and Core ML have. Layer names do not change, so
that a recipe written for the reference network fits the rewritten one. A :class:`Form` is the set of
them that one kind of target takes best.

The remaining rewrite, collapsing overparametrized convolutions, happens when a checkpoint is
loaded (``elir_mobile.checkpoints.collapse_state_dict``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from elir_mobile.models.velocity import LUnet, resnet_blocks, run_unet, time_embedding


class GroupNorm4d(nn.Module):
    """GroupNorm over (1, C, H, W) that never leaves four dimensions.

    ``nn.GroupNorm`` lowers to a five-operator decomposition that XNNPACK refuses. Here the groups
    become the channel axis of a (1, G, C/G·H, W) view, and mean and variance are plain means
    over its last two axes. The variance is of centred values: ``E[x²] - E[x]²`` would cancel.
    """

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.groups = norm.num_groups
        self.eps = norm.eps
        self.weight = nn.Parameter(norm.weight.detach().reshape(1, -1, 1, 1), requires_grad=False)
        self.bias = nn.Parameter(norm.bias.detach().reshape(1, -1, 1, 1), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        grouped = x.view(n, self.groups, c // self.groups * h, w)
        centred = grouped - grouped.mean((2, 3), keepdim=True)
        variance = (centred * centred).mean((2, 3), keepdim=True)
        normed = centred * torch.rsqrt(variance + self.eps)
        return normed.view(n, c, h, w) * self.weight + self.bias


class GroupNormConv(nn.Module):
    """GroupNorm over (1, C, H, W) whose large tensors keep their shape.

    The view of :class:`GroupNorm4d` mixes channels and rows, so that a channels-last runtime
    transposes before and after it. Here mean and variance are taken for each channel, and constant
    1×1 convolutions on (1, C, 1, 1) average them over the group and spread them again. Both are
    grouped convolutions: C constants each, not C².
    """

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        channels, groups = norm.num_channels, norm.num_groups
        self.eps = norm.eps
        self.gather = nn.Conv2d(channels, groups, 1, groups=groups, bias=False).requires_grad_(False)
        self.gather.weight.fill_(groups / channels)
        self.spread = nn.Conv2d(groups, channels, 1, groups=groups, bias=False).requires_grad_(False)
        self.spread.weight.fill_(1)
        self.weight = nn.Parameter(norm.weight.detach().reshape(1, -1, 1, 1), requires_grad=False)
        self.bias = nn.Parameter(norm.bias.detach().reshape(1, -1, 1, 1), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        centred = x - self.spread(self.gather(x.mean((2, 3), keepdim=True)))
        variance = self.gather((centred * centred).mean((2, 3), keepdim=True))
        return centred * (self.spread(torch.rsqrt(variance + self.eps)) * self.weight) + self.bias


class GroupNormGpu(GroupNormConv):
    """GroupNorm over (1, C, H, W) for a phone's GPU, which computes in float16 and not all operators.

    LiteRT's GPU accelerator binds the weights of :class:`GroupNormConv`'s grouped convolutions as an empty
    buffer and returns zeros: here they are dense. It computes channels in fours, and the reciprocal root of a
    channel that is not there is infinite: here it comes after the groups are spread over their channels. In
    float16 (65504 at most) a sum of squares overflows: here one axis is summed at a time, of values that were
    divided by its length before.
    """

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__(norm)
        channels, groups = norm.num_channels, norm.num_groups
        member = torch.eye(groups).repeat_interleave(channels // groups, dim=1).view(groups, channels, 1, 1)
        self.gather = nn.Conv2d(channels, groups, 1, bias=False).requires_grad_(False)
        self.gather.weight.data = member * (groups / channels)
        self.spread = nn.Conv2d(groups, channels, 1, bias=False).requires_grad_(False)
        self.spread.weight.data = member.transpose(0, 1).contiguous()

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]

        def mean(divided: Tensor) -> Tensor:
            """Group means of what was divided by the width: (1, C, 1, 1)."""
            rows = divided.sum(3, keepdim=True) * (1 / height)
            return self.spread(self.gather(rows.sum(2, keepdim=True)))

        centred = x - mean(x * (1 / width))
        root = centred * width**-0.5
        return centred * (torch.rsqrt(mean(root * root) + self.eps) * self.weight) + self.bias


def rewrite_group_norms(module: nn.Module, form: Callable[[nn.GroupNorm], nn.Module]) -> None:
    """Replace every ``nn.GroupNorm`` below ``module`` by its ``form``."""
    for name, child in module.named_children():
        if isinstance(child, nn.GroupNorm):
            setattr(module, name, form(child))
        else:
            rewrite_group_norms(child, form)


# Rows: taps of the 4-wide transposed kernel; columns: the taps of the 3-wide kernel that land on
# it when a nearest 2× upsampling comes before. Output 2i sees x[i-1] through tap 0 and x[i]
# through taps 1 and 2; output 2i+1 sees x[i] through taps 0 and 1 and x[i+1] through tap 2.
_TAPS = torch.tensor([[0.0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])


def transposed_kernel(kernel: Tensor) -> Tensor:
    """Weight (I, O, 4, 4) of the transposed convolution for the 3×3 kernel (O, I, 3, 3) after upsampling."""
    taps = _TAPS.to(kernel.device).double()
    return torch.einsum("ah,oihw,bw->ioab", taps, kernel.double(), taps).to(kernel.dtype)


def transposed_from_upsampled(conv: nn.Module) -> nn.ConvTranspose2d:
    """The stride-2 transposed convolution equal to nearest 2× upsampling and then ``conv``.

    16 multiplications for each input pixel and channel pair instead of 36.
    """
    if not isinstance(conv, nn.Conv2d):
        raise ValueError(f"only a convolution can follow the upsampling, got {conv}")
    if conv.kernel_size != (3, 3) or conv.stride != (1, 1) or conv.padding != (1, 1) or conv.groups != 1:
        raise ValueError(f"only a plain 3×3 convolution can follow the upsampling, got {conv}")
    out = nn.ConvTranspose2d(
        conv.in_channels, conv.out_channels, 4, stride=2, padding=1, bias=conv.bias is not None
    )
    out.weight.data = transposed_kernel(conv.weight.detach())
    if conv.bias is not None and out.bias is not None:
        out.bias.data = conv.bias.detach().clone()
    return out.requires_grad_(False)


def rewrite_upsampling(layers: nn.Sequential) -> None:
    """Merge each nearest ``nn.Upsample`` of a sequence into the convolution after it."""
    for index, layer in enumerate(layers):
        if isinstance(layer, nn.Upsample):
            layers[index] = nn.Identity()
            layers[index + 1] = transposed_from_upsampled(layers[index + 1])


def clip_by_relus(x: Tensor) -> Tensor:
    """Clip to [0, 1] with two ReLUs, exact behind an int8 convolution too.

    ExecuTorch fuses a clamp into the convolution and rounds 1 to the nearest int8 step, which can lie
    above 1. Zero is always a step.
    """
    return 1.0 - relu(1.0 - relu(x))


def clip_by_minimum(x: Tensor) -> Tensor:
    """Clip to [0, 1] in a form that LiteRT converts correctly and XNNPACK takes.

    litert-torch 0.9.4 converts ``1 - x`` to ``x - 1``, and a clamp to RELU_0_TO_1, which stays outside
    the delegate.
    """
    return (relu(x) - 1.0).clamp(max=0.0) + 1.0


def clip_by_fused_relu(x: Tensor) -> Tensor:
    """Clip to [0, 1] in a form that LiteRT's GPU accelerator takes behind a transposed convolution.

    It has neither RELU_0_TO_1 nor a TRANSPOSE_CONV that holds a ReLU (version 4); here the ReLU is part of
    the last addition.
    """
    return relu((x - 1.0).clamp(max=0.0) + 1.0)


@dataclass(frozen=True)
class Form:
    """The exact rewrites that one kind of target takes best.

    Attributes:
        group_norm: makes what stands in for a GroupNorm.
        clip: of the image to [0, 1].
        upsampling: rewrites the nearest upsamplings of the decoder's sequence in place.
    """

    group_norm: Callable[[nn.GroupNorm], nn.Module]
    clip: Callable[[Tensor], Tensor]
    upsampling: Callable[[nn.Sequential], None]

    def to_json(self) -> dict[str, str]:
        """The name of each rewrite, for the manifest."""
        return {field.name: getattr(self, field.name).__name__ for field in fields(self)}


CPU = Form(GroupNorm4d, clip_by_relus, rewrite_upsampling)
CPU_CHANNELS_LAST = Form(GroupNormConv, clip_by_minimum, rewrite_upsampling)
GPU = Form(GroupNormGpu, clip_by_fused_relu, rewrite_upsampling)


def time_biases(unet: LUnet, times: Tensor) -> Tensor:
    """Every block's time bias at ``times`` (N,) in [0, 1]: (N, ΣC)."""
    emb = unet.time_mlp(time_embedding(times, unet.t_emb_dim))
    return torch.cat([block.mlp(emb) for block in resnet_blocks(unet)], dim=1)


@torch.no_grad()
def timestep_table(unet: LUnet, steps: int) -> Tensor:
    """Every block's time bias at every timestep: (steps, ΣC), row k for t = k/steps.

    Replaces the time embedding, its MLP and each block's projection, which depend on nothing
    else: with K fixed they are constants.
    """
    return time_biases(unet, torch.arange(steps, dtype=torch.float32) / steps)


class TableUnet(nn.Module):
    """LUnet that takes its time biases as an input row instead of computing them.

    Args:
        unet: consumed; its submodules move into this module under their own names.
    """

    def __init__(self, unet: LUnet) -> None:
        super().__init__()
        widths = [block.conv2d.out_channels for block in resnet_blocks(unet)]
        self.places = list(pairwise(accumulate(widths, initial=0)))
        self.first_proj = unet.first_proj
        self.down_blocks = unet.down_blocks
        self.mid_blocks = unet.mid_blocks
        self.up_blocks = unet.up_blocks
        self.final_block = unet.final_block
        self.final_proj = unet.final_proj
        for block in resnet_blocks(self):
            del block.mlp

    def forward(self, z: Tensor, row: Tensor) -> Tensor:
        """Latent (1, C, h, w) and a table row (1, ΣC, 1, 1) → velocity, the latent's shape."""
        return run_unet(self, z, (row[:, start:stop] for start, stop in self.places))
