"""Figures in the documents are the measured ones, written by the command."""

from __future__ import annotations

import json

import pytest

from benchmarks import tables


@pytest.mark.parametrize("path", tables.DOCUMENTS, ids=lambda p: p.name)
def test_tables_in_the_documents_are_up_to_date(path) -> None:
    text = path.read_text()
    assert tables.BLOCK.search(text)
    assert tables.filled(text) == text, "run python -m benchmarks.tables"


def test_a_changed_result_makes_a_table_stale(tmp_path, monkeypatch) -> None:
    result = {"table": {"restored": {"psnr_db": 24.123, "ssim": 0.7, "lpips": None}}}
    (tmp_path / "x.json").write_text(json.dumps(result))
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    text = "before\n<!-- table x -->\nold\n<!-- end -->\nafter\n"
    new = tables.filled(text)
    assert "| restored | 24.12 | 0.700 | – |" in new
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
