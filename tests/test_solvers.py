"""Orders of convergence, grids, and refinement row by row."""

import itertools

import numpy as np
import pytest
import torch

from sklearn_si import InterpolantDiffusion, InterpolantFlow
from sklearn_si.exceptions import IntegrationError
from sklearn_si.solvers import ODE_SOLVERS, SDE_SOLVERS, SOLVERS, TIME_GRIDS, odeint, refine, sdeint, time_grid
from sklearn_si.solvers._adaptive import require_finite
from sklearn_si.solvers._grids import grid_map
from sklearn_si.solvers._refinement import Beside
from sklearn_si.solvers._steps import combine, dense_state, runge_kutta_step


def slope(steps, errors):
    return -np.polyfit(np.log(steps), np.log(errors), 1)[0]


@pytest.mark.parametrize("estimator", [InterpolantFlow, InterpolantDiffusion])
@pytest.mark.parametrize("name", SOLVERS)
def test_every_name_is_documented(name, estimator):
    assert f'"{name}"' in estimator.__doc__


@pytest.mark.parametrize("method", ODE_SOLVERS)
@pytest.mark.parametrize("forward", [True, False])
def test_ode_order(method, forward):
    """Of dx/dt = x cos(t), solved by exp(sin t)."""
    start, stop = (0.0, 2.0) if forward else (2.0, 0.0)
    x = torch.full((1, 1), np.exp(np.sin(start)), dtype=torch.float64)
    steps = [16, 32, 64, 128]
    errors = [
        abs(odeint(lambda t, x: x * torch.cos(t), x, time_grid(n, "uniform", start, stop), method).item()
            - np.exp(np.sin(stop)))
        for n in steps
    ]  # fmt: skip
    assert abs(slope(steps, errors) - ODE_SOLVERS[method].order) < 0.35


@pytest.mark.parametrize("spacing", TIME_GRIDS)
def test_order_survives_crowded_grids(spacing):
    x = torch.ones((1, 1), dtype=torch.float64)
    steps = [16, 32, 64]
    errors = [
        abs(odeint(lambda t, x: x * torch.cos(t), x, time_grid(n, spacing)).item() - np.exp(np.sin(1))) for n in steps
    ]
    assert slope(steps, errors) > 3.6


def test_dense_output_of_dormand_prince_is_of_fourth_order():
    """Of dx/dt = x cos(t) at a third of one step, and at its ends."""
    tableau, errors, f = ODE_SOLVERS["dopri5"], [], lambda t, x: x * np.cos(t)
    x = torch.ones((1, 1), dtype=torch.float64)
    steps = [0.4, 0.2, 0.1, 0.05]
    for h in steps:
        new, slopes = runge_kutta_step(tableau, f, 0.0, h, x)
        slopes.append(f(h, new))
        errors.append(abs(dense_state(tableau, 1 / 3, h, x, slopes).item() - np.exp(np.sin(h / 3))))
        torch.testing.assert_close(dense_state(tableau, 0.0, h, x, slopes), x)
        torch.testing.assert_close(dense_state(tableau, 1.0, h, x, slopes), new)
    assert -slope(steps, errors) > 4.7  # one step: an order more than of many


def test_tableaus_are_consistent():
    for tableau in ODE_SOLVERS.values():
        np.testing.assert_allclose(sum(tableau.b), 1, atol=1e-14)
        np.testing.assert_allclose([sum(row) for row in tableau.a], tableau.c, atol=1e-14)


def test_dense_output_has_states_and_slopes_of_all_times():
    times = torch.linspace(0, 1, 9, dtype=torch.float64)
    states, slopes = odeint(lambda t, x: x * t, torch.ones(3, 2, dtype=torch.float64), times, dense=True)
    assert states.shape == slopes.shape == (9, 3, 2)
    torch.testing.assert_close(slopes, states * times[:, None, None])


# N(0, 1) -> N(1, 1/4), linear, Gaussian base: m = t, C = (1-t)^2 + t^2/4.
def _coefficients(t):
    c = (1 - t) ** 2 + t**2 / 4
    return (-(1 - t) + t / 4) / c, c


def _drift(t, x, e):
    a, c = _coefficients(t)
    return 1 + (a - e / c) * (x - t)


