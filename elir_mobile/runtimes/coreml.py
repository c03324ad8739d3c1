"""Run a Core ML package: with Core ML itself on a Mac, elsewhere with an interpreter of its program.

The interpreter reads the saved package, specification and weight blob, and evaluates its MIL program
operator by operator with PyTorch. Arithmetic is float32; an operator whose output the program states
as float16 has it rounded to half, and compressed weights are expanded as the ``constexpr`` operators
say (operator semantics: https://apple.github.io/coremltools/source/coremltools.converters.mil.mil.ops.defs.html).
That is the file's arithmetic, not the Neural Engine's, which may add up in less than float32; and an
interpreter's speed says nothing of the file's.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from elir_mobile.core.errors import UserError
from elir_mobile.core.sampling import PROGRAMS
from elir_mobile.runtimes import programs
from elir_mobile.runtimes.programs import Program
from elir_mobile.runtimes.table import RUNTIMES

INPUTS = {**programs.INPUTS, "encode_image": programs.INPUTS["encode"]}

# Functions of one package, by name; in a package of one function it is called "main".
Functions = dict[str, "Function"]


@contextlib.contextmanager
def coremltools() -> Iterator[Any]:
    """The package, without its progress bars and its warnings about the other packages here.

    Raises:
        UserError: it is not installed.
    """
    logging.getLogger("coremltools").setLevel(logging.ERROR)
    with contextlib.redirect_stderr(io.StringIO()):
        RUNTIMES["coreml"].load()
        import coremltools as ct

        yield ct


def _unsupported(what: str) -> UserError:
    return UserError(f"the interpreter does not know {what}: run this package on a Mac")


# The operators. Each takes its MIL arguments by name: float tensors as float32, int8 and uint8 ones as
# such, everything else as NumPy or Python values, which no annotation narrows. Defaults are MIL's.


def _pad(pad_type: str = "valid", pad: Any = ()) -> list[int]:
    """MIL's padding of a convolution as [top, bottom, left, right]."""
    if pad_type == "valid":
        return [0, 0, 0, 0]
    if pad_type != "custom":
        raise _unsupported(f"the padding '{pad_type}'")
    return [int(p) for p in pad]


def _conv(
    x: Tensor, weight: Tensor, bias=None, strides=(1, 1), dilations=(1, 1), groups=1, **padded: Any
) -> Tensor:
    top, bottom, left, right = _pad(**padded)
    even = (top, left) == (bottom, right)
    if not even:
        x = F.pad(x, [left, right, top, bottom])
    padding = (top, left) if even else (0, 0)
    return F.conv2d(x, weight, bias, _ints(strides), padding, _ints(dilations), int(groups))


def _conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias=None,
    strides=(1, 1),
    dilations=(1, 1),
    groups=1,
    output_shape=None,
    **padded: Any,
) -> Tensor:
    top, bottom, left, right = _pad(**padded)
    full = F.conv_transpose2d(
        x, weight, bias, _ints(strides), groups=int(groups), dilation=tuple(_ints(dilations))
    )
    return full[..., top : full.shape[-2] - bottom, left : full.shape[-1] - right]


def _slice_by_index(
    x: Tensor, begin, end, stride=None, begin_mask=None, end_mask=None, squeeze_mask=None
) -> Tensor:
    closed = [False] * x.dim()
    strides = [1] * x.dim() if stride is None else _ints(stride)
    if squeeze_mask is not None and any(squeeze_mask) or min(strides) < 1:
        raise _unsupported("slice_by_index with a squeezed axis or a negative stride")

    def ends(places: Any, mask: Any) -> list[int | None]:
        given = zip(places, closed if mask is None else mask, strict=True)
        return [None if open_end else int(place) for place, open_end in given]

    return x[tuple(map(slice, ends(begin, begin_mask), ends(end, end_mask), strides))]


def _along(values: Tensor, x: Tensor, axis: Any) -> Tensor:
    """Per-channel ``values`` in the shape that broadcasts against ``x``; a scalar stays one."""
    if values.dim() == 0:
        return values
    return values.view([-1 if i == int(axis) % x.dim() else 1 for i in range(x.dim())])


