"""Numbers in intervals: masses and densities that add up, nothing cut off, spikes, and shares of drawn codes."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from scipy.integrate import trapezoid

from sklearn_si.preprocessing._splines import fit_spline
from sklearn_si.tables import TableSynthesizer
from sklearn_si.tables._bins import grid_bins, quantile_edges, smooth_bins
from sklearn_si.tables._chain import draw_codes
from sklearn_si.tables._code_features import code_features
from sklearn_si.tables._codec import TableCodec
from sklearn_si.tables._masked import MaskedNetwork
from sklearn_si.tables._together import calibrate


def skewed(n_bins):
    x = np.random.default_rng(0).lognormal(size=6000)
    return smooth_bins(fit_spline(x), np.sort(x), np.ones(len(x)), n_bins, None), x


@pytest.mark.parametrize("n_bins", [1, 2, 16])
def test_intervals_of_a_density_are_inverted_and_have_the_whole_mass(n_bins):
    bins, x = skewed(n_bins)
    place = bins.place(x)
    z, log_slope = bins.forward(x, place)
    np.testing.assert_allclose(bins.inverse(z, place), x, rtol=1e-6)
    assert abs(z.mean()) < 0.05 and abs(z.std() - 1) < 0.05
    assert np.isfinite(log_slope).all() and bins.n_bins >= n_bins
    # a standard normal z in each interval, weighted by its rows, is a density of x
    grid = np.exp(np.linspace(np.log(1e-4), np.log(1e4), 200_001))
    place = bins.place(grid)
    z, log_slope = bins.forward(grid, place)
    share = np.bincount(bins.place(x), minlength=bins.n_bins) / len(x)
    assert abs(trapezoid(share[place] * np.exp(stats.norm.logpdf(z) + log_slope), grid) - 1) < 1e-3


def test_intervals_are_finer_in_a_long_tail_and_equal_without_one():
    even = (np.arange(6000) + 0.5) / 6000
    x = -np.log1p(-even)
    bins = smooth_bins(fit_spline(x), x, np.ones(6000), 8, None)
    # 750 rows an interval; the last is cut at 375, 187, 93, 46 and 23 rows from the end
    np.testing.assert_allclose(np.bincount(bins.place(x)), [750] * 7 + [375, 188, 94, 47, 23, 23], atol=2)
    assert smooth_bins(fit_spline(even), even, np.ones(6000), 8, None).n_bins == 8


def test_the_outermost_intervals_are_open():
    bins, x = skewed(8)
    far = np.array([x.min() / 10, x.max() * 10])
    z, log_slope = bins.forward(far, bins.place(far))
    assert np.isfinite(z).all() and np.isfinite(log_slope).all()
    np.testing.assert_allclose(bins.inverse(z, bins.place(far)), far, rtol=1e-6)


def test_numbers_that_repeat_have_cells_as_wide_as_their_shares():
    numbers, counts = np.array([1.0, 2.0, 5.0, 7.0]), np.array([10, 30, 40, 20])
    bins = grid_bins(numbers, counts, 2, 1.0)
    np.testing.assert_array_equal(bins.first, quantile_edges(counts, 2))
    z = np.random.default_rng(0).standard_normal(20_000)
    for k in range(bins.n_bins):
        rows = bins.place(numbers) == k
        made = bins.inverse(z, np.full(len(z), k))
        drawn = [(made == number).mean() for number in numbers]
        np.testing.assert_allclose(drawn, np.where(rows, counts, 0) / counts[rows].sum(), atol=0.015)
        z_mid, log_slope = bins.forward(numbers[rows], np.full(rows.sum(), k))
        np.testing.assert_allclose(np.exp(stats.norm.logpdf(z_mid) + log_slope), counts[rows] / counts[rows].sum())


def test_bounded_skewed_numbers_do_not_pile_up_at_their_ends_and_small_spikes_are_drawn():
    rng = np.random.default_rng(0)
    rates = rng.beta(0.6, 8, size=6000)
    rates[rng.uniform(size=6000) < 0.006] = 0.05
    frame = pd.DataFrame({"rate": rates, "load": rates * 10 + rng.normal(size=6000)})
    model = TableSynthesizer(max_iter=60, random_state=0).fit(frame)
    assert model.codec_.columns_[0].levels.tolist() == [0.05] and model.codec_.columns_[0].n_bins > 8
    drawn = model.sample(6000, random_state=0)
    for end in (rates.min(), rates.max()):
        assert (drawn.rate == end).mean() < 0.002
    assert abs((drawn.rate == 0.05).mean() - (rates == 0.05).mean()) < 0.003
    assert stats.ks_2samp(drawn.rate, rates).statistic < 0.03


def test_calibration_meets_the_shares_of_the_rows():
    generator = torch.Generator().manual_seed(0)
    shares = [np.array([0.7, 0.3]), np.array([0.2, 0.5, 0.3]), np.array([0.9, 0.1])]
    network = MaskedNetwork(shares, [np.full(len(s), np.nan) for s in shares], 0, 16, 1, generator).eval()
    with torch.no_grad():
        network.output.normal_(std=0.5, generator=generator)
    calibrate(network, 0, generator)
    nothing = torch.full((20_000, 3), -1)
    drawn = draw_codes(network, nothing, torch.empty(20_000, 0), range(3), generator)
    for column, share in zip(drawn.T, shares, strict=True):
        np.testing.assert_allclose(np.bincount(column, minlength=len(share)) / 20_000, share, atol=0.015)


def test_thousands_of_levels_are_told_by_few_numbers():
    words = np.array([f"w{k}" for k in np.random.default_rng(0).integers(3000, size=5000)], dtype=object)
    column = TableCodec(random_state=0).fit(words[:, None]).columns_[0]
    told = code_features(column, np.array([-1, 0, 1, column.n_codes - 1]))
    assert told.shape[1] < 40 and np.isfinite(told).all() and not told[0].any()


def test_few_bounded_rows_do_not_pile_up_at_their_ends():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"rate": rng.beta(0.5, 6, size=800), "other": rng.normal(size=800)})
    drawn = TableSynthesizer(max_iter=40, random_state=0).fit(frame).sample(4000, random_state=0)
    for end in (frame.rate.min(), frame.rate.max()):
        assert (drawn.rate == end).mean() < 0.01
