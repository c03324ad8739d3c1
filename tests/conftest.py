"""The tiny network that the tests run: every kind of layer, as few of each as there can be."""

# ruff: noqa: E402
from __future__ import annotations

import os

os.cpu_count = lambda: 1  # before anything asks: tests run in as many processes as there are cores

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from elir_mobile.bundle import building, file_entry, task_facts, write_golden, write_manifest, write_table
from elir_mobile.checkpoints import build_restorer, load_weights, save_weights
from elir_mobile.core.files import cache_dir
from elir_mobile.core.golden import golden_outputs, golden_parity_db
from elir_mobile.core.manifest import read_golden
from elir_mobile.data.pairs import PairCounts
from elir_mobile.faces.detect import FaceFinder
from elir_mobile.harness.compare import parity_budgets
from elir_mobile.models.restorer import Architecture, Restorer, seeded_noise
from elir_mobile.precision import RECIPES, Grid, Precision, integer_grid
from elir_mobile.runtimes.runner import Runner, open_runner
from elir_mobile.runtimes.table import can_run
from elir_mobile.tasks import ALIGNED_FACE, get_task
from export import coreml
from export.programs import PROGRAM_NAMES, Delegation, Programs, Samples, build_programs
from export.samples import collect_samples
from export.targets import TARGETS
from tests import lowering

TINY = Architecture(
    enc_width=8,
    dec_width=8,
    latent_channels=16,
    coarse_width=8,
    n_rrdb=1,
    hid_channels=32,
    n_mid_blocks=1,
    ch_mult=(1, 2),
    t_emb_dim=32,
)
SIZE, STEPS, SIGMA_S = 64, 2, 0.1
FEW = PairCounts(calibration=2, min_evaluation=2)
# Files of tests, longest first, so that at the end no core waits for the other; then come all that lower.
LONGEST = (
    *("matrix", "ptq", "delegates", "targets", "executorch", "devices"),
    *("harness", "train", "lint", "coreml", "cli", "litert"),
)
LOWERED = {"micro_bundle", "int8_bundle", "finished", "lowered_anew"}  # fixtures that lower files


def write_pictures(folder: Path, count: int) -> Path:
    """Make ``folder`` with ``count`` soft coloured pictures, none of them of the network's size."""
    folder.mkdir()
    for index in range(count):
        values = np.random.default_rng(index).integers(0, 255, (5, 5, 3), dtype=np.uint8)
        Image.fromarray(values).resize((96, 80), Image.Resampling.BICUBIC).save(folder / f"{index}.png")
    return folder


