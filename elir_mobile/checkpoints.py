"""Load a restorer from any file that holds one, and save our own.

Three formats, one result, a collapsed float32 :class:`Restorer`:

- ``.pth``: upstream's release, a plain state dict ``fmir.* mmse.* enc.layers.* dec.layers.*``;
- ``.ckpt``: upstream's training checkpoint, four state dicts ``state_dict_{fmir,mmse,enc,dec}``,
  usually overparametrized (upstream ``ELIR/models/elir.py:load_weights``);
- ``.safetensors``: ours, the same names as ``.pth``, usually in float16, with the model's facts as
  metadata.

The architecture is read from the tensors' shapes. Nothing in a file is ever executed.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlparse

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from elir_mobile.errors import UserError
from elir_mobile.models.overparam import collapse_pair
from elir_mobile.models.restorer import Architecture, Restorer
from elir_mobile.tasks import Task, get_task

StateDict = dict[str, Tensor]

PARTS = ("fmir", "mmse", "enc", "dec")
DEMO_WEIGHTS = Path(__file__).with_name("weights")
# The convolution pairs of the overparametrized form: 3×3 at index i of a block, 1×1 at i + 1.
PAIR = {"fmir": (2, 3), "mmse": (0, 1)}


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a loaded model besides its weights."""

    name: str
    source: str  # file name or address
    sha256: str  # of the file; of the seed's text for random weights
    trained: bool
    size: int  # image side it is meant for, pixels
    steps: int  # K
    sigma_s: float


def collapse_state_dict(state: Mapping[str, Tensor]) -> StateDict:
    """Merge every overparametrized 3×3→1×1 pair into the 3×3 convolution it equals.

    Computed in float64, since the sum runs over four times the width. A state dict that is
    already collapsed comes back as it is.
    """
    out = dict(state)
    for part, (first, second) in PAIR.items():
        pattern = re.compile(rf"({part}\..*\.block)\.{second}\.weight$")
        for match in filter(None, map(pattern.match, state)):
            wide, narrow = f"{match[1]}.{first}", f"{match[1]}.{second}"
            names = (f"{wide}.weight", f"{wide}.bias", f"{narrow}.weight", f"{narrow}.bias")
            try:
                weight, bias = collapse_pair(*(state[name].double() for name in names))
            except (KeyError, RuntimeError, IndexError) as error:
                raise UserError(f"the weights at {match[1]} are not a 3×3 and 1×1 pair") from error
            out[names[0]], out[names[1]] = weight.to(state[names[0]].dtype), bias.to(state[names[1]].dtype)
            del out[names[2]], out[names[3]]
    return out