def _exact_moments(method, level, n, start=0.0, stop=1.0):
    """Mean and variance at t = 1 of the chain, by probing each (affine) step at three points."""
    step, times = SDE_SOLVERS[method], time_grid(n, "uniform", start, stop)
    mean, variance = (0.0, 1.0) if start == 0 else (1.0, 0.25)
    sign = 1.0 if stop > start else -1.0
    x = torch.tensor([[0.0], [1.0], [0.0]], dtype=torch.float64)
    noise = torch.tensor([[0.0], [0.0], [1.0]], dtype=torch.float64)
    for t, t_next in itertools.pairwise(times):
        shift, moved, kicked = step(
            lambda t, x, e: _drift(t, x, sign * e), lambda t: torch.full_like(t, level), t, t_next - t, x, noise
        ).ravel()
        mean = float(shift + (moved - shift) * mean)
        variance = float((moved - shift) ** 2 * variance + (kicked - shift) ** 2)
    return mean, variance


@pytest.mark.parametrize(("method", "order"), [("euler-maruyama", 1), ("stochastic-heun", 2)])
@pytest.mark.parametrize("level", [0.5, 5.0])
@pytest.mark.parametrize("span", [(0.0, 1.0), (1.0, 0.0)])
def test_weak_order_of_the_sde_steppers(method, order, level, span):
    steps = [100, 200, 400, 800]
    target = 0.25 if span[1] == 1 else 1.0
    errors = [abs(_exact_moments(method, level, n, *span)[1] - target) for n in steps]
    assert abs(slope(steps, errors) - order) < 0.25
    assert abs(_exact_moments(method, level, 400, *span)[0] - span[1]) < 1e-3


def test_the_two_time_heun_step_is_second_order_where_the_one_time_step_of_the_authors_is_first():
    """Erratum: noise first, both slopes at t + dt, is of weak order one (theory 3.6)."""

    def printed(drift, epsilon, t, h, x, noise):
        y = x + torch.sqrt(2 * epsilon(t) * h) * noise
        slope = drift(t + h, y, epsilon(t))
        return y + h / 2 * (slope + drift(t + h, y + h * slope, epsilon(t)))

    SDE_SOLVERS["printed"] = printed
    try:
        errors = [abs(_exact_moments("printed", 0.5, n)[1] - 0.25) for n in (100, 200, 400)]
    finally:
        del SDE_SOLVERS["printed"]
    assert slope([100, 200, 400], errors) < 1.2
    assert errors[0] > 50 * abs(_exact_moments("stochastic-heun", 0.5, 100)[1] - 0.25)


def test_sdeint_draws_the_moments_it_should():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(100_000, 1, generator=generator, dtype=torch.float64)
    end = sdeint(_drift, lambda t: torch.full_like(t, 0.5), x, time_grid(100, "uniform"), generator)
    assert abs(float(end.mean()) - 1) < 4 * 0.5 / 100_000**0.5
    assert abs(float(end.var()) - 0.25) < 4 * 0.25 * (2 / 100_000) ** 0.5


def test_time_grid():
    assert time_grid(4, "uniform", 0.2, 0.6).tolist() == pytest.approx([0.2, 0.3, 0.4, 0.5, 0.6])
    for spacing in TIME_GRIDS:
        rising, falling = time_grid(10, spacing), time_grid(10, spacing, 1.0, 0.0)
        torch.testing.assert_close(rising, falling.flip(0))
        assert (rising.diff() > 0).all() and rising[0] == 0 and rising[-1] == 1


@pytest.mark.parametrize("n", [1, 2, 3, 7, 16])
@pytest.mark.parametrize("span", [(0.0, 1.0), (1.0, 0.0), (0.1, 0.8)])
def test_a_kink_is_put_on_the_grid(n, span):
    times = time_grid(n, "uniform", *span, node=0.5)
    np.testing.assert_allclose(np.sort((times - 0.5).abs())[:2], 1e-7, rtol=1e-6)
    assert (times.diff().sign() == np.sign(span[1] - span[0])).all()


def _solve(x):
    """dx/dt = k x with k = |x0|: rows of very different stiffness."""

    def solve(rows, level):
        k = x[rows].abs()
        return odeint(lambda t, y: k * y, x[rows], time_grid(4 * 2**level, "uniform")), 1.0, None

    return solve


def test_refinement_meets_its_tolerance_row_by_row():
    x = torch.linspace(0.1, 5, 40, dtype=torch.float64)[:, None]
    for tolerance in (1e-3, 1e-6, 1e-9):
        value, error = refine(_solve(x), len(x), tolerance, range(13))
        true = (value - x * torch.exp(x)).abs()[:, 0]
        assert (error <= tolerance).all()
        assert (true <= error).all()


def test_a_row_does_not_depend_on_its_batch_mates():
    x = torch.linspace(0.1, 5, 40, dtype=torch.float64)[:, None]
    together, _ = refine(_solve(x), len(x), 1e-6, range(13))
    alone = torch.cat([refine(_solve(r[None]), 1, 1e-6, range(13))[0] for r in x[::4]])
    torch.testing.assert_close(together[::4], alone, rtol=0, atol=0)


