"""Rewrites, and one module for each target that turns the programs into files."""

import logging

# On every import torchao reports GPU kernels it has no use for here, and torch its own enums.
for name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(name).setLevel(logging.ERROR)
