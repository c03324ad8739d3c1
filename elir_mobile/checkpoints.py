"""Load a restorer from any file that holds one, fetch the published ones, and save our own.

Three formats, one result, a collapsed float32 :class:`Restorer`:

- ``.pth``: upstream's release, a plain state dict ``fmir.* mmse.* enc.layers.* dec.layers.*``;
- ``.ckpt``: upstream's training checkpoint, four state dicts ``state_dict_{fmir,mmse,enc,dec}``,
  usually overparametrized (upstream ``ELIR/models/elir.py:load_weights``);
- ``.safetensors``: ours, the same names as ``.pth``, usually in float16, with the model's facts as
  metadata.

Each may lie in what training programs wrap around it: a dictionary (``params_ema``, ``state_dict``, …) and
names that begin with ``module.`` (DistributedDataParallel) or ``_orig_mod.`` (``torch.compile``).

The architecture is read from the tensors' shapes. Nothing in a file is ever executed. Downloads are
trusted on first use: their sha256 is kept beside the cached file, and another one later is an error.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

import torch
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from elir_mobile.core.errors import UserError
from elir_mobile.core.files import cache_dir, clear, opened, read_bytes, write_text, written
from elir_mobile.core.manifest import sha256_of
from elir_mobile.core.reader import OPTIONAL, NotNegative, Positive, read
from elir_mobile.models.autoencoder import Decoder, Encoder, Form
from elir_mobile.models.overparam import collapse_pair
from elir_mobile.models.restorer import Architecture, Restorer
from elir_mobile.tasks import Task, get_task
from elir_mobile.terminal import Described, Terminal

StateDict = dict[str, Tensor]

PARTS = ("fmir", "mmse", "enc", "dec")
DEMO_WEIGHTS = Path(__file__).with_name("weights")
# Encoder and decoder as they were trained together: a teacher for further training. The decoder is that of
# all demo models, and is stored here alone.
DEMO_AUTOENCODER = "demo-autoencoder.safetensors"
RELEASE = "https://github.com/eladc-git/ELIR/releases/download/v1.0/"
SUFFIXES = (".pth", ".ckpt", ".pt", ".safetensors")
NETWORK_TIMEOUT = 30  # seconds without a byte
# What training programs call the weights in a file with more, the averaged ones first: BasicSR, Lightning and
# PyTorch's own examples.
WRAPPERS = (
    "params_ema",
    "ema_state_dict",
    "model_ema",
    "ema",
    "params",
    "state_dict",
    "model_state_dict",
    "model",
)
PREFIXES = ("module.", "_orig_mod.")
MOST_WRAPPERS = 8
SLOWEST = 1000  # bytes a second, on average, below which a download is given up after a minute
MOST_BYTES = 4 << 30  # of a download: a training checkpoint of the released network has under 1 GB
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
    domain: str  # what it was trained on: tasks.ALIGNED_FACE or tasks.PHOTO


@dataclass(frozen=True)
class _Facts:
    """What our files say of their network."""

    task: str
    size: Positive
    steps: Positive
    sigma_s: NotNegative
    domain: str = field(default="", metadata=OPTIONAL)
    autoencoder: str | None = field(default=None, metadata=OPTIONAL)


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
            autoencoder=_form(state),
        )
    except KeyError as error:
        raise UserError(f"not an ELIR network: it has no usable {error.args[0]}") from error
    except IndexError as error:
        raise UserError("not an ELIR network: its weights have other dimensions") from error


def _form(state: Mapping[str, Tensor]) -> Form:
    return "half" if state["enc.layers.0.weight"].shape[-1] == 6 else "taesd"


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    indices = {int(m[1]) for m in map(re.compile(pattern).match, state) if m}
    return max(indices) + 1 if indices else 0


def build_restorer(state: Mapping[str, Tensor]) -> Restorer:
    """A collapsed, frozen, evaluation-mode float32 restorer with these weights.

    Raises:
        UserError: tensors are missing, left over, of the wrong shape, or not finite.
    """
    state = {name: tensor.float() for name, tensor in collapse_state_dict(state).items()}
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            raise UserError(f"the weights at {name} are not finite: get a checkpoint from before they broke")
    try:
        restorer = Restorer(infer_architecture(state))
        restorer.load_state_dict(state)
    except (RuntimeError, ValueError) as error:
        detail = str(error).splitlines()[-1].strip()
        raise UserError(f"the checkpoint is of another architecture: {detail}") from error
    return restorer.eval().requires_grad_(False)


def unwrapped(content: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    """What lies in the dictionaries and under the prefixes of :data:`WRAPPERS` and :data:`PREFIXES`.

    Args:
        path: for errors.

    Raises:
        UserError: it is wrapped more often than any program does, or in itself.
    """
    for _ in range(MOST_WRAPPERS):
        filled = (
            content[name] for name in WRAPPERS if isinstance(content.get(name), Mapping) and content[name]
        )
        inner = next(filled, None)  # upstream's own checkpoints have an empty one
        if inner is None:
            prefixes = (p for p in PREFIXES if content and all(str(name).startswith(p) for name in content))
            prefix = next(prefixes, None)
            if prefix is None:
                return content
            inner = {name.removeprefix(prefix): value for name, value in content.items()}
        content = inner
    raise UserError(
        f"the weights in {path} lie in {MOST_WRAPPERS} dictionaries, or in themselves: save them alone"
    )


def read_state_dict(path: Path) -> tuple[StateDict, dict[str, str]]:
    """Tensors and metadata of a checkpoint file, names as in upstream's ``.pth``.

    Raises:
        UserError: missing, truncated, of unknown format, or would execute code.
    """
    if not path.exists():
        raise UserError(f"no weights file at {path}: check the path")
    if path.suffix == ".safetensors":
        try:
            with opened(path), safe_open(path, framework="pt") as file:
                names = list(file.keys())  # noqa: SIM118 - the handle is no mapping
                tensors = {name: file.get_tensor(name) for name in names}
                return _tensors(unwrapped(tensors, path), path), file.metadata() or {}
        except SafetensorError as error:
            raise UserError(f"{path} is damaged or not a safetensors file: download it again") from error
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path} is not a known weights file: use .pth, .ckpt or .safetensors")
    data = io.BytesIO(read_bytes(path))  # so that a damaged file cannot pass for a failing disk
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
    content = unwrapped(content, path)
    if "state_dict_fmir" in content:
        missing = [part for part in PARTS if not isinstance(content.get(f"state_dict_{part}"), dict)]
        if missing:
            raise UserError(f"{path} lacks state_dict_{missing[0]}: it is not a whole ELIR checkpoint")
        content = {
            f"{part}.{name}": tensor
            for part in PARTS
            for name, tensor in unwrapped(content[f"state_dict_{part}"], path).items()
        }
    return _tensors(content, path), {}


def _tensors(content: Mapping[str, Any], path: Path) -> StateDict:
    """The tensors of a state dict.

    Raises:
        UserError: there is none, or they are a training run's or a quantized file's.
    """
    state = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if not state:
        raise UserError(f"{path} holds no tensors at its top level: it is not an ELIR checkpoint")
    if any(name.startswith("student.") for name in state):
        raise UserError(f"{path} is a training run's own: name the .safetensors that it writes at its end")
    for name, tensor in state.items():
        if not tensor.is_floating_point() and not name.endswith("num_batches_tracked"):
            kind = str(tensor.dtype).removeprefix("torch.")
            raise UserError(f"{path} holds {kind} at {name}: name the float weights that it was made from")
    return state


def is_address(weights: str) -> bool:
    """Whether ``weights`` is an http(s) address; anything else is a path."""
    return weights.lower().startswith(("http://", "https://"))


def absolute_weights(weights: str) -> str:
    """``weights`` for a process in another working directory: a path made absolute, a name left alone.

    ``demo`` and ``released`` stay names even where a file or folder is called so: that one is ``./demo``.
    """
    named = weights in ("demo", "released") or is_address(weights)
    return weights if named else str(Path(weights).resolve())


def load_weights(weights: str, task: Task) -> tuple[Restorer, ModelInfo]:
    """The restorer named on the command line.

    Args:
        weights: ``demo``, ``released``, a path, or an http(s) address.
        task: names the demo and the released file; gives size, K, sigma_s and domain where a file does not.

    Raises:
        UserError: none bundled or released for the task, no network, another file than the one first
            downloaded; see :func:`read_state_dict` and :func:`build_restorer` too.
    """
    name, source = weights, weights
    if weights == "demo":
        path = DEMO_WEIGHTS / f"demo-{task.name}.safetensors"
        source = f"bundled {path.name}"
        if not path.is_file():
            raise UserError(
                f"no demo weights are bundled for task '{task.name}': name a checkpoint with --weights"
            )
    elif weights == "released":
        if not task.release:
            raise UserError(
                f"upstream released no weights for task '{task.name}': name a file with --weights"
            )
        source = RELEASE + task.release
        path = download(source, cache_dir() / "weights")
    elif is_address(weights):
        # A folder an address: two sites may call different files the same.
        path = download(weights, cache_dir() / "weights" / hashlib.sha256(weights.encode()).hexdigest()[:12])
        name = path.stem
    else:
        path = Path(weights)
        name = path.stem
    state, metadata = read_state_dict(path)
    stated = _stated(metadata, path)
    if digest := stated.get("autoencoder"):
        shared = path.with_name(DEMO_AUTOENCODER)
        tensors, _ = read_state_dict(shared)
        state |= {name: tensor for name, tensor in tensors.items() if name.startswith("dec.")}
        if sha256_of(shared) != digest:
            raise UserError(f"{path.name} was trained with another decoder than {shared}: get both anew")
    try:
        restorer = build_restorer(state)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    info = ModelInfo(name, source, sha256_of(path), True, task.size, task.steps, task.sigma_s, task.domain)
    if stated:
        if stated["task"] != task.name:
            raise UserError(f"{path} was trained for task '{stated['task']}', not '{task.name}'")
        known = {key: stated[key] for key in ("size", "steps", "sigma_s")}
        info = replace(info, **known, domain=stated.get("domain", task.domain))
    return restorer, info


def _stated(metadata: Mapping[str, str], path: Path) -> dict[str, Any]:
    """What :func:`save_weights` wrote beside the weights; empty where it is not ours.

    Raises:
        UserError: it is damaged.
    """
    if "elir" not in metadata:
        return {}
    try:
        stated = json.loads(metadata["elir"])
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: its facts are no JSON; get it again") from error
    read(_Facts, stated, path)
    return dict(stated)


def random_weights(task: Task, seed: int) -> tuple[Restorer, ModelInfo]:
    """The released architecture with seeded random weights: for size and speed, never quality."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        restorer = Restorer(task.arch).eval().requires_grad_(False)
    text = f"random weights, seed {seed}"
    digest = hashlib.sha256(text.encode()).hexdigest()
    info = ModelInfo("random", text, digest, False, task.size, task.steps, task.sigma_s, task.domain)
    return restorer, info


