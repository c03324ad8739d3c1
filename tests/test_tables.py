"""Figures in the documents are the measured ones, written by the command."""

from __future__ import annotations

import dataclasses
import json

import pytest
from typer.testing import CliRunner

from benchmarks import estimate, tables
from elir_mobile.cli.options import alone
from elir_mobile.precision import RECIPES, recipe_digest


@pytest.mark.parametrize("path", tables.DOCUMENTS, ids=lambda p: p.name)
def test_tables_in_the_documents_are_up_to_date(path) -> None:
    text = path.read_text()
    assert tables.BLOCK.search(text)
    assert tables.filled(text) == text, "run python -m benchmarks.tables"


def test_figures_of_the_documents_are_up_to_date() -> None:
    for path, svg in tables.images().items():
        assert path.read_text() == svg, "run python -m benchmarks.tables"


def test_a_changed_result_makes_a_table_stale(tmp_path, monkeypatch) -> None:
    row = {"psnr_db": 24.123, "ssim": 0.7, "lpips": None, "frechet": 80.25}
    result = {"table": {"restored": row}, "pictures": 88, "model": {"sha256": "0123456789abcdef"}}
    (tmp_path / "x.json").write_text(json.dumps(result))
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    text = "before\n<!-- table x -->\nold\n<!-- end -->\nafter\n"
    new = tables.filled(text)
    assert "| restored | 24.12 | 0.700 | – | 80.2 |" in new
    assert "88 held-out pictures; weights 0123456789ab." in new
    assert "old" not in new
    assert new.startswith("before\n<!-- table x -->\n")
    assert new.endswith("<!-- end -->\nafter\n")
    assert tables.filled(new) == new


def test_sections_of_the_quantization_results_have_tables(tmp_path, monkeypatch) -> None:
    rows = [
        {"task": "bfr", "artifact": "one", "bytes": 1234567, "psnr_drop_db": 0.07, "failure": None},
        {"task": "bfr", "artifact": "two", "failure": "RuntimeError: no"},
    ]
    results = {"baselines": {"rows": rows, "note": "two faces."}}
    (tmp_path / "quantization.json").write_text(json.dumps(results))
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    lines = tables.render("quantization-baselines").splitlines()
    assert lines[2] == "| bfr | one | 1,234,567 | – | 0.070 | – | – |  |"
    assert lines[3] == "| bfr | two | – | – | – | – | – | RuntimeError: no |"
    assert lines[-1] == "two faces."


def measured_report() -> dict:
    from elir_mobile.harness.compare import no_damage, quality_intervals
    from elir_mobile.harness.protocol import latency_facts

    nothing = quality_intervals({}, ())

    def row(target: str, precision: str, runs: list[float], lpips: float, **facts) -> dict:
        quality = {"psnr_vs_float_db": None, **nothing, **no_damage(), "psnr_db": 24.0, "lpips": lpips}
        latency = latency_facts(runs)
        return {
            "device": "host",
            "target": target,
            "precision": precision,
            "bytes": 3_000_000,
            "recipe": recipe_digest(RECIPES[precision].to_json()),
            "load_ms": None,
            "latency_ms": latency,
            "speedup_vs_eager": 90.0 / latency["median"] if runs else None,
            "speedup_vs_fp32": None,
            "memory": {"peak_bytes": None},
            "programs": {},
            "trajectory_sqnr_db": [30.0, 29.0],
            "update_sqnr_db": None,
            "image": quality,
            "against": {"parity": "the golden vectors", **facts},
        }

    return {
        "bundle": {},
        "rows": [
            row("eager", "fp32", [90.0, 91.0], 0.25),
            row("litert", "w8a8", [40.0, 41.0], 0.26),
            row("coreml", "w8a8", [], 0.27, latency="not claimed"),
        ],
        "data": {"evaluation": [], "source": None},
        "steps": [],
        "references": {"degraded": nothing, "identity": nothing | {"psnr_db": 23.5, "lpips": 0.31}},
        "machine": {"cpu": "Zen", "cores": 2, "cpu_flags": ["avx2"]},
        "protocol": {"threads": 2, "warmups": 3, "runs": 2, "order": "in turn"},
    }


