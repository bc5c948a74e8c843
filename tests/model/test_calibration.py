"""What a fit measures of its log-densities: their first levels and stated errors."""

import dataclasses

import numpy as np
import pytest
import torch

from oracles import MixtureFields, limit_levels, mixture, mixture_log_density, sample_mixture
from sklearn_si import InterpolantFlow
from sklearn_si._model import calibration
from sklearn_si._model.calibration import _at_nodes, _cheapest, calibrate, pilot_rows
from sklearn_si._model.fields import Fields
from sklearn_si._model.levels import ASSUMED, Level, LikelihoodCalibration
from sklearn_si._model.likelihood import (
    density_parts,
    flow_with_divergence,
    follow,
    gauss_legendre,
    ode_log_density,
    standard_normal_parts,
)
from sklearn_si.interpolants import GaussianBase, Linear, VariancePreserving
from sklearn_si.networks import FiLMNetwork, PreconditionedField
from sklearn_si.persistence import load, save


@pytest.fixture(scope="module", params=[1, 2, 6])
def exact(request):
    rng = np.random.default_rng(request.param)
    path, target = GaussianBase(Linear()), mixture(rng, 3, request.param)
    fields = Fields(path, MixtureFields(path, *target))
    rows = [torch.as_tensor(sample_mixture(rng, n, *target)) for n in (100, 1000)]
    true = torch.as_tensor(mixture_log_density(rows[1].numpy(), *target))
    return fields, rows, true, calibrate(fields, rows[0], 0.0, standard_normal_parts)


@pytest.mark.parametrize("tolerance", [1e-1, 1e-2, 1e-3, 1e-4, 1e-5])
def test_stated_errors_of_a_calibrated_model_cover_the_true_ones(exact, tolerance):
    fields, (_, x), true, known = exact
    value, error = ode_log_density(fields, x, 1.0, 0.0, standard_normal_parts, tolerance, "logit", known)
    assert (error <= tolerance).all()
    assert ((value - true).abs() <= error).double().mean() >= 0.985


class CountedFields(Fields):
    """Fields that count the rows whose divergence is taken."""

    n_rows = 0

    def velocity_and_divergence(self, t, x):
        self.n_rows += len(x)
        return super().velocity_and_divergence(t, x)


@pytest.mark.parametrize("tolerance", [1e-2, 1e-3])
def test_a_calibrated_solve_takes_fewer_divergences_than_the_assumed_one(exact, tolerance):
    fields, (_, x), _, known = exact
    counts = []
    for known_or_not in (known, ASSUMED):
        counted = CountedFields(fields.interpolant, fields.velocity_network)
        ode_log_density(counted, x, 1.0, 0.0, standard_normal_parts, tolerance, "logit", known_or_not)
        counts.append(counted.n_rows)
    assert counts[0] < counts[1]
    finer = known.at(1e-9)
    assert not finer.is_measured and finer.start(1e-9) == ASSUMED.start(1e-9) == Level(18, 36)
    assert finer.gap_share == max(ASSUMED.gap_share, 2 * known.gap_share)


@torch.no_grad()
@pytest.mark.parametrize("tolerance", [1e-1, 1e-2, 1e-3])
def test_stated_errors_of_a_rough_model_of_which_nothing_was_measured_cover_the_true_ones(tolerance):
    """A field of random weights: .977 were covered at .1 nats by margins that were those of smooth models."""
    generator = torch.Generator().manual_seed(3)
    network = FiLMNetwork(3, 0, (24, 24), "tanh", generator).double()
    network.output.copy_(2 * torch.randn(network.output.shape, generator=generator, dtype=torch.float64))
    path, one = GaussianBase(Linear()), torch.ones(3, dtype=torch.float64)
    fields = Fields(path, PreconditionedField(path, network, "velocity", one, one, None).double())
    x = torch.randn((300, 3), generator=generator, dtype=torch.float64)
    ends = 0.0, standard_normal_parts
    true = density_parts(fields, x, 1.0, Level(200, 400), "logit", *ends)[0].sum(1)
    value, error = ode_log_density(fields, x, 1.0, *ends, tolerance, "logit", ASSUMED)
    assert ((value - true).abs() <= error + 1e-7).double().mean() >= 0.985


@pytest.fixture(scope="module")
def curved():
    """A path whose velocity changes without bound towards t = 1."""
    generator = torch.Generator().manual_seed(3)
    network = FiLMNetwork(2, 0, (16, 16), "tanh", generator).double().requires_grad_(False)
    network.output.copy_(0.5 * torch.randn(network.output.shape, generator=generator, dtype=torch.float64))
    path, one = GaussianBase(VariancePreserving()), torch.ones(2, dtype=torch.float64)
    fields = Fields(path, PreconditionedField(path, network, "velocity", one, one, None).double())
    x = torch.randn((500, 2), generator=generator, dtype=torch.float64)
    ends = 0.0, standard_normal_parts
    true = density_parts(fields, x[100:], 1.0, Level(200, 400), "logit-tight", *ends)[0].sum(1)
    return fields, (x[:100], x[100:]), true, calibrate(fields, x[:100], *ends)