def save_weights(
    restorer: Restorer,
    path: Path,
    *,
    task: str,
    size: int,
    steps: int,
    sigma_s: float,
    domain: str | None = None,
    shared_decoder: bool = False,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write safetensors with the facts that :func:`load_weights` reads back.

    Args:
        domain: what it was trained on; None: what the task's networks usually are.
        shared_decoder: leave the decoder out; that of the file ``DEMO_AUTOENCODER`` beside ``path``, see
            :func:`save_autoencoder`, is this network's.
        dtype: float32 where a quantizer's grid must find the very weights it was trained with.
    """
    domain = domain or get_task(task).domain
    facts = {"task": task, "size": size, "steps": steps, "sigma_s": sigma_s, "domain": domain}
    state = dict(restorer.state_dict())
    if shared_decoder:
        facts["autoencoder"] = sha256_of(path.with_name(DEMO_AUTOENCODER))
        state = {name: tensor for name, tensor in state.items() if not name.startswith("dec.")}
    _write(state, path, dtype, {"elir": json.dumps(facts, sort_keys=True)})


def save_autoencoder(encoder: Encoder, decoder: Decoder, path: Path) -> None:
    """Both in float16, as ``enc.*`` and ``dec.*``: the file ``DEMO_AUTOENCODER``."""
    halves = {"enc": encoder, "dec": decoder}
    state = {f"{part}.{name}": x for part, net in halves.items() for name, x in net.state_dict().items()}
    _write(state, path, torch.float16, {})


def _write(state: StateDict, path: Path, dtype: torch.dtype, metadata: dict[str, str]) -> None:
    # A value that float16 does not hold keeps its tensor in float32.
    narrow = {name: tensor.to(dtype).contiguous() for name, tensor in state.items()}
    state = {
        name: tensor if tensor.isfinite().all() else state[name].contiguous()
        for name, tensor in narrow.items()
    }
    with written(path) as staged:
        staged.write_bytes(save(state, metadata))  # save_file has errors of its own for a full disk


def build_autoencoder(state: Mapping[str, Tensor]) -> tuple[Encoder, Decoder]:
    """Encoder and decoder of the ``enc.*`` and ``dec.*`` of a checkpoint, frozen float32."""
    form, latent_channels = _form(state), state["dec.layers.0.weight"].shape[1]
    encoder = Encoder(state["enc.layers.0.weight"].shape[0], latent_channels, form)
    decoder = Decoder(state["dec.layers.0.weight"].shape[0], latent_channels, form)
    for part, net in (("enc.", encoder), ("dec.", decoder)):
        net.load_state_dict({n[len(part) :]: x.float() for n, x in state.items() if n.startswith(part)})
        net.eval().requires_grad_(False)
    return encoder, decoder


def load_taesd(*paths: Path) -> tuple[Encoder, Decoder]:
    """The tiny autoencoder as its author publishes it, TAESD3 above all.

    Args:
        paths: one file with both halves, in the layout of diffusers' ``AutoencoderTiny``
            (``encoder.layers.N…``, ``decoder.layers.N…``), or the two files of madebyollin/taesd
            (``N…``), ``.pth`` or ``.safetensors``.

    Returns:
        Encoder and decoder, frozen float32, of images in [0, 1]. Diffusers' classes take and give
        [-1, 1], but convert around these very layers, so the weights are the same.

    Raises:
        UserError: a half is missing, or they are of another autoencoder.
    """
    merged: StateDict = {}
    for path in paths:
        state, _ = read_state_dict(path)
        # The author's two files are bare sequences. Layer 0 of the decoder's is the soft clamp, which has no
        # weights; ours is outside of the layers.
        bare = "encoder" if "0.weight" in state else "decoder" if "1.weight" in state else None
        for name, tensor in state.items():
            first, _, rest = name.partition(".")
            if bare and first.isdigit():
                merged[f"{bare[:3]}.layers.{int(first) - (bare == 'decoder')}.{rest}"] = tensor
            elif first in ("encoder", "decoder") and not bare:
                merged[f"{first[:3]}.{rest}"] = tensor
    listed = " and ".join(map(str, paths))
    try:
        return build_autoencoder(merged)
    except KeyError as error:
        raise UserError(f"{listed} lacks a half of TAESD: give the encoder and the decoder") from error
    except (RuntimeError, ValueError) as error:
        detail = str(error).splitlines()[-1].strip()
        raise UserError(f"{listed} is of another autoencoder than TAESD: {detail}") from error


def download(address: str, folder: Path) -> Path:
    """The checkpoint at ``address``, fetched into ``folder`` once.

    An address that ends in ``#sha256=`` and 64 digits says which file it must be. Otherwise trust on first
    use: the sha256 of the first file seen there, downloaded or put there by hand, is written to
    ``NAME.sha256`` (the format of ``sha256sum -c``) and every later one must have it.

    Raises:
        UserError: no network and no file, a body without end, not a checkpoint, not the file that the address
            names, or not the file first seen.
    """
    try:
        parts = urlsplit(address)
    except ValueError as error:
        raise UserError(f"{address} is no address: check it") from error
    target = folder / Path(parts.path).name
    record = target.with_name(f"{target.name}.sha256")
    if target.suffix not in SUFFIXES:
        raise UserError(f"{address} does not end in the name of a weights file: {', '.join(SUFFIXES)}")
    wanted = parts.fragment.removeprefix("sha256=") if parts.fragment.startswith("sha256=") else None
    if target.is_file():
        clear(target)  # of two downloads at once one may have been killed
        _verify(target, record, wanted)
        return target
    with written(target) as staged:
        try:
            _fetch(address, staged)
        except (OSError, HTTPException, ValueError) as error:  # the last: an address with odd characters
            raise UserError(
                f"could not download {address} ({getattr(error, 'reason', None) or error}): "
                f"fetch {target.name} by other means and put it at {target}"
            ) from error
        if wanted not in (None, digest := sha256_of(staged)):  # before anything reads it
            raise UserError(f"{address} sent a file with the sha256 {digest}: do not use it")
        try:
            read_state_dict(staged)
        except UserError as error:
            raise UserError(f"{address} sent something else than a checkpoint: check the address") from error
        _verify(staged, record, wanted)
    return target


class _Redirects(HTTPRedirectHandler):
    """Follows a redirect to another address of the web alone, and none that gives encryption up."""

    def redirect_request(
        self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        if urlsplit(newurl).scheme not in {"https", req.type}:
            raise URLError(f"it redirects to {newurl}, which is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _fetch(address: str, path: Path) -> None:
    columns = (Described(), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=Terminal(stderr=True))
    start = time.monotonic()
    with (
        build_opener(_Redirects).open(address, timeout=NETWORK_TIMEOUT) as answer,
        path.open("wb") as file,
        progress,
    ):
        said = answer.headers.get("Content-Length") or ""
        length = int(said) if said.isdecimal() and len(said) < 20 else None
        bar = progress.add_task(path.name, total=length)
        while chunk := answer.read(1 << 18):
            file.write(chunk)
            progress.advance(bar, len(chunk))
            if max(length or 0, file.tell()) > MOST_BYTES:
                raise OSError(f"it has more than the {MOST_BYTES} bytes that are the most")
            seconds = time.monotonic() - start
            if seconds > 2 * NETWORK_TIMEOUT and file.tell() < SLOWEST * seconds:
                raise OSError(f"it sent {file.tell()} bytes in {seconds:.0f} s")
        if length is not None and file.tell() != length:
            raise OSError(f"it broke off after {file.tell()} of {length} bytes")


def _verify(path: Path, record: Path, wanted: str | None) -> None:
    """Hold the file's sha256 against the one ``wanted``, and note it or hold it against the one noted.

    Raises:
        UserError: it is another file.
    """
    digest = sha256_of(path)
    if wanted not in (None, digest):
        raise UserError(f"{path.name} has the sha256 {digest}, not {wanted}: do not use it")
    if not record.is_file():
        write_text(record, f"{digest}  {path.name}\n")
    elif record.read_text().split()[:1] != [digest]:
        raise UserError(
            f"{path.name} is not the file first used, whose sha256 is in {record}: "
            "get that file again, or delete the record if you trust the new one"
        )
