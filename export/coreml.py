"""Core ML: the three programs as functions of one ``.mlpackage``, their weights compressed by the recipe.

``coremltools`` converts the exported graph; its weight quantizers, palettizer and activation quantizer
are told the layers one by one, by the recipe. Activation ranges are measured by running the package with
our own interpreter (``elir_mobile.runtimes.coreml``), since Core ML itself runs on a Mac only.
(https://apple.github.io/coremltools, "Optimization")
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, fx

from elir_mobile.precision import FP16, FP32, W4, W8, W8A8, Recipe
from elir_mobile.runtimes.coreml import INPUTS, Function, coremltools, mil_program
from export.programs import Delegation, Programs, Samples

IOS17, IOS18 = 17, 18
OUTPUTS = {"encode": "coarse", "step": "next_latent", "decode": "restored", "encode_image": "coarse"}
DESCRIPTIONS = {
    "image": "Degraded image: RGB; as a tensor (1, 3, H, W) in [0, 1].",
    "latent": "Latent (1, C, H/8, W/8): noised coarse estimate, or the last step's output.",
    "row": "This step's row of steps.bin, (1, ΣC, 1, 1).",
    "coarse": "Coarse latent (1, C, H/8, W/8); add sigma_s times unit Gaussian noise.",
    "next_latent": "Latent after one Euler step, (1, C, H/8, W/8).",
    "restored": "Restored image (1, 3, H, W) in [0, 1].",
}
BLOCKS = (32, 16)  # input channels that share a 4-bit scale; the first that divides the layer's
_CONV_TARGETS = (
    torch.ops.aten.conv2d.default,
    torch.ops.aten.conv_transpose2d.input,
    torch.ops.aten.linear.default,
)
_CONV_OPS = ("conv", "conv_transpose", "linear")
_NO_ACTIVATIONS = "conv_transpose"  # coremltools quantizes no activations around it


AUTHOR = "elir-mobile"
LICENCE = "Apache-2.0; the weights have the licence of the checkpoint they were converted from."
SUMMARY = (
    "Image restoration in three programs: z = encode(image) + sigma_s·noise; "
    "steps times z = step(z, row k); decode(z)."
)

Ranges = dict[str, dict[str, float]]  # variable → {"rmin", "rmax"}, as coremltools wants them
Calls = list[tuple[Tensor, ...]]


def layer_name(node: fx.Node) -> str:
    """Recipe name of a convolution in an exported graph: its module path."""
    return list(node.meta["nn_module_stack"].values())[-1][0]


@dataclass(frozen=True)
class Converted:
    """A function in float: the model, and the names of its layers in the order of its convolutions."""

    model: Any
    layers: tuple[str, ...]


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
            example = programs.example_inputs[program]
            exported = torch.export.export(programs.modules[program], example).run_decompositions({})
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
            layers = tuple(layer_name(n) for n in exported.graph.nodes if n.target in _CONV_TARGETS)
            found[function] = Converted(model, layers)
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


def stored_precision(convolution: Any) -> str:
    """What a convolution of a MIL function has become, in the words of a recipe."""
    weight = weight_of(convolution)
    if weight.op_type == "const":
        return FP16 if weight.outputs[0].val.dtype == np.float16 else FP32
    data = weight.inputs.get("data") or weight.inputs.get("quantized_data")
    if data is None or is_int4(data):
        return W4
    before = convolution.inputs["x"].op
    return W8A8 if before is not None and before.op_type == "dequantize" else W8


def is_int4(data: Any) -> bool:
    """Whether a MIL variable holds 4-bit integers."""
    from coremltools.converters.mil.mil import types

    return data.dtype == types.int4


def activation_ranges(model: Any, names: tuple[str, ...], calls: list[tuple[Tensor, ...]]) -> Ranges:
    """Least and greatest value of every variable of ``model`` over all ``calls``.

    Args:
        names: of the inputs.
        calls: calibration inputs, a tuple for each call.
    """
    ranges: Ranges = {}

    def observe(name: str, value: Tensor) -> None:
        low, high = value.aminmax()
        known = ranges.setdefault(name, {"rmin": low.item(), "rmax": high.item()})
        known["rmin"] = min(known["rmin"], low.item())
        known["rmax"] = max(known["rmax"], high.item())

    function = Function(_program(model))
    for inputs in calls:
        function(dict(zip(names, inputs, strict=True)), observe)
    return ranges


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


def compress_weights(model: Any, precisions: dict[str, str], ios: int) -> Any:
    """``model`` with the weights of each convolution (by MIL name) stored as ``precisions`` says."""
    with coremltools():
        import coremltools.optimize.coreml as cto

        int8 = cto.OpLinearQuantizerConfig(mode="linear_symmetric", weight_threshold=0)
        palette = cto.OpPalettizerConfig(mode="kmeans", nbits=4, weight_threshold=0)
        linear: dict[str, Any] = {}
        palettized: dict[str, Any] = {}
        for op in convolutions(_program(model)):
            precision = precisions[op.name]
            if precision in (W8, W8A8):
                linear[op.name] = int8
            elif precision == W4:
                block = _block(op) if ios >= IOS18 else None
                if block is None:
                    palettized[op.name] = palette
                else:
                    linear[op.name] = cto.OpLinearQuantizerConfig(
                        mode="linear_symmetric",
                        dtype="int4",
                        granularity="per_block",
                        block_size=block,
                        weight_threshold=0,
                    )
        if linear:
            model = cto.linear_quantize_weights(model, cto.OptimizationConfig(op_name_configs=linear))
        if palettized:
            model = cto.palettize_weights(model, cto.OptimizationConfig(op_name_configs=palettized))
    return model


def _block(convolution: Any) -> int | None:
    """Input channels to a 4-bit scale; None where no size divides the layer's."""
    axis = 0 if convolution.op_type == "conv_transpose" else 1
    channels = weight_of(convolution).outputs[0].shape[axis]
    return next((size for size in BLOCKS if channels % size == 0), None)