def _quantize(
    input: Tensor, scale: Tensor, output_dtype: str, zero_point: Any = None, axis: Any = None
) -> Tensor:
    dtype = {"int8": torch.int8, "uint8": torch.uint8}[str(output_dtype)]
    offset = torch.zeros_like(scale) if zero_point is None else _tensor(zero_point).float()
    shifted = torch.round(input / _along(scale, input, axis)) + _along(offset, input, axis)
    return shifted.clamp(torch.iinfo(dtype).min, torch.iinfo(dtype).max).to(dtype)


def _dequantize(input: Tensor, scale: Tensor, zero_point: Any = None, axis: Any = None) -> Tensor:
    offset = torch.zeros_like(scale) if zero_point is None else _tensor(zero_point).float()
    return (input.float() - _along(offset, input, axis)) * _along(scale, input, axis)


def _blockwise_shift_scale(data: Any, scale: Tensor, offset: Any = None) -> Tensor:
    """``scale · (data − offset)``, each scale for a block of ``data.shape / scale.shape`` values."""
    values = _tensor(data).float()

    def spread(blocks: Tensor) -> Tensor:
        for axis, (size, count) in enumerate(zip(values.shape, blocks.shape, strict=True)):
            blocks = blocks.repeat_interleave(size // count, axis)
        return blocks

    return (values if offset is None else values - spread(_tensor(offset).float())) * spread(scale)


def _affine_dequantize(quantized_data: Any, zero_point: Any, scale: Tensor, axis: Any) -> Tensor:
    return _dequantize(_tensor(quantized_data), scale, zero_point, axis)


def _upsample(x: Tensor, scale_factor_height: Any = 1, scale_factor_width: Any = 1) -> Tensor:
    factors = (float(scale_factor_height), float(scale_factor_width))
    return F.interpolate(x, scale_factor=factors, mode="nearest")


def _concat(values: list[Tensor], axis: Any, interleave: Any = False) -> Tensor:
    if interleave:
        raise _unsupported("interleaved concat")
    return torch.cat(values, int(axis))


def _cast(x: Tensor, dtype: str) -> Tensor:
    if dtype not in ("fp16", "fp32"):
        raise _unsupported(f"cast to {dtype}")
    return x  # rounded with every other float16 output


def _reduce_mean(x: Tensor, axes: Any = None, keep_dims: Any = False) -> Tensor:
    return x.mean(list(range(x.dim())) if axes is None else _ints(axes), bool(keep_dims))


OPS: dict[str, Callable[..., Tensor]] = {
    "add": lambda x, y: x + y,
    "batch_norm": lambda x, mean, variance, gamma=None, beta=None, epsilon=1e-5: F.batch_norm(
        x, mean, variance, gamma, beta, eps=float(epsilon)
    ),
    "cast": _cast,
    "clip": lambda x, alpha, beta: x.clamp(float(alpha), float(beta)),
    "concat": _concat,
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "dequantize": _dequantize,
    "linear": lambda x, weight, bias=None: F.linear(x, weight, bias),
    "mul": lambda x, y: x * y,
    "quantize": _quantize,
    "real_div": lambda x, y: x / y,
    "reduce_mean": _reduce_mean,
    "relu": lambda x: F.relu(x),
    "reshape": lambda x, shape: x.reshape(_ints(shape)),
    "rsqrt": lambda x, epsilon=1e-12: torch.rsqrt(x + float(epsilon)),
    "sigmoid": lambda x: torch.sigmoid(x),
    "silu": lambda x: F.silu(x),
    "slice_by_index": _slice_by_index,
    "sqrt": lambda x: torch.sqrt(x),
    "square": lambda x: x * x,
    "sub": lambda x, y: x - y,
    "tanh": lambda x: torch.tanh(x),
    "transpose": lambda x, perm: x.permute(_ints(perm)),
    "upsample_nearest_neighbor": _upsample,
}
CONSTEXPR_OPS: dict[str, Callable[..., Tensor]] = {
    "constexpr_affine_dequantize": _affine_dequantize,
    "constexpr_blockwise_shift_scale": _blockwise_shift_scale,
}


def _ints(values: Any) -> list[int]:
    return [int(v) for v in values]


def _tensor(values: Any) -> Tensor:
    """Integers as a tensor; 4-bit ones come in a NumPy type that PyTorch does not take."""
    return values if isinstance(values, Tensor) else torch.from_numpy(np.asarray(values, np.int32))


def _constant(value: Any) -> Any:
    """Floating-point constants as float32 tensors, all others as they are."""
    if isinstance(value, (np.ndarray, np.generic)) and np.issubdtype(value.dtype, np.floating):
        return torch.from_numpy(np.asarray(value, np.float32).copy())
    return value


@dataclass(frozen=True)
class _Call:
    """One operator of a function, its arguments resolved."""

    kind: str
    name: str
    output: str
    half: bool
    constants: dict[str, Any]
    variables: dict[str, str | list[str | Tensor]]
    spent: tuple[str, ...]  # variables that nothing after it reads


class Function:
    """One function of a MIL program, ready to run.

    Args:
        function: as ``coremltools`` loads it.

    Raises:
        UserError: it has an operator that the interpreter does not know.
    """

    def __init__(self, function: Any) -> None:
        constants: dict[str, Any] = {}
        self.inputs = {name: tuple(var.shape) for name, var in function.inputs.items()}
        self.outputs = tuple(var.name for var in function.outputs)
        self.calls: list[_Call] = []
        for op in function.operations:
            output = op.outputs[0]
            if op.op_type == "const":
                constants[output.name] = _constant(output.val)
                continue
            fixed: dict[str, Any] = {}
            live: dict[str, str | list[str | Tensor]] = {}
            for key, var in op.inputs.items():
                if isinstance(var, (list, tuple)):
                    live[key] = [constants.get(v.name, v.name) for v in var]
                elif var is not None and var.name in constants:
                    fixed[key] = constants[var.name]
                elif var is not None:
                    live[key] = var.name
            half = _is_half(output)
            if op.op_type in CONSTEXPR_OPS:
                constants[output.name] = _rounded(CONSTEXPR_OPS[op.op_type](**fixed), half)
            elif op.op_type in OPS:
                self.calls.append(_Call(op.op_type, op.name, output.name, half, fixed, live, ()))
            else:
                raise _unsupported(f"the operator '{op.op_type}'")
        self._plan_memory()

    def _plan_memory(self) -> None:
        """Note for each call what it is the last to read: activations of large images add up."""
        seen = set(self.outputs)
        for index in range(len(self.calls) - 1, -1, -1):
            call = self.calls[index]
            names = {
                name
                for value in call.variables.values()
                for name in (value if isinstance(value, list) else [value])
                if isinstance(name, str)
            }
            self.calls[index] = replace(call, spent=tuple(names - seen))
            seen |= names

    @torch.no_grad()
    def __call__(
        self, inputs: Mapping[str, Tensor], observe: Callable[[str, Tensor], None] = lambda name, value: None
    ) -> list[Tensor]:
        """Outputs for float32 ``inputs``, in whatever shape; ``observe`` is shown every value by its name."""
        values = {name: value.reshape(self.inputs[name]) for name, value in inputs.items()}
        for name, value in values.items():
            observe(name, value)
        for call in self.calls:
            arguments = {
                key: [values[v] if isinstance(v, str) else v for v in name]
                if isinstance(name, list)
                else values[name]
                for key, name in call.variables.items()
            }
            out = _rounded(OPS[call.kind](**arguments, **call.constants), call.half)
            observe(call.output, out)
            values[call.output] = out
            for name in call.spent:
                del values[name]
        return [values[name] for name in self.outputs]


def _is_half(var: Any) -> bool:
    from coremltools.converters.mil.mil import types

    return var.dtype == types.fp16


def _rounded(value: Tensor, half: bool) -> Tensor:
    return value.half().float() if half else value


def mil_program(spec: Any, weights: str | None) -> Any:
    """The MIL program of a model specification, with its weights read from the folder ``weights``."""
    from coremltools.converters.mil.frontend.milproto.load import load

    return load(spec, specification_version=spec.specificationVersion, file_weights_dir=weights or "")


def read_package(path: Path) -> Functions:
    """The functions of a saved package, by name.

    Raises:
        UserError: it is damaged, or has an operator that the interpreter does not know.
    """
    with coremltools() as ct:
        try:
            model = ct.models.MLModel(str(path), skip_model_load=True)
            program = mil_program(model.get_spec(), model.weights_dir)
        except Exception as error:  # whatever coremltools and protobuf raise on damaged bytes
            raise UserError(f"{path} is damaged or not a Core ML package: export it again") from error
        return {name: Function(function) for name, function in program.functions.items()}


def packages(path: Path, names: tuple[str, ...] = PROGRAMS) -> dict[str, tuple[Path, str]]:
    """Where each program is: its package and the function's name there.

    Either ``path`` is a package with a function for each, or a folder of packages called after them.

    Raises:
        UserError: one is missing.
    """
    if (path / "Manifest.json").is_file():
        return {name: (path, name) for name in names}
    places = {name: (path / f"{name}.mlpackage", "main") for name in names}
    for place, _ in places.values():
        if not place.is_dir():
            raise UserError(f"{place} is missing: export {path} again")
    return places


def open_programs(path: Path, threads: int, names: tuple[str, ...]) -> dict[str, Program]:
    """Load the functions ``names``: with Core ML on a Mac, with the interpreter elsewhere.

    Args:
        path: a package of several functions, or a folder of packages (before iOS 18).
        threads: of the interpreter; Core ML chooses its own.

    Raises:
        UserError: the package cannot be loaded.
    """
    if not RUNTIMES["coreml"].stand_in:
        return predicting_programs(path, names)
    torch.set_num_threads(threads)
    return interpreting_programs(path, names)


def interpreting_programs(path: Path, names: tuple[str, ...] = PROGRAMS) -> dict[str, Program]:
    """:func:`open_programs` with the interpreter, on any machine."""
    read: dict[Path, Functions] = {}
    functions: Functions = {}
    for name, (place, function) in packages(path, names).items():
        if place not in read:
            read[place] = read_package(place)
        if function not in read[place]:
            raise UserError(f"{place} has no function '{function}': export it again")
        functions[name] = read[place][function]

    def run(name: str, *inputs: np.ndarray) -> np.ndarray:
        tensors = (torch.from_numpy(np.ascontiguousarray(value)) for value in inputs)
        return functions[name](dict(zip(INPUTS[name], tensors, strict=True)))[0].numpy()

    return {name: partial(run, name) for name in names}


def input_shapes(spec: Any, function: str) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors that a function of a model specification takes; ``main`` is the only one."""
    described = {interface.name: interface for interface in spec.description.functions}
    inputs = described.get(function, spec.description).input
    return {feature.name: tuple(feature.type.multiArrayType.shape) for feature in inputs}


def predicting_programs(path: Path, names: tuple[str, ...] = PROGRAMS) -> dict[str, Program]:
    """:func:`open_programs` with Core ML itself, on macOS."""
    places = packages(path, names)
    with coremltools() as ct:
        models = {
            # A package of one function must not be asked for it by name.
            name: ct.models.MLModel(str(place), function_name=None if function == "main" else function)
            for name, (place, function) in places.items()
        }
    shapes = {name: input_shapes(models[name].get_spec(), places[name][1]) for name in names}

    def run(name: str, *inputs: np.ndarray) -> np.ndarray:
        given = zip(INPUTS[name], inputs, strict=True)
        shaped = {key: value.reshape(shapes[name][key]) for key, value in given}
        (out,) = models[name].predict(shaped).values()
        return np.asarray(out, np.float32)

    return {name: partial(run, name) for name in names}
