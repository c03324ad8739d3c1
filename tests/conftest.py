"""The tiny network that the tests run: every kind of layer, as few of each as there can be."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from elir_mobile.bundle import building, file_entry, write_golden, write_manifest, write_table
from elir_mobile.checkpoints import build_restorer, load_weights, save_weights
from elir_mobile.harness.compare import golden_parity
from elir_mobile.models.restorer import Architecture, Restorer, seeded_noise
from elir_mobile.precision import RECIPES
from elir_mobile.runtime.eager import eager_runner
from elir_mobile.runtime.registry import open_runner
from elir_mobile.tasks import get_task
from export.programs import PROGRAM_NAMES, Programs, build_programs
from export.targets import TARGETS

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


@pytest.fixture(scope="session")
def overparametrized() -> Restorer:
    """Random weights under which signals survive the depth: default ones fade to the biases."""
    torch.manual_seed(0)
    restorer = Restorer(TINY, overparametrized=True)
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
    """The tiny network's float weights as a file."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_weights(restorer, path, task="bfr", size=SIZE, steps=STEPS, sigma_s=SIGMA_S)
    return path


@pytest.fixture(scope="session")
def tiny_bundle(
    programs: Programs,
    restorer: Restorer,
    degraded: list[Tensor],
    tiny_weights: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A bundle of real files: ExecuTorch fp32, LiteRT fp32 and w8, Core ML fp32."""
    from export import coreml, executorch, litert

    target = TARGETS["litert"]
    converted = litert.convert(
        build_programs(
            restorer, size=SIZE, steps=STEPS, sigma_s=SIGMA_S, group_norm=target.group_norm, clip=target.clip
        )
    )
    info = load_weights(str(tiny_weights), get_task("bfr"))[1]
    eager = eager_runner(restorer, STEPS)
    folder = tmp_path_factory.mktemp("bundles") / "bfr-tiny"
    with building(folder) as staging:
        paths = {
            ("executorch", "fp32"): staging / "executorch" / "bfr-fp32.pte",
            ("litert", "fp32"): staging / "litert" / "bfr-fp32.tflite",
            ("litert", "w8"): staging / "litert" / "bfr-w8.tflite",
            ("coreml", "fp32"): staging / "coreml" / "bfr-fp32.mlpackage",
        }
        for path in paths.values():
            path.parent.mkdir(exist_ok=True)
        delegation = {key: dict.fromkeys(PROGRAM_NAMES, {"delegates": 0, "ops_outside": []}) for key in paths}
        pte = executorch.lower(programs, RECIPES["fp32"], {}, paths["executorch", "fp32"])
        delegation["executorch", "fp32"] = {name: asdict(split) for name, split in pte.items()}
        for precision in ("fp32", "w8"):
            content = litert.quantize(converted, RECIPES[precision], {})
            paths["litert", precision].write_bytes(content)
            delegation["litert", precision] = {
                name: asdict(litert.delegation(content, name)) for name in PROGRAM_NAMES
            }
        models = coreml.float_models(programs, half=False, functions=PROGRAM_NAMES)
        coreml.write(models, programs, RECIPES["fp32"], {}, paths["coreml", "fp32"])
        image = (degraded[0] * 255).round() / 255
        golden = write_golden(staging, eager, image, STEPS, SIGMA_S)
        files = []
        for (name, precision), path in paths.items():
            runner = open_runner(name, path, precision, programs.table)
            parity = golden_parity(golden, staging, runner, {"steps": STEPS, "sigma_s": SIGMA_S})
            facts = {"target": name, "precision": precision, "delegation": delegation[name, precision]}
            files.append(file_entry(staging, path, **facts, parity=parity))
        parameters = sum(p.numel() for p in restorer.parameters())
        model = {"task": "bfr", **asdict(info), "parameters": parameters, "architecture": asdict(TINY)}
        manifest = {"task": "bfr", "model": model, "size": SIZE, "steps": STEPS, "sigma_s": SIGMA_S}
        table = write_table(staging, programs.table)
        write_manifest(staging, {**manifest, "table": table, "golden": golden, "files": files})
    return folder
