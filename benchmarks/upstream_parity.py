"""Upstream's own forward against ours: ``python -m benchmarks.upstream_parity UPSTREAM_DIR``.

UPSTREAM_DIR is a checkout of https://github.com/eladc-git/ELIR; its code is imported from there and
never kept here. Its modules are built from its own configurations, given random weights under which
signals survive, and saved as its release (``.pth``) and its training (overparametrized ``.ckpt``) do.
Our loader reads those files, and both networks restore the same image with sigma_s 0. Writes
``benchmarks/results/upstream-parity.json``.

``--fixture DIR`` writes what ``tests/test_upstream.py`` checks without upstream's code: a tiny network
in both formats with upstream's outputs. Its matrices are Toeplitz and share one storage, which is how an
overparametrized network fits in little more than a hundred kilobytes.
"""

from __future__ import annotations

import importlib
import io
import json
import sys
import tempfile
from contextlib import redirect_stdout
from itertools import accumulate
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Annotated, Any

import torch
import typer
import yaml
from rich.console import Console
from rich.progress import track
from rich.table import Table
from safetensors.torch import save_file
from torch import Tensor, nn

from benchmarks.released import RESULTS
from elir_mobile.checkpoints import PARTS, load_taesd, load_weights
from elir_mobile.core.errors import UserError, exits_with_2
from elir_mobile.core.files import write_json
from elir_mobile.runtimes.table import package_versions
from elir_mobile.tasks import get_task

BUDGET = 1e-4  # greatest absolute difference of a pixel in [0, 1]
CASES = (("bfr", 512), ("sr", 256), ("bsr", 256))  # sides of upstream's evaluation
FIXTURE_SIDE = 32
FIXTURE_WIDTH = 8  # of the autoencoder, 64 upstream
FIXTURE_STEPS = 2
FIXTURE_NET = {"ch_mult": [1, 2], "n_mid_blocks": 1, "hid_channels": 32, "t_emb_dim": 32}
FIXTURE_COARSE = {"c_hid": 8, "n_rrdb": 1}


def import_upstream(folder: Path) -> ModuleType:
    """``ELIR.models.elir`` of the checkout, with a stand-in for the hub that its autoencoder asks.

    Raises:
        UserError: no checkout there.
    """
    if not (folder / "ELIR" / "models" / "elir.py").is_file():
        raise UserError(f"{folder} is no checkout of ELIR: git clone https://github.com/eladc-git/ELIR")
    sys.path.insert(0, str(folder.resolve()))
    elir = importlib.import_module("ELIR.models.elir")
    taesd = importlib.import_module("ELIR.models.taesd")
    # Its weights are replaced anyway, so any of the right shapes will do.
    hub = SimpleNamespace(from_pretrained=lambda _: taesd.TAESD(pretrained=False))
    sys.modules["diffusers"] = ModuleType("diffusers")
    sys.modules["diffusers"].AutoencoderTiny = hub  # type: ignore[attr-defined]
    return elir


def parameters(folder: Path, task: str) -> dict[str, Any]:
    """The arguments of upstream's network in its configuration for inference."""
    text = (folder / "configs" / f"elir_infer_{task}.yaml").read_text()
    return yaml.safe_load(text)["model_cfg"]["arch_cfg"]["params"]


def build(elir: ModuleType, params: dict[str, Any], overparametrized: bool) -> Any:
    """Upstream's network without noise, on the CPU."""
    params = json.loads(json.dumps(params))
    for part in ("fmir_cfg", "mmse_cfg"):
        params[part]["params"]["overparametrization"] = overparametrized
    with redirect_stdout(io.StringIO()):  # each module prints its size
        network = elir.Elir(**params).cpu()
    network.sigma_s = 0.0
    network.noise = torch.zeros(())  # of any latent
    return network