@pytest.mark.parametrize("tolerance", [1e-1, 1e-2, 1e-3])
def test_steps_lie_where_a_curved_path_needs_them(curved, tolerance):
    fields, (_, x), true, known = curved
    assert known.spacing == "logit-tight"
    value, error = ode_log_density(fields, x, 1.0, 0.0, standard_normal_parts, tolerance, "logit", known)
    assert (error <= tolerance).all()
    assert ((value - true).abs() <= error).double().mean() >= 0.985


def test_a_spacing_is_kept_at_tolerances_below_those_that_were_measured(curved):
    known = curved[3]
    assert known.at(1e-9).spacing == known.at(1e-2).spacing == "logit-tight"


def test_smooth_straight_paths_keep_the_usual_spacing(exact):
    assert exact[3].spacing == "logit"


def test_single_precision_is_assumed_where_the_tolerance_is_above_its_rounding():
    assert ASSUMED.at(1e-3).rounding == ASSUMED.at(1e-1).rounding and ASSUMED.at(1e-3).rounding is not None
    assert ASSUMED.at(9e-4).rounding is None


def of_random_weights(d, size=0.1):
    """Fields of a network of random weights, and rows."""
    generator = torch.Generator().manual_seed(3)
    network = FiLMNetwork(d, 0, (16, 16), "silu", generator).double().requires_grad_(False)
    network.output.copy_(size * torch.randn(network.output.shape, generator=generator, dtype=torch.float64))
    path, one = GaussianBase(Linear()), torch.ones(d, dtype=torch.float64)
    fields = Fields(path, PreconditionedField(path, network, "velocity", one, one, None).double())
    return fields, torch.randn((200, d), generator=generator, dtype=torch.float64)


@pytest.fixture
def solved(monkeypatch):
    """The rows, the precision and the steps of each solve."""
    seen = []

    def counted(fields, x, start, stop, level, *others):
        seen.append((len(x), fields.is_single, level.n_steps))
        return follow(fields, x, start, stop, level, *others)

    monkeypatch.setattr("sklearn_si._model.likelihood.follow", counted)
    return seen


@pytest.mark.parametrize("d", [2, 24])
def test_single_precision_without_a_measurement_is_for_few_columns(d, solved):
    """Of many columns its assumed error would send all rows to a second solve."""
    fields, x = of_random_weights(d)
    ode_log_density(fields, x, 1.0, 0.0, standard_normal_parts, 1e-3, "logit")
    assert solved[0][:2] == (200, d == 2 and fields.in_single_precision() is not None)


@pytest.mark.parametrize(("rounding", "is_small"), [((3.0, 0.0), True), ((0.0, 1.0), False)], ids=["small", "large"])
def test_rows_are_solved_at_twice_the_steps_in_single_precision_where_rounding_is_small(solved, rounding, is_small):
    fields, x = of_random_weights(3, size=0.5)
    if fields.in_single_precision() is None:
        pytest.skip("single precision depends on the place of a row here")
    known = LikelihoodCalibration(((1e-4, 4, 6),), ((4, (0.0, 1.0)),), rounding=rounding)
    value, error = ode_log_density(fields, x, 1.0, 0.0, standard_normal_parts, 1e-3, "logit", known)
    doubled = [row for row in solved if row[2] == 8]
    assert doubled == [(200, True, 8)] if is_small else doubled == [(200, True, 8), (200, False, 8)]
    assert not any(single for _, single, steps in solved if steps > 8)
    fine, _ = ode_log_density(fields, x, 1.0, 0.0, standard_normal_parts, 1e-6, "logit", known)
    assert (error <= 1e-3).all() and ((value - fine).abs() <= error).double().mean() >= 0.99
    # a row is the same in every batch
    some, _ = ode_log_density(fields, x[::7], 1.0, 0.0, standard_normal_parts, 1e-3, "logit", known)
    torch.testing.assert_close(some, value[::7], rtol=0, atol=1e-12)


@torch.no_grad()
def test_without_a_calibration_the_values_are_the_same_and_no_error_is_computed(exact):
    fields, (x, _), _, _ = exact
    ends = x, 1.0, Level(6, 8), "logit", 0.0, standard_normal_parts
    (value, error), (bare, none) = density_parts(fields, *ends), density_parts(fields, *ends, None)
    assert torch.equal(value, bare) and error is not None and none is None


