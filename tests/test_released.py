"""Released networks beside each other: which, how many times as fast, and what they were to reach."""

from __future__ import annotations

import pytest

from benchmarks import tables
from benchmarks.released import ratio, variants
from elir_mobile.core.errors import UserError
from elir_mobile.tasks import get_task


def test_a_number_of_steps_goes_with_each_form() -> None:
    bfr = get_task("bfr")
    assert variants(bfr, None, None) == [bfr]
    taesd, half = variants(bfr, "taesd,half", "5,2")
    assert taesd == bfr
    assert (half.arch.autoencoder, half.steps) == ("half", 2)
    assert half.arch.hid_channels == bfr.arch.hid_channels
    assert [task.steps for task in variants(bfr, "taesd,half", None)] == [5, 5]


@pytest.mark.parametrize(("form", "steps"), [("third", None), ("half", "2,5"), ("half", "0"), (None, "x")])
def test_what_is_no_form_or_number_is_refused(form, steps) -> None:
    with pytest.raises(UserError, match="form"):
        variants(get_task("bfr"), form, steps)


def test_a_ratio_is_of_medians_and_lies_in_its_interval() -> None:
    found = ratio([20.0, 21.0, 22.0, 60.0, 19.0], [10.0, 10.5, 11.0, 30.0, 9.5])
    assert found["value"] == 2
    assert found["low"] == found["high"] == pytest.approx(2)  # neighbours are slow together


def test_the_table_of_forms_says_what_holds() -> None:
    def row(
        form: str, steps: int, target: str, ms: float, first: float, eager: float, low: float | None = None
    ) -> dict:
        latency = {"median": ms, "low": ms, "high": ms}
        return {
            "device": "host", "autoencoder": form, "steps": steps, "target": target, "precision": "w8a8",
            "bytes": 1e6, "latency_ms": latency, "memory": {"peak_bytes": None},
            "speedup_vs_eager": 1.0, "speedup_vs_first": {"value": first, "low": low, "high": None},
            "speedup_vs_first_eager": {"value": eager, "low": None, "high": None},
        }  # fmt: skip

    text = tables.forms_table(
        {
            "rows": [
                row("taesd", 5, "eager", 2600.0, 1.0, 1.0),
                row("taesd", 5, "litert", 350.0, 1.0, 7.4),
                row("half", 2, "litert", 150.0, 2.33, 17.3),
                row("half", 2, "executorch", 350.0, 2.4, 7.4, low=2.2),
            ],
            "machine": {"cpu": "Zen", "cores": 2, "cpu_flags": ["avx2"]},
            "protocol": {"threads": 2, "warmups": 3, "runs": 20, "order": "in turn"},
            "export_seconds": 300.0,
        }
    )
    assert "| half | 2 | litert w8a8 | 1.00 | 150.0 (150.0–150.0) | 1.00 | 2.33 | 17.30 |" in text
    fast = "| half K = 2, litert w8a8, times as fast as"
    assert f"{fast} the same of taesd K = 5 | 2.3 | 2.33, surely 2.33 | yes |" in text
    assert f"{fast} PyTorch eager of taesd K = 5 | 14.0 | 17.30, surely 17.30 | yes |" in text
    assert (
        "executorch w8a8, times as fast as the same of taesd K = 5 | 2.3 | 2.40, surely 2.20 | no |" in text
    )
