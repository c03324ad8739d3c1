"""Run a ``.tflite`` that was compiled for a Snapdragon's NPU, in Qualcomm's own emulator of it.

LiteRT's library that hands such a file to an NPU is there for Android alone. What it hands over is a context
binary of Qualcomm's, which lies behind the model in the file, a graph for each program; ONNX Runtime's QNN
provider opens the same binary, and has the emulator here
(https://onnxruntime.ai/docs/execution-providers/QNN-ExecutionProvider.html, "QNN context binary cache").
Only the arithmetic is the chip's, not the speed.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from elir_mobile.core.errors import UserError
from elir_mobile.runtimes.onnx import open_session
from elir_mobile.runtimes.programs import Program
from elir_mobile.runtimes.qnn import EMULATED, npu_options

DISPATCH = b"DISPATCH_OP"  # the operator that stands for a graph of the context binary


def open_programs(path: Path, threads: int, names: tuple[str, ...]) -> dict[str, Program]:
    """Load the graphs of the signatures ``names`` of ``path`` into the emulator.

    Args:
        threads: of ONNX Runtime; the emulator has its own.

    Raises:
        UserError: the file is damaged, or not compiled for an NPU as a whole.
    """
    from ai_edge_litert.tools import flatbuffer_utils

    try:
        content = path.read_bytes()
        model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
        signatures = {signature.signatureKey.decode(): signature for signature in model.signatureDefs}
    except Exception as error:  # of a file system or a flatbuffer, whose errors have no base of their own
        raise UserError(f"{path} is damaged or not a LiteRT model: export it again") from error
    if missing := [name for name in names if name not in signatures]:
        raise UserError(f"{path} has no signature '{missing[0]}': export it again")
    return {name: _program(path, content, model, signatures[name], threads) for name in names}


def _program(path: Path, content: bytes, model: Any, signature: Any, threads: int) -> Program:
    from flatbuffers import flexbuffers

    subgraph = model.subgraphs[signature.subgraphIndex]
    kinds = [model.operatorCodes[op.opcodeIndex].customCode for op in subgraph.operators]
    if kinds != [DISPATCH]:
        raise UserError(f"{path} leaves operators to the processor: nothing here runs both parts")
    facts = flexbuffers.Loads(bytes(subgraph.operators[0].customOptions))
    start = facts["bytecode_offset"]
    binary = content[start : start + facts["bytecode_size"]]
    by_argument = {argument.name.decode(): argument.tensorIndex for argument in signature.inputs}
    inputs = [subgraph.tensors[by_argument[name]] for name in sorted(by_argument)]  # args_0, args_1
    outputs = [subgraph.tensors[argument.tensorIndex] for argument in signature.outputs]
    session = open_session(
        path, npu_options(EMULATED, threads), content=_model(facts["name"], binary, inputs, outputs)
    )
    return partial(_run, session, [_graph_name(tensor) for tensor in inputs])


def _graph_name(tensor: Any) -> str:
    """What the compiler calls a tensor of the file in its graph."""
    return re.sub(r"\W", "_", tensor.name.decode())


def _model(graph: str, binary: bytes, inputs: list[Any], outputs: list[Any]) -> bytes:
    """An ONNX model of one node, which is ``graph`` of a context binary."""
    from onnx import TensorProto, helper

    def values(tensors: list[Any]) -> list[Any]:
        return [
            helper.make_tensor_value_info(_graph_name(tensor), TensorProto.FLOAT, list(tensor.shape))
            for tensor in tensors
        ]

    node = helper.make_node(
        "EPContext",
        [_graph_name(tensor) for tensor in inputs],
        [_graph_name(tensor) for tensor in outputs],
        name=graph,
        domain="com.microsoft",
        main_context=1,
        embed_mode=1,
        ep_cache_context=binary,
        source="QNNExecutionProvider",
        partition_name=graph,
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    made = helper.make_model(
        helper.make_graph([node], graph, values(inputs), values(outputs)), opset_imports=opsets, ir_version=10
    )
    content: bytes = made.SerializeToString()
    return content


def _run(session: Any, names: list[str], *inputs: np.ndarray) -> np.ndarray:
    values = zip(names, inputs, strict=True)
    arguments = {name: np.ascontiguousarray(value, np.float32) for name, value in values}
    out: np.ndarray = session.run(None, arguments)[0]
    return out
