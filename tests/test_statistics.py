"""Intervals cover as often as they say; no ratio calls a broken output a perfect one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from elir_mobile.core.errors import UserError
from elir_mobile.core.statistics import Sqnr, bootstrap, psnr_db, sqnr_db, unless_equal


def test_the_interval_of_a_mean_covers_it_as_often_as_it_says() -> None:
    """200 samples of 40 normal numbers: 95 % of the intervals hold the true mean, give or take."""
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(200):
        values = rng.normal(5, 2, 40)
        interval = bootstrap(lambda chosen, v=values: v[chosen].mean(), 40, 200, seed)
        assert interval is not None
        hits += interval[0] <= 5 <= interval[1]
    assert 0.88 <= hits / 200 <= 0.98


def test_the_interval_depends_on_the_seed_alone_and_needs_two_images() -> None:
    values = np.arange(30.0)
    first, again, other = (bootstrap(lambda c: values[c].mean(), 30, 100, seed) for seed in (1, 1, 2))
    assert first == again != other
    assert bootstrap(lambda c: values[c].mean(), 1, 100, 0) is None


def test_values_of_one_cluster_are_drawn_together() -> None:
    """Ten photographs shown five times each say as much as the ten."""
    values = np.random.default_rng(3).normal(5, 2, 10)
    alone = bootstrap(lambda chosen: values[chosen].mean(), 10)
    shown = np.repeat(values, 5)
    names = [f"photo-{i}" for i in range(10) for _ in range(5)]
    clustered = bootstrap(lambda chosen: shown[chosen].mean(), 50, clusters=names)
    assert clustered == pytest.approx(alone)
    naive = bootstrap(lambda chosen: shown[chosen].mean(), 50)
    assert naive[1] - naive[0] < 0.6 * (clustered[1] - clustered[0])
    assert bootstrap(lambda chosen: shown[chosen].mean(), 50, clusters=["one"] * 50) is None


def test_sqnr_of_known_noise() -> None:
    reference_signal = torch.ones(1000)
    assert sqnr_db(reference_signal, reference_signal + 0.1) == pytest.approx(20, abs=1e-4)
    assert sqnr_db(reference_signal, reference_signal) == float("inf")


def test_energies_add_up_over_arrays_and_tensors() -> None:
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(4, 8)).astype(np.float32)
    out = reference + rng.normal(size=(4, 8)).astype(np.float32) / 100
    energy = Sqnr()
    energy.add(reference[:1], out[:1])
    energy.add(torch.from_numpy(reference[1:]), torch.from_numpy(out[1:]))
    assert energy.db == pytest.approx(sqnr_db(reference, out), abs=1e-9)


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_an_output_that_is_not_finite_never_passes_for_perfect(broken: float) -> None:
    """In one value of many: not None, which says equal, and not a good number."""
    reference = np.linspace(0.1, 1, 64, dtype=np.float32)
    out = reference.copy()
    out[7] = broken
    assert sqnr_db(reference, out) == psnr_db(reference, out) == -math.inf
    assert sqnr_db(torch.from_numpy(reference), torch.from_numpy(out)) == -math.inf
    energy = Sqnr()
    energy.add(reference, out)
    with pytest.raises(UserError, match="not finite"):
        assert energy.db
    with pytest.raises(UserError, match="not finite"):
        unless_equal(psnr_db(reference, out))


def test_only_equal_bits_have_no_number() -> None:
    values = np.linspace(0.1, 1, 64, dtype=np.float32)
    assert unless_equal(sqnr_db(values, values)) is None
    assert unless_equal(psnr_db(values, values)) is None
    assert unless_equal(sqnr_db(values, np.nextafter(values, np.float32(2)))) == pytest.approx(145, abs=5)
    assert sqnr_db(np.zeros(4), np.ones(4)) == -math.inf