def with_signals(restorer: Restorer) -> Restorer:
    """Give it random weights under which signals survive the depth: default ones fade to the biases."""
    for m in restorer.modules():
        if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.kaiming_normal_(m.weight)
            m.weight.data *= 0.8
        if isinstance(m, nn.GroupNorm):
            nn.init.normal_(m.weight, 1, 0.2)
            nn.init.normal_(m.bias, 0, 0.2)
    restorer.enc.layers[-1].weight.data *= 4
    restorer.dec.layers[-1].weight.data *= 0.3
    nn.init.constant_(restorer.dec.layers[-1].bias, 0.5)  # pictures around grey, hardly clipped
    return restorer.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def overparametrized() -> Restorer:
    torch.manual_seed(0)
    return with_signals(Restorer(TINY, overparametrized=True))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever asks for a file that a fixture lowers has the mark too; files come longest first."""
    for item in items:
        if LOWERED & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.lowering)
    lowers = {item.path for item in items if item.get_closest_marker("lowering")}
    order = {f"test_{name}.py": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: (order.get(item.path.name, len(order)), item.path not in lowers))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None):
    lowering.running.append(item)
    torch.set_num_threads(1)  # whatever the last test asked for
    try:
        return (yield)
    finally:
        lowering.running.pop()


@pytest.fixture(scope="session", autouse=True)
def lowered_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Lowered files are kept for all processes of this test run."""
    base = tmp_path_factory.getbasetemp()
    with lowering.shared((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "lowered"):
        yield


@pytest.fixture(scope="session", autouse=True)
def few_pairs() -> Iterator[None]:
    """``quant.ptq`` has as many pairs as it takes, and no pause between runs: no time here means anything."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("export.job.PairCounts", lambda: FEW)
        patch.setattr("elir_mobile.devices.host.PAUSE_S", 0)
        yield


@pytest.fixture
def lowered_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """``quant.ptq`` lowers in processes of its own, whatever was lowered before."""
    lowering.check_mark()
    monkeypatch.setattr("export.artifacts.ProcessPoolExecutor", lowering.processes)


@pytest.fixture(scope="session")
def restorer(overparametrized: Restorer) -> Restorer:
    return build_restorer(overparametrized.state_dict())


@pytest.fixture(scope="session")
def programs(restorer: Restorer) -> Programs:
    return build_programs(restorer, size=SIZE, steps=STEPS, sigma_s=SIGMA_S)


@pytest.fixture(scope="session")
def degraded() -> list[Tensor]:
    """Smooth random pictures with noise, (1, 3, SIZE, SIZE) each."""
    rng = np.random.default_rng(0)
    images = []
    for _ in range(3):
        small = Image.fromarray(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8))
        picture = np.asarray(small.resize((SIZE, SIZE), Image.Resampling.BICUBIC), np.float32) / 255
        picture = (picture + rng.normal(0, 0.03, picture.shape).astype(np.float32)).clip(0, 1)
        images.append(torch.from_numpy(picture).permute(2, 0, 1)[None].contiguous())
    return images


@pytest.fixture(scope="session")
def samples(programs: Programs, degraded: list[Tensor]) -> Samples:
    """What calibrates wherever no other pictures are asked for: files of equal samples are lowered once."""
    return collect_samples(programs, degraded, seed=0)


@pytest.fixture(scope="session")
def noise(programs: Programs) -> Tensor:
    return seeded_noise(programs.latent_shape, 7)


@pytest.fixture
def picture_folder(tmp_path: Path) -> Path:
    """Three small colour pictures."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for index in range(3):
        small = Image.fromarray(rng.integers(0, 255, (5, 5, 3), dtype=np.uint8))
        small.resize((96, 80), Image.Resampling.BICUBIC).save(folder / f"{index}.png")
    return folder


@pytest.fixture(scope="session")
def tiny_weights(restorer: Restorer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny network's float weights as a file, to the last bit: what is lowered of them is shared."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    facts = {"size": SIZE, "steps": STEPS, "sigma_s": SIGMA_S}
    save_weights(restorer, path, task="bfr", **facts, dtype=torch.float32)
    return path


class MicroEncode(nn.Module):
    """Image → latent in one convolution, called as the first one of the real encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.enc = nn.Sequential(OrderedDict(layers=nn.Sequential(nn.Conv2d(3, 16, 8, stride=8))))

    def forward(self, image: Tensor) -> Tensor:
        return self.enc(image)


class MicroStep(nn.Module):
    """Latent and table row → latent."""

    def __init__(self) -> None:
        super().__init__()
        layers = {
            "first_proj": nn.Conv2d(16, 32, 3, padding=1),
            "middle": nn.Conv2d(32, 32, 3, padding=1),  # wide enough for int4 in blocks of 32
            "final_proj": nn.Conv2d(32, 16, 3, padding=1),
        }
        self.fmir = nn.Sequential(OrderedDict(layers))

    def forward(self, latent: Tensor, row: Tensor) -> Tensor:
        return latent + self.fmir(latent) + row


class MicroDecode(nn.Module):
    """Latent → image in one transposed convolution, clipped as the target likes it."""

    def __init__(self, clip: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        grow = nn.ConvTranspose2d(16, 3, 8, stride=8)
        nn.init.constant_(grow.bias, 0.5)
        self.dec = nn.Sequential(OrderedDict(layers=nn.Sequential(grow)))
        self.clip = clip

    def forward(self, latent: Tensor) -> Tensor:
        return self.clip(self.dec(latent))


def micro_programs(clip: Callable[[Tensor], Tensor], steps: int = STEPS) -> Programs:
    """Three programs with the shapes of real ones, so small that exporting them takes no time."""
    torch.manual_seed(0)
    latent, table = torch.zeros(TINY.latent_shape(SIZE, SIZE)), torch.randn(steps, 16)
    modules: dict[str, nn.Module] = {
        "encode": MicroEncode(), "step": MicroStep(), "decode": MicroDecode(clip)
    }  # fmt: skip
    examples = {
        "encode": (torch.zeros(1, 3, SIZE, SIZE),),
        "step": (latent, table[0].view(1, -1, 1, 1)),
        "decode": (latent,),
    }
    frozen = {name: module.eval().requires_grad_(False) for name, module in modules.items()}
    ends = ("enc.layers.0", "fmir.first_proj", "fmir.final_proj", "dec.layers.0")
    roles = {name: "latent-end" if name.startswith("fmir") else "image-end" for name in ends}
    return Programs(frozen, examples, table, steps, SIGMA_S, roles)


def golden_budgets(golden: dict, folder: Path, runner: Runner, *, steps: int, sigma_s: float) -> dict:
    """The ``parity`` entry of a file that ``runner`` runs, by the golden vectors at ``folder``."""
    vectors = read_golden(folder, golden)
    return parity_budgets(golden_parity_db(golden_outputs(runner.loop(steps, sigma_s), vectors), vectors))


def layer_grid(layer: torch.nn.Module, precision: Precision) -> Grid | None:
    """The grid of a layer's weight."""
    transposed = isinstance(layer, torch.nn.ConvTranspose2d)
    return integer_grid(precision, tuple(layer.weight.shape), transposed=transposed)


def eager_of(programs: Programs) -> Runner:
    """The float programs themselves as a runner."""
    modules = programs.modules
    return Runner(
        modules["encode"],
        lambda z, k: modules["step"](z, programs.row(k)),
        modules["decode"],
    )


@pytest.fixture(scope="session")
def micro_bundle(
    degraded: list[Tensor], tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A bundle of ExecuTorch fp32, LiteRT fp32 and w8, Core ML fp32, see :func:`write_micro_bundle`."""
    folder = tmp_path_factory.mktemp("bundles") / "bfr-micro"
    artifacts = (("executorch", "fp32"), ("litert", "fp32"), ("litert", "w8"), ("coreml", "fp32"))
    return write_micro_bundle(folder, artifacts, degraded, tiny_weights)


def write_micro_bundle(
    folder: Path, artifacts: tuple[tuple[str, str], ...], degraded: list[Tensor], tiny_weights: Path
) -> Path:
    """A bundle of real files of the micro programs, by target and precision.

    Its manifest says that it was made from the tiny network.
    """
    info = load_weights(str(tiny_weights), get_task("bfr"))[1]
    with building(folder) as staging:
        programs = micro_programs(TARGETS["executorch"].form.clip)
        image = (degraded[0] * 255).round() / 255
        golden = write_golden(staging, eager_of(programs), image, STEPS, SIGMA_S)
        files = []
        for name, precision in artifacts:
            target = TARGETS[name]
            path = staging / target.path(f"bfr-{precision}")
            path.parent.mkdir(exist_ok=True)
            if name == "coreml":
                models = coreml.float_models(programs, half=False, functions=PROGRAM_NAMES)
                coreml.write(models, programs, RECIPES[precision], {}, path)
                split = dict.fromkeys(PROGRAM_NAMES, Delegation(0, ()))
            else:
                split = target.lower(micro_programs(target.form.clip), RECIPES[precision], {}, path)
            facts = {
                **target.to_json(),
                "precision": precision,
                "delegation": {program: asdict(found) for program, found in split.items()},
            }
            if can_run("host", facts):
                exported = open_runner(name, path, programs.table)
                loop = {"steps": STEPS, "sigma_s": SIGMA_S}
                facts["parity"] = golden_budgets(golden, staging, exported, **loop)
            files.append(file_entry(staging, path, **facts))
        model = {"task": "bfr", **asdict(info), "parameters": 1000, "architecture": asdict(TINY)}
        manifest = task_facts(get_task("bfr"), ALIGNED_FACE) | {"model": model, "size": SIZE}
        manifest |= {"steps": STEPS, "sigma_s": SIGMA_S}
        table = write_table(staging, programs.table)
        write_manifest(staging, {**manifest, "table": table, "golden": golden, "files": files})
    return folder


@pytest.fixture(scope="session")
def finder() -> FaceFinder:
    if not (cache_dir() / "face-detection").is_dir():
        pytest.skip("needs the face detector: python -m elir_mobile.faces.detect")
    pytest.importorskip("ai_edge_litert", reason="pip install 'elir-mobile[litert]'")
    return FaceFinder(1)