def randomize(network: Any) -> None:
    """Weights under which signals survive the depth; default ones fade to the biases."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.kaiming_normal_(module.weight)
            module.weight.data *= 0.8
        if isinstance(module, nn.GroupNorm):
            nn.init.normal_(module.weight, 1, 0.2)
            nn.init.normal_(module.bias, 0, 0.2)


def level(network: Any) -> None:
    """Scale the last layers so that latents and what K steps add spread by 1, pixels by 0.15.

    All parts then count in what is compared, and hardly a pixel is clipped.
    """
    x = picture(64)
    network.enc.layers[-1].weight.data /= network.enc(x).std()
    z = network.trajectories(x)
    network.fmir.final_proj.weight.data /= (z[-1] - z[0]).std()
    z = network.trajectories(x)
    nn.init.constant_(network.dec.layers[-1].bias, 0.5)
    network.dec.layers[-1].weight.data *= 0.15 / network.dec(z[-1]).std()


def toeplitz(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the same shapes and spreads, all of them views of one small storage.

    Each row of a weight is the row before moved on by one number, so that a matrix needs only as many
    numbers as its first row and its first column have. ``torch.save`` keeps the views.
    """
    counts = [t.shape[0] + t[0].numel() - 1 for t in state.values()]
    pool = torch.cat([t.flatten()[:count] for t, count in zip(state.values(), counts, strict=True)])
    starts = [0, *accumulate(counts)]
    return {
        name: pool.as_strided(t.shape, (1, *t.stride()[1:]), start)
        for (name, t), start in zip(state.items(), starts, strict=False)
    }


def save_as_upstream(state: dict[str, Tensor], path: Path) -> None:
    """A ``.pth`` or ``.ckpt`` of upstream's own names, as its release and its training write them."""
    if path.suffix == ".pth":
        torch.save(state, path)
        return
    parts: dict[str, dict[str, Tensor]] = {f"state_dict_{part}": {} for part in PARTS}
    for name, tensor in state.items():
        part, _, rest = name.partition(".")
        parts[f"state_dict_{part}"][rest] = tensor
    torch.save({"epoch": 1, "global_step": 1, "state_dict": {}, **parts}, path)


def check_task(elir: ModuleType, params: dict[str, Any], task: str, size: int) -> list[dict[str, Any]]:
    """Our result from the ``.pth`` and the ``.ckpt`` of one network against upstream's.

    ``max_abs`` is the greatest difference of a pixel in [0, 1]; ``std`` the spread of upstream's pixels,
    which it is small against; ``unclipped`` the share of them that could differ, strictly within (0, 1).

    Raises:
        UserError: our task table has another K than upstream's configuration.
    """
    network = build(elir, params, overparametrized=True)
    steps = network.K
    if get_task(task).steps != steps:
        raise UserError(f"upstream runs {task} with K = {steps}: correct the row in elir_mobile/tasks.py")
    randomize(network)
    level(network)
    x, rows = picture(size), []
    with tempfile.TemporaryDirectory() as tmp:
        ckpt, pth = Path(tmp) / f"elir_{task}.ckpt", Path(tmp) / f"elir_{task}.pth"
        save_as_upstream(network.state_dict(), ckpt)
        network.load_weights(str(ckpt))  # upstream's own way to the network it releases: it collapses here
        save_as_upstream(network.state_dict(), pth)
        released = build(elir, params, overparametrized=False)
        released.load_weights(str(pth))
        expected = released.inference(x)
        for path in (pth, ckpt):
            restorer, _ = load_weights(str(path), get_task(task))
            noise = torch.zeros(restorer.arch.latent_shape(size, size))
            ours = restorer(x, noise, steps=steps, sigma_s=0.0)
            row = {
                "task": task,
                "size": size,
                "steps": steps,
                "file": path.suffix,
                "max_abs": float((ours - expected).abs().max()),
                "std": float(expected.std()),
                "unclipped": float(((expected > 0) & (expected < 1)).float().mean()),
            }
            rows.append(row)
    return rows


def check_taesd(elir: ModuleType, params: dict[str, Any]) -> dict[str, float]:
    """Greatest differences of encoder and decoder, of which upstream loads diffusers' state dict."""
    x = picture(128)
    network = build(elir, params, overparametrized=False)
    randomize(network)
    level(network)
    state = {f"encoder.{name}": tensor for name, tensor in network.enc.state_dict().items()}
    state |= {f"decoder.{name}": tensor for name, tensor in network.dec.state_dict().items()}
    with tempfile.TemporaryDirectory() as tmp:
        path = Path(tmp) / "diffusion_pytorch_model.safetensors"
        save_file(state, path)
        encoder, decoder = load_taesd(path)
    z = network.enc(x)
    return {
        "encoder_max_abs": float((encoder(x) - z).abs().max()),
        "decoder_max_abs": float((decoder(z) - network.dec(z)).abs().max()),
    }