def realize(converted: Converted, recipe: Recipe, inputs: tuple[str, ...], calls: Calls, ios: int) -> Any:
    """The float function ``converted`` with every layer in the precision of ``recipe``.

    Layers that the recipe leaves in float keep the precision of the conversion.

    Raises:
        RuntimeError: coremltools left a layer in another precision.
    """
    ops = convolutions(_program(converted.model))
    wanted = {op.name: recipe.precision_of(layer) for op, layer in zip(ops, converted.layers, strict=True)}
    model = converted.model
    active = [op.name for op in ops if wanted[op.name] == W8A8 and op.op_type != _NO_ACTIVATIONS]
    if active:
        model = quantize_activations(model, active, activation_ranges(model, inputs, calls))
    model = compress_weights(model, wanted, ios)
    for op in convolutions(_program(model)):
        stored, want = stored_precision(op), wanted[op.name]
        if want == W8A8 and op.op_type == _NO_ACTIVATIONS:
            want = W8
        if stored != want and not {stored, want} <= {FP16, FP32}:
            raise RuntimeError(f"coremltools left {op.name} in {stored} instead of {want}")
    return model


def lower(
    programs: Programs, recipe: Recipe, samples: Samples, path: Path, ios: int = IOS18
) -> dict[str, Delegation]:
    """Write the programs in the precisions of ``recipe``.

    For iOS 18 one package with the functions ``encode``, ``step``, ``decode`` and ``encode_image``, which
    takes a picture and shares the weights of ``encode``. Before, a package has one function: ``path`` is
    then a folder with a package for each.

    Args:
        programs: rewritten programs.
        recipe: which layer gets which precision.
        samples: calibration inputs of each program; may be empty where the recipe has no w8a8.
        path: what to write; appears when it is whole.
        ios: 17 or 18, the oldest system that will run it.

    Returns:
        Nothing is known of delegation: only a device splits the program among its units.

    Raises:
        ValueError: the recipe needs calibration and there are no samples.
    """
    if recipe.needs_calibration and not samples:
        raise ValueError(f"recipe '{recipe.name}' needs calibration samples")
    half = any(rule.precision != FP32 for rule in recipe.rules)
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
    """:func:`lower` from models that are already converted."""
    with tempfile.TemporaryDirectory(dir=path.parent) as tmp, coremltools() as ct:
        folder = Path(tmp) / "functions"
        folder.mkdir()
        for name, function in converted.items():
            model = realize(function, recipe, INPUTS[name], _calls(name, samples), ios)
            model.save(str(folder / f"{name}.mlpackage"))
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


def _calls(function: str, samples: Samples) -> Calls:
    """Calibration inputs of a function; a picture's values are 0 to 255."""
    if function == "encode_image":
        return [(255 * image,) for (image,) in samples.get("encode", [])]
    return samples.get(function, [])


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
