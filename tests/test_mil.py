"""The interpreter's operators: against PyTorch, and against coremltools' own constant folding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from elir_mobile.core.errors import UserError
from elir_mobile.runtimes.coreml import CONSTEXPR_OPS, OPS, Function

pytest.importorskip("coremltools", reason="needs the extra [coreml]")

from coremltools import target
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import Program, types
from coremltools.converters.mil.mil.types.type_int import np_int4_dtype

X = torch.randn(1, 4, 6, 6, generator=torch.Generator().manual_seed(0))
Y = torch.randn(1, 4, 6, 6, generator=torch.Generator().manual_seed(1))
WEIGHT = torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(2))
BACK = torch.randn(4, 8, 4, 4, generator=torch.Generator().manual_seed(3))  # of a transposed convolution
BIAS = torch.randn(8, generator=torch.Generator().manual_seed(4))
FOUR = torch.rand(4, generator=torch.Generator().manual_seed(5)) + 0.5


def build(body: Callable[..., Any], *shapes: tuple[int, ...], dtype: Any = types.fp32) -> Program:
    """A program of the inputs x, y, …; nothing is folded or fused."""
    specs = [mb.TensorSpec(shape, dtype) for shape in shapes]
    arguments = ("x", "y")[: len(shapes)]
    scope = {"body": body}
    # The builder reads the inputs' names from the function's signature.
    exec(f"def main({', '.join(arguments)}):\n    return body({', '.join(arguments)})", scope)
    return mb.program(input_specs=specs, opset_version=target.iOS18)(scope["main"])


def run(program: Program, *values: Tensor) -> Tensor:
    return Function(program.functions["main"])(dict(zip(("x", "y"), values, strict=False)))[0]


CASES: dict[str, tuple[Callable[..., Any], Callable[[Tensor], Tensor]]] = {
    "add": (lambda x: mb.add(x=x, y=Y.numpy()), lambda x: x + Y),
    "sub": (lambda x: mb.sub(x=Y.numpy(), y=x), lambda x: Y - x),
    "mul": (lambda x: mb.mul(x=x, y=Y.numpy()), lambda x: x * Y),
    "real_div": (lambda x: mb.real_div(x=x, y=Y.numpy()), lambda x: x / Y),
    "relu": (lambda x: mb.relu(x=x), torch.relu),
    "silu": (lambda x: mb.silu(x=x), F.silu),
    "sigmoid": (lambda x: mb.sigmoid(x=x), torch.sigmoid),
    "tanh": (lambda x: mb.tanh(x=x), torch.tanh),
    "square": (lambda x: mb.square(x=x), lambda x: x * x),
    "sqrt": (lambda x: mb.sqrt(x=mb.square(x=x)), torch.abs),
    "rsqrt": (
        lambda x: mb.rsqrt(x=mb.square(x=x), epsilon=np.float32(0.5)),
        lambda x: (x * x + 0.5).rsqrt(),
    ),
    "clip": (
        lambda x: mb.clip(x=x, alpha=np.float32(-0.5), beta=np.float32(0.25)),
        lambda x: x.clamp(-0.5, 0.25),
    ),
    "cast": (lambda x: mb.cast(x=x, dtype="fp16"), lambda x: x.half().float()),
    "reshape": (lambda x: mb.reshape(x=x, shape=(1, 2, 12, 6)), lambda x: x.view(1, 2, 12, 6)),
    "transpose": (lambda x: mb.transpose(x=x, perm=(0, 2, 3, 1)), lambda x: x.permute(0, 2, 3, 1)),
    "reduce_mean": (
        lambda x: mb.reduce_mean(x=x, axes=[2, 3], keep_dims=True),
        lambda x: x.mean((2, 3), keepdim=True),
    ),
    "reduce_mean_flat": (
        lambda x: mb.reduce_mean(x=x, axes=[-1], keep_dims=False),
        lambda x: x.mean(-1),
    ),
    "slice_by_index": (
        lambda x: mb.slice_by_index(
            x=x, begin=[0, 1, 0, 5], end=[0, 3, 6, 6], stride=[1, 1, 2, 1],
            begin_mask=[True, False, True, False], end_mask=[True, False, False, False],
        ),
        lambda x: x[:, 1:3, :6:2, 5:6],
    ),
    "concat": (lambda x: mb.concat(values=(x, Y.numpy(), x), axis=1), lambda x: torch.cat((x, Y, x), 1)),
    "upsample_nearest_neighbor": (
        lambda x: mb.upsample_nearest_neighbor(x=x, scale_factor_height=2, scale_factor_width=2),
        lambda x: F.interpolate(x, scale_factor=2, mode="nearest"),
    ),
    "linear": (
        lambda x: mb.linear(x=x, weight=WEIGHT[:, 0, 0, :].repeat(1, 2).numpy(), bias=BIAS.numpy()),
        lambda x: F.linear(x, WEIGHT[:, 0, 0, :].repeat(1, 2), BIAS),
    ),
    "batch_norm": (
        lambda x: mb.batch_norm(
            x=x, mean=FOUR.numpy(), variance=FOUR.numpy(), gamma=FOUR.numpy(), beta=FOUR.numpy(),
            epsilon=np.float32(0.125),
        ),
        lambda x: F.batch_norm(x, FOUR, FOUR, FOUR, FOUR, eps=0.125),
    ),
    "conv": (
        lambda x: mb.conv(x=x, weight=WEIGHT.numpy(), bias=BIAS.numpy(), pad_type="custom", pad=[1, 1, 1, 1]),
        lambda x: F.conv2d(x, WEIGHT, BIAS, padding=1),
    ),
    "conv_strided": (
        lambda x: mb.conv(x=x, weight=WEIGHT.numpy(), strides=[2, 2], pad_type="custom", pad=[1, 0, 1, 0]),
        lambda x: F.conv2d(F.pad(x, (1, 0, 1, 0)), WEIGHT, stride=2),
    ),
    "conv_valid": (
        lambda x: mb.conv(x=x, weight=WEIGHT.numpy(), dilations=[2, 2], pad_type="valid"),
        lambda x: F.conv2d(x, WEIGHT, dilation=2),
    ),
    "conv_grouped": (
        lambda x: mb.conv(x=x, weight=WEIGHT[:, :2].numpy(), groups=2),
        lambda x: F.conv2d(x, WEIGHT[:, :2], groups=2),
    ),
    "conv_transpose": (
        lambda x: mb.conv_transpose(
            x=x, weight=BACK.numpy(), bias=BIAS.numpy(), strides=[2, 2], pad_type="custom", pad=[1, 1, 1, 1],
            output_shape=(1, 8, 12, 12),
        ),
        lambda x: F.conv_transpose2d(x, BACK, BIAS, stride=2, padding=1),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_operator_computes_what_torch_does(name: str) -> None:
    body, expected = CASES[name]
    program = build(body, tuple(X.shape))
    torch.testing.assert_close(run(program, X), expected(X), rtol=1e-6, atol=1e-6)


def test_every_operator_has_a_case() -> None:
    covered = {
        op.op_type
        for body, _ in CASES.values()
        for op in build(body, tuple(X.shape)).functions["main"].operations
    }
    assert set(OPS) - covered == {"quantize", "dequantize"}  # their own tests are below


# What coremltools does not evaluate even where all inputs are constants.
NOT_FOLDED = {"silu", "upsample_nearest_neighbor", "linear", "batch_norm"}
FOLDED = [name for name in CASES if name not in NOT_FOLDED and not name.startswith("conv")]


@pytest.mark.parametrize("name", FOLDED)
def test_operator_computes_what_coremltools_folds(name: str) -> None:
    body, _ = CASES[name]
    folded = []

    def constant(x: Any) -> Any:
        folded.append(body(mb.const(val=X.numpy())).val)
        return body(x)

    program = build(constant, tuple(X.shape))
    assert folded[0] is not None
    torch.testing.assert_close(
        run(program, X), torch.from_numpy(np.asarray(folded[0], np.float32)), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("axis", [None, 1])
def test_quantize_and_dequantize_fold_as_coremltools_does(dtype: str, axis: int | None) -> None:
    scale = np.float32(0.03) if axis is None else FOUR.numpy() / 20
    offset = np.full(np.shape(scale), 7 if dtype == "int8" else 120, dtype)  # few values saturate

    def pair(x: Any) -> Any:
        stored = mb.quantize(input=x, scale=scale, zero_point=offset, axis=axis, output_dtype=dtype)
        return stored, mb.dequantize(input=stored, scale=scale, zero_point=offset, axis=axis)

    folded = []

    def body(x: Any) -> Any:
        stored, back = pair(mb.const(val=X.numpy()))
        folded.extend((stored.val, back.op.materialized_val_inference()))
        return pair(x)

    program = build(body, tuple(X.shape))
    stored, back = Function(program.functions["main"])({"x": X})
    assert np.array_equal(stored.numpy(), folded[0])
    torch.testing.assert_close(back, torch.from_numpy(folded[1]))
    assert stored.unique().numel() > 50


def test_quantize_saturates() -> None:
    stored = OPS["quantize"](input=torch.tensor([-1e4, 1e4]), scale=torch.tensor(0.1), output_dtype="int8")
    assert stored.tolist() == [-128, 127]


def constexpr(body: Callable[[], Any]) -> tuple[Tensor, Tensor]:
    """A compressed constant as our interpreter and as coremltools expand it."""
    program = build(lambda x: mb.add(x=x, y=body()), (1,))
    (op,) = [op for op in program.functions["main"].operations if op.op_type.startswith("constexpr")]
    assert op.op_type in CONSTEXPR_OPS
    ours = run(program, torch.zeros(1))
    return ours, torch.from_numpy(np.asarray(op.materialized_val_inference(), np.float32))


@pytest.mark.parametrize("offset", [False, True])
@pytest.mark.parametrize("bits", [4, 8])
def test_blockwise_weights_expand_as_coremltools_does(bits: int, offset: bool) -> None:
    rng = np.random.default_rng(0)
    dtype = np_int4_dtype if bits == 4 else np.int8
    data = rng.integers(-8, 8, (6, 8, 3, 3)).astype(np.int8).astype(dtype)
    scale = rng.uniform(0.1, 1, (6, 2, 1, 1)).astype(np.float32)
    shift = {"offset": rng.integers(-3, 3, scale.shape).astype(np.int8).astype(dtype)} if offset else {}
    ours, theirs = constexpr(lambda: mb.constexpr_blockwise_shift_scale(data=data, scale=scale, **shift))
    torch.testing.assert_close(ours, theirs)
    assert ours.unique().numel() > 16


def test_older_weights_expand_as_coremltools_does() -> None:
    rng = np.random.default_rng(0)
    arguments = {
        "quantized_data": rng.integers(-128, 128, (6, 8, 3, 3)).astype(np.int8),
        "zero_point": rng.integers(-3, 3, 8).astype(np.int8),
        "scale": rng.uniform(0.1, 1, 8).astype(np.float32),
        "axis": np.int32(1),
    }

    @mb.program(input_specs=[mb.TensorSpec((1,))], opset_version=target.iOS17)
    def program(x: Any) -> Any:
        return mb.add(x=x, y=mb.constexpr_affine_dequantize(**arguments))

    kind = "constexpr_affine_dequantize"
    (op,) = [op for op in program.functions["main"].operations if op.op_type == kind]
    ours = Function(program.functions["main"])({"x": torch.zeros(1)})[0]
    torch.testing.assert_close(
        ours, torch.from_numpy(np.asarray(op.materialized_val_inference(), np.float32))
    )


def test_float16_outputs_are_rounded_to_half_each() -> None:
    x = torch.full((1, 4), 1 / 3).half().float()
    y = torch.full((1, 4), 4097 / 4096).half().float()
    program = build(lambda x, y: mb.mul(x=mb.mul(x=x, y=y), y=y), (1, 4), (1, 4), dtype=types.fp16)
    product = (x.half() * y.half()) * y.half()
    assert torch.equal(run(program, x, y), product.float())


def test_float16_overflows() -> None:
    program = build(lambda x: mb.square(x=x), (1,), dtype=types.fp16)
    assert run(program, torch.tensor([300.0])).item() == float("inf")


def test_values_are_forgotten_after_their_last_use() -> None:
    def chain(x: Any) -> Any:
        first = mb.relu(x=x)
        return mb.add(x=mb.tanh(x=first), y=first)

    function = Function(build(chain, (1, 4)).functions["main"])
    assert [call.spent for call in function.calls][0] == ("x",)
    assert {name for call in function.calls for name in call.spent} == {
        "x",
        *(call.output for call in function.calls[:-1]),
    }


def test_unknown_operator_is_refused_by_name() -> None:
    with pytest.raises(UserError, match="'cumsum'"):
        Function(build(lambda x: mb.cumsum(x=x), (1, 4)).functions["main"])


@pytest.mark.parametrize("kind", ["same", "same_lower"])
def test_unknown_padding_is_refused(kind: str) -> None:
    program = build(lambda x: mb.conv(x=x, weight=WEIGHT.numpy(), pad_type=kind), tuple(X.shape))
    with pytest.raises(UserError, match=kind):
        run(program, X)
