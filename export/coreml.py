"""Core ML: the three programs as functions of one ``.mlpackage``, their weights compressed by the recipe.

``coremltools`` converts the exported graph; its weight quantizers and activation quantizer are
told the layers one by one, by the recipe. Activation ranges are measured by running the package with
our own interpreter (``elir_mobile.runtimes.coreml``), since Core ML itself runs on a Mac only.
(https://apple.github.io/coremltools, "Optimization")
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from numbers import Integral
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

from elir_mobile.precision import FP32, Grid, Precision, Recipe, integer_grid
from elir_mobile.runtimes.coreml import INPUTS, Function, coremltools, mil_program
from export.executorch import layer_name
from export.graphs import Graph, Operator, Value
from export.observers import activation_bits, bounds, make_observer, observer_of
from export.programs import Delegation, Programs, Samples, check_samples

IOS17, IOS18 = 17, 18
OUTPUTS = {"encode": "coarse", "step": "next_latent", "decode": "restored", "encode_image": "coarse"}
DESCRIPTIONS = {
    "image": "Degraded image: RGB; as a tensor (1, 3, H, W) in [0, 1].",
    "latent": "Latent (1, C, H/8, W/8): noised coarse estimate, or the last step's output.",
    "row": "This step's row of steps.bin, (1, ΣC).",
    "coarse": "Coarse latent (1, C, H/8, W/8); add sigma_s times unit Gaussian noise.",
    "next_latent": "Latent after one Euler step, (1, C, H/8, W/8).",
    "restored": "Restored image (1, 3, H, W) in [0, 1].",
}
_CONV_TARGETS = (
    torch.ops.aten.conv2d.default,
    torch.ops.aten.conv_transpose2d.input,
    torch.ops.aten.linear.default,
)
_CONV_OPS = ("conv", "conv_transpose", "linear")

AUTHOR = "elir-mobile"
LICENCE = "Apache-2.0; the weights have the licence of the checkpoint they were converted from."
SUMMARY = (
    "Image restoration in three programs: z = encode(image) + sigma_s·noise; "
    "steps times z = step(z, row k); decode(z)."
)

Ranges = dict[str, dict[str, float]]  # variable → {"rmin", "rmax"}, as coremltools wants them


@dataclass(frozen=True)
class Converted:
    """A function in float: the model, and the names of its layers in the order of its convolutions."""

    name: str
    model: Any
    layers: tuple[str, ...]


class StepOfFlatRow(nn.Module):
    """``step`` that takes its row of the table as (1, ΣC).

    The Neural Engine pads the last axis of an input to 64 bytes, so that (1, ΣC, 1, 1) takes 32 times its
    memory in float16 (https://machinelearning.apple.com/research/neural-engine-transformers).
    """

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self.program = program

    def forward(self, latent: Tensor, row: Tensor) -> Tensor:
        out: Tensor = self.program(latent, row.view(1, row.shape[1], 1, 1))
        return out


def float_models(
    programs: Programs, half: bool, ios: int = IOS18, functions: tuple[str, ...] = tuple(INPUTS)
) -> dict[str, Converted]:
    """Convert every program, and ``encode`` once more with an image as its input.

    Args:
        programs: rewritten programs.
        half: compute in float16, otherwise in float32.
        ios: 17 or 18, the oldest system that will run the package.
        functions: only these.

    Returns:
        The functions by name.
    """
    found: dict[str, Converted] = {}
    with coremltools() as ct:
        precision = ct.precision.FLOAT16 if half else ct.precision.FLOAT32
        target = {IOS17: ct.target.iOS17, IOS18: ct.target.iOS18}[ios]
        for function in functions:
            names = INPUTS[function]
            program = function.removesuffix("_image")
            module, example = programs.modules[program], programs.example_inputs[program]
            if program == "step":
                module, example = StepOfFlatRow(module), (example[0], example[1].flatten(1))
            exported = torch.export.export(module, example).run_decompositions({})
            inputs = [
                ct.TensorType(name, tuple(x.shape), np.float32)
                for name, x in zip(names, example, strict=True)
            ]
            if function == "encode_image":
                inputs = [ct.ImageType(names[0], tuple(example[0].shape), scale=1 / 255)]
            model = ct.convert(
                exported,
                convert_to="mlprogram",
                inputs=inputs,
                outputs=[ct.TensorType(OUTPUTS[function], dtype=np.float32)],
                minimum_deployment_target=target,
                compute_precision=precision,
                skip_model_load=True,
            )
            nodes = [node for node in exported.graph.nodes if node.target in _CONV_TARGETS]
            layers = tuple(layer_name(node).removeprefix("program.") for node in nodes)
            found[function] = Converted(function, model, layers)
    return found


_last_converted = lru_cache(maxsize=1)(float_models)  # one conversion serves every recipe


def _program(model: Any) -> Any:
    return mil_program(model.get_spec(), model.weights_dir).functions["main"]


def convolutions(function: Any) -> list[Any]:
    """The convolutions and linear layers of a MIL function, in the order they run."""
    return [op for op in function.operations if op.op_type in _CONV_OPS]


def weight_of(convolution: Any) -> Any:
    """The operator that makes a convolution's weight: ``const``, or one of the ``constexpr`` ones."""
    return convolution.inputs["weight"].op


def is_transposed(convolution: Any) -> bool:
    """Whether a convolution of a MIL function has its input channels first in the weight."""
    return convolution.op_type == "conv_transpose"


def wanted_grid(convolution: Any, precision: Precision) -> Grid | None:
    """The grid that a convolution's weight, still in float, is to be stored on."""
    shape = weight_of(convolution).outputs[0].shape
    return integer_grid(precision, shape, transposed=is_transposed(convolution))


def stored_grid(convolution: Any) -> Grid | None:
    """The grid that a convolution's weight is stored on in a MIL function; None for a float weight."""
    from coremltools.converters.mil.mil import types

    weight = weight_of(convolution)
    if weight.op_type == "const":
        return None
    if weight.op_type == "constexpr_affine_dequantize":  # before iOS 18: int8, a scale for each channel
        shape = weight.outputs[0].shape
        scales = [n if axis == weight.inputs["axis"].val else 1 for axis, n in enumerate(shape)]
        return Grid(8, tuple(scales))
    bits = 4 if weight.inputs["data"].dtype == types.int4 else 8
    return Grid(bits, weight.inputs["scale"].shape)


def has_integer_inputs(convolution: Any) -> bool:
    """Whether a convolution of a MIL function reads activations that were rounded to integers."""
    before = convolution.inputs["x"].op
    return before is not None and before.op_type == "dequantize"


def activation_ranges(converted: Converted, layers: list[Any], samples: Samples, bits: int) -> Ranges:
    """Ranges of what the convolutions ``layers`` of a function read and make, by its observer.

    Args:
        samples: calibration inputs of each program.
        bits: of the integers that activations become.
    """
    program = converted.name.removesuffix("_image")
    variables = [v for op in layers for v in (op.inputs["x"], op.outputs[0])]
    fused = [user.outputs[0] for v in variables for user in v.child_ops if user.op_type == "relu"]
    observers = {v.name: make_observer(observer_of(program), bits) for v in (*variables, *fused)}

    def observe(name: str, value: Tensor) -> None:
        if name in observers:
            observers[name](value)

    function = Function(_program(converted.model))
    scale = 1 if converted.name == program else 255  # a picture's values are 0 to 255
    for inputs in samples[program]:
        function({name: scale * x for name, x in zip(INPUTS[program], inputs, strict=True)}, observe)
    ranges = {name: bounds(observer) for name, observer in observers.items()}
    return {name: {"rmin": low, "rmax": high} for name, (low, high) in ranges.items()}


def quantize_activations(model: Any, layers: list[str], ranges: Ranges) -> Any:
    """``model`` with its activations in int8 around the convolutions called ``layers`` (MIL names)."""
    with coremltools():
        import coremltools.optimize.coreml as cto
        from coremltools.optimize.coreml import _post_training_quantization as ptq

        config = cto.OptimizationConfig(
            op_name_configs={name: cto.OpLinearQuantizerConfig(mode="linear") for name in layers}
        )
        # The one place where the package would ask Core ML to run the model. Private: the version is
        # pinned, and a test holds the scales of the written file against our ranges.
        with patch.object(ptq, "_get_activation_calibration_stats", lambda *_: ranges):
            return cto.linear_quantize_activations(model, config, [])


def compress_weights(model: Any, grids: dict[str, Grid]) -> Any:
    """``model`` with the weights of the convolutions in ``grids`` (by MIL name) stored on those grids."""
    with coremltools():
        import coremltools.optimize.coreml as cto

        configs = {}
        for op in convolutions(_program(model)):
            if op.name not in grids:
                continue
            grid, shape = grids[op.name], weight_of(op).outputs[0].shape
            axis = 0 if is_transposed(op) else 1
            groups = grid.scales[axis]
            how: dict[str, Any] = {"granularity": "per_channel"}
            if groups > 1:
                how = {"granularity": "per_block", "block_size": shape[axis] // groups}
            configs[op.name] = cto.OpLinearQuantizerConfig(
                mode="linear_symmetric", dtype=f"int{grid.bits}", weight_threshold=0, **how
            )
        if configs:
            model = cto.linear_quantize_weights(model, cto.OptimizationConfig(op_name_configs=configs))
    return model


def realize(converted: Converted, recipe: Recipe, samples: Samples) -> Any:
    """The float function ``converted`` with every layer in the precision of ``recipe``.

    Layers that the recipe leaves in float keep the precision of the conversion.

    Raises:
        RuntimeError: coremltools stored a layer on another grid, or left its activations in float.
    """
    ops = convolutions(_program(converted.model))
    wanted = {op.name: recipe.precision_of(layer) for op, layer in zip(ops, converted.layers, strict=True)}
    grids = {op.name: grid for op in ops if (grid := wanted_grid(op, wanted[op.name])) is not None}
    active = {op.name: op for op in ops if wanted[op.name].integer and not is_transposed(op)}
    model = converted.model
    if active:
        ranges = activation_ranges(converted, list(active.values()), samples, activation_bits(recipe) or 8)
        model = quantize_activations(model, list(active), ranges)
    model = compress_weights(model, grids)
    for op in convolutions(_program(model)):
        if stored_grid(op) != grids.get(op.name):
            raise RuntimeError(f"coremltools stored {op.name} as {stored_grid(op)}, not {grids.get(op.name)}")
        if op.name in active and not has_integer_inputs(op):
            raise RuntimeError(f"coremltools left the activations of {op.name} in float")
    return model


def lower(
    programs: Programs, recipe: Recipe, samples: Samples, path: Path, ios: int = IOS18
) -> dict[str, Delegation]:
    """Write the programs in the precisions of ``recipe``.

    For iOS 18 one package with the functions ``encode``, ``step``, ``decode`` and ``encode_image``, which
    takes a picture and shares the weights of ``encode``. Before, a package has one function: ``path`` is
    then a folder with a package for each. coremltools rounds no activation around a transposed convolution:
    such a layer has integer weights alone. A :data:`export.targets.Lower`.

    Args:
        ios: 17 or 18, the oldest system that will run it; 17 knows no integers but int8.
    """
    check_samples(recipe, samples)
    half = not recipe.precisions <= {FP32}
    write(_last_converted(programs, half, ios), programs, recipe, samples, path, ios)
    return {name: Delegation(0, ()) for name in programs.modules}


def write(
    converted: dict[str, Converted],
    programs: Programs,
    recipe: Recipe,
    samples: Samples,
    path: Path,
    ios: int = IOS18,
) -> None:
    """:func:`lower` from models that are already converted.

    Raises:
        ValueError: ``recipe`` has integers that the system does not know.
    """
    if ios < IOS18 and any(precision.weight_bits not in (None, 8) for precision in recipe.precisions):
        raise ValueError(f"iOS {ios} knows no weights but int8 and float: recipe '{recipe.name}' has others")
    recipe = recipe.on(programs.roles)
    with tempfile.TemporaryDirectory(dir=path.parent) as tmp, coremltools() as ct:
        folder = Path(tmp) / "functions"
        folder.mkdir()
        for name, function in converted.items():
            realize(function, recipe, samples).save(str(folder / f"{name}.mlpackage"))
        staged = folder
        if ios >= IOS18:
            staged = Path(tmp) / "functions.mlpackage"
            merged = ct.utils.MultiFunctionDescriptor()
            for name in converted:
                merged.add_function(str(folder / f"{name}.mlpackage"), "main", name)
            merged.default_function_name = next(iter(converted))
            ct.utils.save_multifunction(merged, str(staged))
        for package in [staged] if ios >= IOS18 else folder.iterdir():
            describe(package, programs, recipe)
        if path.exists():
            shutil.rmtree(path)
        staged.rename(path)


def describe(package: Path, programs: Programs, recipe: Recipe) -> None:
    """Fill in the metadata of a written package: what Xcode shows, and the loop's constants."""
    with coremltools() as ct:
        place = package / "Data" / "com.apple.CoreML" / "model.mlmodel"
        spec = ct.utils.load_spec(str(place))
        about = spec.description.metadata
        about.author = AUTHOR
        about.license = LICENCE
        about.shortDescription = SUMMARY
        about.userDefined.update(
            {"recipe": recipe.name, "steps": str(programs.steps), "sigma_s": repr(programs.sigma_s)}
        )
        for interface in list(spec.description.functions) or [spec.description]:
            for feature in [*interface.input, *interface.output]:
                feature.shortDescription = DESCRIPTIONS[feature.name]
        place.write_bytes(spec.SerializeToString(deterministic=True))


def read_graphs(path: Path) -> list[Graph]:
    """The functions of a package, or of a folder of packages of one function each, which is then called after
    its package.

    Raises:
        Exception: of whatever kind coremltools raises on what is no such package.
    """
    single = (path / "Manifest.json").is_file()
    found = []
    for package in [path] if single else sorted(path.glob("*.mlpackage")):
        with coremltools() as ct:
            model = ct.models.MLModel(str(package), skip_model_load=True)
            functions = mil_program(model.get_spec(), model.weights_dir).functions
        found += [_graph(name if single else package.stem, function) for name, function in functions.items()]
    return found


def _graph(name: str, function: Any) -> Graph:
    from coremltools.converters.mil.mil import types

    def value(var: Any) -> Value:
        dtype = types.builtin_to_string(var.dtype).replace("fp", "float")
        sides = tuple(int(side) if isinstance(side, Integral) else None for side in var.shape)
        constant = var.op is not None and var.op.op_type.startswith("const")
        plain = constant and var.op.op_type == "const" and dtype.startswith("float") and var.val is not None
        scalar = float(np.ravel(var.val)[0]) if plain and np.size(var.val) == 1 else None
        return Value(var.name, sides, dtype, constant, scalar)

    def read(op: Any) -> tuple[Value, ...]:
        keys = ("data", "scale") if op.op_type == "constexpr_blockwise_shift_scale" else tuple(op.inputs)
        given = [op.inputs[key] for key in keys]
        variables = [v for one in given for v in (one if isinstance(one, (list, tuple)) else [one])]
        return tuple(value(var) for var in variables if var is not None and not types.is_list(var.sym_type))

    operators = tuple(
        Operator(op.op_type, op.name, read(op), tuple(value(var) for var in op.outputs))
        for op in function.operations
        if op.op_type != "const"
    )
    inputs, outputs = function.inputs.values(), function.outputs
    return Graph(name, operators, tuple(map(value, inputs)), tuple(map(value, outputs)))