def infer_architecture(state: Mapping[str, Tensor]) -> Architecture:
    """Read every width and depth from a collapsed state dict's names and shapes.

    Raises:
        UserError: the names or shapes are not an ELIR network's.
    """
    try:
        ch_mult = []
        for level in range(_count(state, r"fmir\.down_blocks\.(\d+)\.")):
            down = state.get(f"fmir.down_blocks.{level}.1.conv.weight")
            ch_mult.append(1 if down is None else down.shape[0] // down.shape[1])
        return Architecture(
            enc_width=state["enc.layers.0.weight"].shape[0],
            dec_width=state["dec.layers.0.weight"].shape[0],
            latent_channels=state["fmir.first_proj.weight"].shape[1],
            coarse_width=state["mmse.lrm.0.RDB1.conv1.block.0.weight"].shape[0],
            n_rrdb=_count(state, r"mmse\.lrm\.(\d+)\."),
            hid_channels=state["fmir.first_proj.weight"].shape[0],
            n_mid_blocks=_count(state, r"fmir\.mid_blocks\.(\d+)\."),
            ch_mult=tuple(ch_mult),
            t_emb_dim=state["fmir.time_mlp.linear1.weight"].shape[1],
        )
    except (KeyError, IndexError) as error:
        raise UserError(f"not an ELIR network: it has no usable {error.args[0]}") from error


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    indices = {int(m[1]) for m in map(re.compile(pattern).match, state) if m}
    return max(indices) + 1 if indices else 0


def build_restorer(state: Mapping[str, Tensor]) -> Restorer:
    """A collapsed, frozen, evaluation-mode float32 restorer with these weights.

    Raises:
        UserError: tensors are missing, left over or of the wrong shape.
    """
    state = {name: tensor.float() for name, tensor in collapse_state_dict(state).items()}
    try:
        restorer = Restorer(infer_architecture(state))
        restorer.load_state_dict(state)
    except (RuntimeError, ValueError) as error:
        detail = str(error).splitlines()[-1].strip()
        raise UserError(f"the checkpoint is of another architecture: {detail}") from error
    return restorer.eval().requires_grad_(False)


def read_state_dict(path: Path) -> tuple[StateDict, dict[str, str]]:
    """Tensors and metadata of a checkpoint file, names as in upstream's ``.pth``.

    Raises:
        UserError: missing, truncated, of unknown format, or would execute code.
    """
    if not path.is_file():
        raise UserError(f"no weights file at {path}: check the path")
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as file:
                names = list(file.keys())  # noqa: SIM118 - the handle is no mapping
                return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
        except SafetensorError as error:
            raise UserError(f"{path} is damaged or not a safetensors file: download it again") from error
    if path.suffix not in (".pth", ".ckpt", ".pt"):
        raise UserError(f"{path} is not a known weights file: use .pth, .ckpt or .safetensors")
    data = io.BytesIO(path.read_bytes())  # so that a damaged file cannot pass for a failing disk
    try:
        content = torch.load(data, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many kinds for files that are no checkpoint
        if "Unsupported" in str(error) or "GLOBAL" in str(error):
            why = "contains more than tensors and was not loaded, since that could execute code"
        else:
            why = "is truncated, damaged or not a PyTorch checkpoint"
        raise UserError(f"{path} {why}: get the file again from a source you trust") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, not a state dict")
    if "state_dict_fmir" in content:
        missing = [part for part in PARTS if not isinstance(content.get(f"state_dict_{part}"), dict)]
        if missing:
            raise UserError(f"{path} lacks state_dict_{missing[0]}: it is not a whole ELIR checkpoint")
        content = {
            f"{part}.{name}": tensor
            for part in PARTS
            for name, tensor in content[f"state_dict_{part}"].items()
        }
    state = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if not state:
        raise UserError(f"{path} holds no tensors at its top level: it is not an ELIR checkpoint")
    return state, {}


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_weights(weights: str, task: Task) -> tuple[Restorer, ModelInfo]:
    """The restorer named on the command line.

    Args:
        weights: ``demo``, a path, or an http(s) address.
        task: gives size, K and sigma_s where the file does not state them.

    Raises:
        UserError: see :func:`read_state_dict` and :func:`build_restorer`.
    """
    if weights == "demo":
        path = DEMO_WEIGHTS / f"demo-{task.name}.safetensors"
        if not path.is_file():
            named = f", the published {task.release} for one" if task.release else ""
            raise UserError(
                f"no demo weights are bundled for task '{task.name}': name a checkpoint with --weights{named}"
            )
    elif urlparse(weights).scheme in ("http", "https"):
        path = _download(weights)
    else:
        path = Path(weights)
    state, metadata = read_state_dict(path)
    restorer = build_restorer(state)
    info = ModelInfo(
        name="demo" if weights == "demo" else path.stem,
        source=weights if weights != "demo" else f"bundled {path.name}",
        sha256=sha256_of(path),
        trained=True,
        size=task.size,
        steps=task.steps,
        sigma_s=task.sigma_s,
    )
    if facts := metadata.get("elir"):
        stated = json.loads(facts)
        if stated["task"] != task.name:
            raise UserError(f"{path} was trained for task '{stated['task']}', not '{task.name}'")
        info = replace(info, **{key: stated[key] for key in ("size", "steps", "sigma_s")})
    return restorer, info


def random_weights(task: Task, seed: int) -> tuple[Restorer, ModelInfo]:
    """The released architecture with seeded random weights: for size and speed, never quality."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        restorer = Restorer(task.arch).eval().requires_grad_(False)
    text = f"random weights, seed {seed}"
    info = ModelInfo(
        name="random",
        source=text,
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        trained=False,
        size=task.size,
        steps=task.steps,
        sigma_s=task.sigma_s,
    )
    return restorer, info


def save_weights(
    restorer: Restorer,
    path: Path,
    *,
    task: str,
    size: int,
    steps: int,
    sigma_s: float,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write safetensors with the facts that :func:`load_weights` reads back.

    ``dtype`` is float32 where a quantizer's grid must find the very weights it was trained with.
    """
    state = {name: tensor.to(dtype).contiguous() for name, tensor in restorer.state_dict().items()}
    facts = {"task": task, "size": size, "steps": steps, "sigma_s": sigma_s}
    get_task(task)
    with tempfile.TemporaryDirectory(dir=path.parent) as tmp:
        staged = Path(tmp) / path.name
        save_file(state, staged, metadata={"elir": json.dumps(facts, sort_keys=True)})
        staged.chmod(0o644)  # safetensors makes it private
        staged.replace(path)


def _download(address: str) -> Path:
    """Fetch a checkpoint into the cache, once."""
    from elir_mobile.data.faces import cache_dir

    target = cache_dir() / "weights" / Path(urlparse(address).path).name
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(target.name + ".part")
        try:
            torch.hub.download_url_to_file(address, str(partial), progress=True)
        except OSError as error:
            raise UserError(
                f"could not download {address}: fetch it by other means and give its path as --weights"
            ) from error
        partial.rename(target)
    return target