def test_the_levels_of_two_solves_cost_the_least_for_the_rows_of_the_measurement():
    easy, hard = torch.tensor([1e-4] * 9 + [1.0], dtype=torch.float64), torch.full((10,), 1e-4, dtype=torch.float64)
    coarse, middle, fine = Level(6, 8), Level(12, 16), Level(24, 32)
    errors = {coarse: (easy, easy), middle: (easy, easy), fine: (hard, hard)}
    assert _cheapest(1e-3, errors, 1.0) == (coarse, fine)
    assert _cheapest(2.0, errors, 1.0)[0] == coarse
    # nothing is gained by a first solve that all rows miss
    assert _cheapest(1e-3, {coarse: (hard, hard + 1), fine: (hard, hard)}, 1.0)[0] == fine


def test_stated_errors_grow_beyond_the_rows_of_the_measurement(exact):
    fields, (x, _), _, known = exact
    level, row = known.start(1e-1), x[:1]
    solve = [fields, 1.5 * row, 1.0, 0.0, level, "logit"]
    size = float((1.5 * row).square().sum())
    within, beyond = (dataclasses.replace(known, reach=size / factor) for factor in (0.5, 2.0))
    stated = [flow_with_divergence(*solve, calibration)[2] for calibration in (within, beyond)]
    torch.testing.assert_close(stated[1], torch.where(2 * stated[0] <= 0.5, 2 * stated[0], torch.inf))


def test_far_rows_are_covered_or_flagged(exact, monkeypatch):
    fields, (x, _), _, known = exact
    far = 4 * x[:20]
    limit_levels(monkeypatch, 5)  # the rows furthest out come under no tolerance
    value, error = ode_log_density(fields, far, 1.0, 0.0, standard_normal_parts, 1e-3, "logit", known)
    fine, rest = ode_log_density(fields, far, 1.0, 0.0, standard_normal_parts, 1e-5, "logit")
    assert (((value - fine).abs() <= error + rest) | (error > 1e-3)).all()


def test_fewer_nodes_are_read_off_the_polynomial_of_the_fine_solve():
    fine, few = (torch.as_tensor(gauss_legendre(n)[0])[:, None] for n in (96, 10))
    torch.testing.assert_close(_at_nodes(torch.sin(9 * fine), 10), torch.sin(9 * few), rtol=0, atol=1e-11)


def test_a_short_fit_measures_nothing_and_a_longer_one_more_rows(exact):
    fields = exact[0]
    assert pilot_rows(fields, 1000, 2) == 0
    assert 0 < pilot_rows(fields, 10**6, 2) <= pilot_rows(fields, 10**9, 2) == calibration.MOST_ROWS


def test_a_field_that_is_not_finite_leaves_the_usual_levels():
    path = GaussianBase(Linear())

    class Broken(torch.nn.Module):
        def forward(self, t, x, condition=None):
            return x * torch.nan

        def velocity_and_divergence(self, t, x, condition=None):
            return x * torch.nan, x.sum(1) * torch.nan

    assert calibrate(Fields(path, Broken()), torch.zeros(30, 2).double(), 0.0, standard_normal_parts) is None


@pytest.fixture(scope="module")
def fitted():
    X = np.random.default_rng(0).standard_t(5, size=(2000, 2))
    return InterpolantFlow(max_iter=2000, hidden_layer_sizes=(32, 32), random_state=0).fit(X), X


def test_a_fit_calibrates_its_log_densities_and_files_keep_it(fitted, tmp_path):
    flow, _ = fitted
    known = flow.model_.likelihood_calibration
    assert isinstance(known, LikelihoodCalibration) and known.is_measured
    save(flow, tmp_path / "flow.si")
    assert load(tmp_path / "flow.si").model_.likelihood_calibration == known


def test_a_fit_that_keeps_a_short_run_counts_the_steps_of_all():
    """Two clusters are a mixture, found early: what was tried beside it is work as well."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1200, 2)) * 0.3 + np.where(rng.random((1200, 1)) < 0.5, 2.0, -2.0)
    flow = InterpolantFlow(max_iter=1500, hidden_layer_sizes=(16, 16), random_state=0).fit(X)
    assert flow.model_.likelihood_calibration is not None


@pytest.mark.parametrize("tolerance", [1e-1, 1e-2, 1e-3, 1e-4])
def test_calibrated_and_assumed_densities_agree_within_both_errors(fitted, tolerance):
    flow, X = fitted
    plain = InterpolantFlow(ode_tol=1e-7)
    plain.model_ = dataclasses.replace(flow.model_, likelihood_calibration=None)
    plain.n_features_in_ = 2
    value, error = flow.set_params(ode_tol=tolerance).score_samples(X[:1000], return_error=True)
    fine, rest = plain.score_samples(X[:1000], return_error=True)
    assert (np.abs(value - fine) <= error + rest).mean() >= 0.985
