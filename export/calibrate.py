"""Activation ranges: what every tensor holds while the float programs restore real pictures."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from export.observers import OBSERVERS, HistogramObserver, bounds, make_observer
from export.programs import PROGRAM_NAMES, Programs, Samples
from export.simulate import Ranges, find_layers, insert, trace

BATCH = 8  # samples that run through the observers at once


@torch.no_grad()
def calibrate(
    programs: Programs,
    samples: Samples,
    choosers: Mapping[str, type[HistogramObserver]] = OBSERVERS,
    bits: int = 8,
) -> Ranges:
    """Activation range of every tensor that some recipe could round.

    Args:
        programs: float programs.
        samples: their inputs on real trajectories (``export.samples.collect_samples``).
        choosers: of each program the class that chooses its ranges.
        bits: of the integers that the range is for.
    """
    ranges: Ranges = {}
    for name in PROGRAM_NAMES:
        graph = trace(programs.modules[name])
        tensors = {t: None for layer in find_layers(graph) for t in (*layer.inputs, layer.output)}
        observers = {tensor.name: make_observer(choosers[name], bits) for tensor in tensors}
        for tensor in tensors:
            insert(graph, tensor, observers[tensor.name], list(tensor.users))
        graph.recompile()
        calls = samples[name]
        for start in range(0, len(calls), BATCH):
            graph(*(torch.cat(inputs) for inputs in zip(*calls[start : start + BATCH], strict=True)))
        ranges[name] = {tensor: bounds(observed) for tensor, observed in observers.items()}
    return ranges