def test_a_report_becomes_table_and_figures(tmp_path, monkeypatch) -> None:
    document, report = tmp_path / "README.md", tmp_path / "report.json"
    document.write_text(
        "<!-- table demo -->\n<!-- end -->\n<!-- table demo-figures -->\n<!-- end -->\n"
        "<!-- table roofline -->\n<!-- end -->\n"
    )
    report.write_text(json.dumps(measured_report()))
    for name, value in {"DOCUMENTS": (document,), "RESULTS": tmp_path, "IMAGES": tmp_path}.items():
        monkeypatch.setattr(tables, name, value)

    def run(*arguments: object):
        return CliRunner().invoke(alone(tables.main), [str(a) for a in arguments])

    taken = run("--take", "demo", report)
    assert taken.exit_code == 0, taken.output
    text = document.read_text()
    assert "| litert w8a8 | 3.00 | 40.5 (40.0–41.0) | 40.9 | 2.22 | – |" in text
    assert "| coreml w8a8 | 3.00 | – | – |" in text
    assert "| step = identity | | | | | | | | | | 23.50 | | – | 0.3100 |" in text
    assert "degraded input" not in text
    assert "Compared with: parity: the golden vectors; coreml: latency not claimed." in text
    assert "![quality against latency](images/demo-pareto.svg)" in text
    assert "Not measured yet: there is no roofline.json." in text
    assert (tmp_path / "demo-latency.svg").read_text().startswith("<svg ")
    assert run("--check").exit_code == 0
    (tmp_path / "demo-latency.svg").write_text("old")
    stale = run("--check")
    assert stale.exit_code == 1
    assert "demo-latency.svg is stale" in stale.stderr
    assert run().exit_code == 0
    other = measured_report()
    other["rows"][1]["recipe"] = "0" * 64
    report.write_text(json.dumps(other))
    assert run("--take", "demo", report).exit_code == 0
    stale = run("--check")
    assert stale.exit_code == 1
    assert "demo.json has figures of another recipe" in stale.stderr
    for name, path in (("demo", tmp_path / "none.json"), ("../demo", report), ("demo", document)):
        refused = run("--take", name, path)
        assert refused.exit_code == 2
        assert "not a report.json of a measured bundle" in refused.stderr


def test_the_roof_is_the_best_row_of_each_kind() -> None:
    rows = [
        {
            "target": "litert",
            "precision": "fp32",
            "channels": 32,
            "side": side,
            "depth": 8,
            "gmacs_per_s": speed,
        }
        for side, speed in ((64, 30.0), (128, 34.56))
    ]
    machine = measured_report()["machine"]
    result = {"rows": rows, "machine": machine, "protocol": measured_report()["protocol"]}
    assert "| litert | fp32 | 34.6 | 8 × 32 channels at 128² |" in tables.roofline_table(result)


def test_an_estimate_is_our_work_at_the_rate_of_another_network() -> None:
    """Held against figures published or counted elsewhere, and the arithmetic written out."""
    assert estimate.x4plus_macs(128) / 1e9 == pytest.approx(
        293.7, abs=0.05
    )  # AI Hub's network: 16.7 M weights
    macs = {network: estimate.restoration_macs(*network) / 1e9 for network in estimate.NETWORKS}
    assert macs == {
        ("taesd", 5): pytest.approx(242.4, abs=0.05),
        ("half", 5): pytest.approx(148.7, abs=0.05),
        ("half", 2): pytest.approx(91.7, abs=0.05),
    }
    chip = estimate.Published("NPU", "w8a8", "net", macs=300e9, ms=12.0, source="a page")  # 25 TMAC/s
    assert estimate.estimated_ms(100e9, chip) == pytest.approx(4.0)
    table = estimate.estimate_table([chip, dataclasses.replace(chip, chip="GPU", ms=1200.0)])
    assert "| NPU | w8a8 | net [1] | 300.0 | 12.0 | 25.00 | ≈ 10 | ≈ 6 | ≈ 4 |" in table
    assert "| GPU | w8a8 | net [1] | 300.0 | 1,200.0 | 0.25 | ≈ 970 | ≈ 595 | ≈ 367 |" in table
    assert "**Estimates**, not measurements" in table
    assert table.endswith("[1] a page.")


def test_files_are_listed_by_the_chip_that_they_are_for() -> None:
    report = measured_report()
    for row, who in zip(report["rows"], ("PyTorch 2", "LiteRT 2", "our interpreter"), strict=True):
        row["executed_by"] = who
    report["data"] |= {"sources": 6, "source": "portraits"}
    apple, processor = tables.chips_table(report).splitlines()[2:4]
    assert apple.startswith(
        "| Apple's Neural Engine or GPU: Core ML chooses | coreml w8a8 | our interpreter |"
    )
    assert processor.startswith("| processor, XNNPACK; browsers | litert w8a8 | LiteRT 2 | – |")
    note = tables.report_table(report).splitlines()[-1]
    assert "Executed by PyTorch 2: eager; LiteRT 2: litert; our interpreter: coreml. Compared with" in note
    assert "our interpreter: coreml. No time is claimed" in tables.short_table(
        {**report, "references": {"degraded": {"lpips": 0.3}}}
    )