def picture(size: int) -> Tensor:
    """A smooth picture with fine noise, (1, 3, size, size) in [0, 1], multiples of 1/255."""
    coarse = torch.rand(1, 3, 8, 8)
    smooth = nn.functional.interpolate(coarse, size=(size, size), mode="bicubic")
    return (smooth + 0.05 * torch.randn(1, 3, size, size)).clamp(0, 1).mul(255).round().div(255)


def write_fixture(elir: ModuleType, folder: Path) -> None:
    """``upstream-tiny.pth``, ``.ckpt`` and ``.safetensors``: image, and upstream's output for each file."""
    taesd: Any = importlib.import_module("ELIR.models.taesd")
    conv = taesd.conv

    def narrow(n_in: int, n_out: int, **options: Any) -> nn.Conv2d:
        """The autoencoder's width is a constant upstream, written into each call."""
        return conv(*(FIXTURE_WIDTH if n == 64 else n for n in (n_in, n_out)), **options)

    taesd.conv = narrow
    params = {
        "fm_cfg": {"k_steps": FIXTURE_STEPS, "latent_shape": [16, FIXTURE_SIDE // 8, FIXTURE_SIDE // 8]},
        "fmir_cfg": {"name": "lunet", "params": FIXTURE_NET, "t_emb_dim": FIXTURE_NET["t_emb_dim"]},
        "mmse_cfg": {"name": "rrdbnet", "params": {"c_inout": 16, **FIXTURE_COARSE}},
        "enc_cfg": {"name": "tiny_enc"},
        "dec_cfg": {"name": "tiny_dec"},
    }
    folder.mkdir(parents=True, exist_ok=True)
    x = picture(FIXTURE_SIDE)
    tensors = {"image": x.mul(255).round().byte()}
    for suffix in (".pth", ".ckpt"):
        network = build(elir, params, overparametrized=suffix == ".ckpt")
        randomize(network)
        network.load_state_dict(toeplitz(network.state_dict()))
        level(network)
        path = folder / f"upstream-tiny{suffix}"
        save_as_upstream(toeplitz(network.state_dict()), path)
        network.load_weights(str(path))
        tensors[f"restored{suffix}"] = network.inference(x)
    save_file(tensors, folder / "upstream-tiny.safetensors")


@exits_with_2
@torch.no_grad()
def main(
    upstream: Annotated[Path, typer.Argument(metavar="UPSTREAM_DIR", help="A checkout of eladc-git/ELIR.")],
    fixture: Annotated[
        Path | None, typer.Option(help="Write the fixture of tests/test_upstream.py there, and do no more.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of weights and images.")] = 0,
    results: Annotated[Path, typer.Option(help="Folder of the JSON results.")] = RESULTS,
) -> None:
    """Hold our loader and network against upstream's at the released sizes."""
    console = Console()
    elir = import_upstream(upstream)
    torch.manual_seed(seed)
    if fixture:
        write_fixture(elir, fixture)
        console.print(f"wrote {fixture}")
        return
    rows = []
    for task, size in track(CASES, "comparing", console=console):
        rows += check_task(elir, parameters(upstream, task), task, size)
    taesd = check_taesd(elir, parameters(upstream, "bfr"))
    worst = max(*(row["max_abs"] for row in rows), *taesd.values())
    report = {
        "rows": rows,
        "taesd": taesd,
        "budget": BUDGET,
        "worst": worst,
        "seed": seed,
        "versions": package_versions(),
    }
    path = results / "upstream-parity.json"
    write_json(path, report)
    table = Table("task", "size", "K", "file", "max |ours - upstream's|", "std", "unclipped")
    for row in rows:
        figures = (f"{row['max_abs']:.1e}", f"{row['std']:.2f}", f"{row['unclipped']:.0%}")
        table.add_row(*(str(row[key]) for key in ("task", "size", "steps", "file")), *figures)
    console.print(table)
    console.print(f"worst {worst:.1e}, allowed {BUDGET}; written to {path}")
    if worst > BUDGET:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