def test_refinement_says_what_it_could_not_reach():
    x = torch.tensor([[0.1], [20.0]], dtype=torch.float64)
    _, error = refine(_solve(x), 2, 1e-6, range(4))
    assert error[0] <= 1e-6 < error[1]


def _series(rate, size, levels):
    """Solutions whose distance to the limit, 0, falls by a rate of each row from level to level; the levels solved."""

    def solve(rows, level):
        levels.append(level)
        return (size[rows] * rate[rows] ** level)[:, None], 1.0, None

    return solve


def test_an_error_beside_that_of_the_distance_is_added():
    def solve(rows, level):
        return torch.full((1, 1), 0.1**level), 1.0, Beside(torch.full((1,), 0.01)) if level else None

    _, error = refine(solve, 1, 0.5, range(5), gap_share=0.5)
    assert float(error) == pytest.approx(0.5 * (0.1 - 0.01) + 0.01)  # of the third level: 1.36 at the second


@pytest.mark.parametrize("size", [1e3, 1e10])
def test_a_row_without_hope_is_given_up_early_with_an_error_that_covers(size):
    rate, sizes, levels = torch.tensor([0.8, -0.8, 1.0], dtype=torch.float64), torch.full((3,), size).double(), []
    value, error = refine(_series(rate, sizes, levels), 2, 1e-3, range(9))
    assert max(levels) <= 4
    assert (error > 1e-3).all() and (value.abs()[:, 0] <= error).all()


def test_a_row_that_converges_late_is_not_given_up():
    """Distances as they were measured on a row that a classifier was asked about far outside, signs alternating."""
    distances = [6.1, -0.25, 1.2, -0.18, 0.0095, -0.0028, 0.0002, -0.00002]

    def solve(rows, level):
        return torch.full((len(rows), 1), sum(distances[:level]) - sum(distances), dtype=torch.float64), 1.0, None

    value, error = refine(solve, 1, 1e-3, range(9))
    assert abs(value[0, 0]) <= error[0] <= 1e-3


def test_a_tight_tolerance_does_not_cost_the_accuracy_that_can_be_had():
    rate, levels = torch.tensor([0.1], dtype=torch.float64), []
    value, _ = refine(_series(rate, torch.ones(1).double(), levels), 1, 1e-14, range(9))
    assert max(levels) == 8 and value[0, 0].abs() <= 2e-8


def test_rounding_of_large_parts_is_no_reason_to_go_on():
    generator, levels = torch.Generator().manual_seed(0), []

    def solve(rows, level):
        levels.append(level)
        noise = torch.rand((len(rows), 1), generator=generator, dtype=torch.float64)
        return 1e16 * (1 + 1e-16 * noise), 1.0, None

    _, error = refine(solve, 4, 1e-3, range(9))
    assert max(levels) <= 4 and (error < 50).all()


def test_non_finite_rows_are_counted():
    with pytest.raises(IntegrationError, match="2 of 3 rows became infinite or NaN while sampling"):
        require_finite(torch.tensor([[0.0], [torch.nan], [torch.inf]]), "sampling")


def test_the_embedded_error_is_that_of_a_fourth_order_step():
    """Beside the same step by much finer ones: it falls with h^5, and is much larger than the error of the step."""
    tableau, x = ODE_SOLVERS["dopri5"], torch.ones((1, 1), dtype=torch.float64)
    assert sum(tableau.error) == pytest.approx(0, abs=1e-15)
    lengths, embedded = [0.4, 0.2, 0.1], []
    for h in lengths:
        f = lambda t, x: x * torch.cos(torch.as_tensor(t))  # noqa: E731
        new, slopes = runge_kutta_step(tableau, f, 0.0, h, x)
        embedded.append(abs(float(h * combine(tableau.error, [*slopes, f(h, new)]))))
        assert 3 * abs(float(new) - np.exp(np.sin(h))) < embedded[-1]
    assert abs(np.polyfit(np.log(lengths), np.log(embedded), 1)[0] - 5) < 0.35


@pytest.mark.parametrize("spacing", TIME_GRIDS)
@pytest.mark.parametrize("span", [(0.0, 1.0), (1.0, 0.0), (0.7, 0.2)])
def test_rates_of_a_grid_are_the_derivatives_of_its_times(spacing, span):
    s, h = torch.linspace(0.05, 0.95, 19, dtype=torch.float64), 1e-6
    difference = (grid_map(s + h, spacing, *span)[0] - grid_map(s - h, spacing, *span)[0]) / (2 * h)
    torch.testing.assert_close(grid_map(s, spacing, *span)[1], difference, rtol=1e-6, atol=1e-8)
