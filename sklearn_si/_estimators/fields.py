"""The fields and the paths of a fitted model, in data units."""

import dataclasses
import numbers

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from .._model.fields import Fields
from .._model.likelihood import GRID_SPACING
from .._model.lost_rows import settled, unknown_where_lost, warn_missed
from .._model.sampling import check_schedule
from .._model.transport import transport_rows
from .._model.units import DataUnits, returned
from .._utils.tensors import PATH_STREAM, as_array, as_tensor, evaluation_dtype, make_generator, normal
from ..solvers import sdeint, time_grid
from ..solvers._grids import KINK
from .model_access import AsksModel


class FieldMethods(AsksModel):
    """Velocity, score function, denoiser, prediction of the target, interpolation and trajectories.

    In data units x_t = c(t) + D x_t', with c = alpha m0 + beta m1 the path of the centres and D the scale, so that
    b = c_dot + D b', s = D^-T s', and eta is the same. Where columns have a support this is so on the line, and the
    path in data units is its image.
    """

    def velocity(self, X, t, *, condition=None):
        """Velocity b(t, x) = E[dx_t/dt | x_t = x], the mean direction of the paths through x at time t.

        (2303.08797, (2.9)).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Points x, in data units.
        t : float
            Time in [0, 1].
        condition : array-like, default=None
            The condition, if the model was fitted with one: one row for all rows of X, or one for each.

        Returns
        -------
        b : ndarray of shape (n_samples, n_features)
            In data units per unit of time.
        """
        return self._field(X, t, condition, Fields.velocity, DataUnits.velocity_to_data)

    def score_function(self, X, t, *, condition=None):
        """Score function s(t, x) = grad log rho_t(x), the gradient of the log-density at time t.

        (2303.08797, (2.14)). With a normal base it follows from the velocity by a quotient; where its denominator is 0
        at t = 1 (linear and trigonometric paths), it is taken at t = 0.999.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Points x, in data units.
        t : float
            Time in [0, 1].
        condition : array-like, default=None
            The condition, if the model was fitted with one: one row for all rows of X, or one for each.

        Returns
        -------
        s : ndarray of shape (n_samples, n_features)
            In inverse data units.

        Raises
        ------
        ValueError
            When only the velocity of a bridge was learned, from which the score does not follow.
        """
        check_is_fitted(self)
        self.model_.require_score("score_function")
        return self._field(X, t, condition, Fields.score, DataUnits.score_to_data)

    def denoiser(self, X, t, *, condition=None):
        """Denoiser eta(t, x) = E[z | x_t = x], the mean of the standard normal noise z of the paths through x.

        (2303.08797, (2.18)).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Points x, in data units.
        t : float
            Time in [0, 1].
        condition : array-like, default=None
            The condition, if the model was fitted with one: one row for all rows of X, or one for each.

        Returns
        -------
        eta : ndarray of shape (n_samples, n_features)
            In units of z. With a normal base z is the base row itself, in scaled units.

        Raises
        ------
        ValueError
            When only the velocity of a bridge was learned.
        """
        check_is_fitted(self)
        self.model_.require_score("denoiser")
        return self._field(X, t, condition, Fields.denoiser, DataUnits.unchanged)

    def predict_target(self, X, t, *, condition=None):
        """Posterior mean E[x1 | x_t = x] of the row of the target at the end of the path (2303.08797, (4.6)).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Points x, in data units.
        t : float
            Time in [0, 1].
        condition : array-like, default=None
            The condition, if the model was fitted with one: one row for all rows of X, or one for each.

        Returns
        -------
        x1 : ndarray or frame of shape (n_samples, n_features)
            The posterior means, in data units and in the container that `set_output` asks for.

        Raises
        ------
        ValueError
            When the latent noise of a bridge was not learned, or the path is not linear in space.
        """
        check_is_fitted(self)
        model = self.model_
        model.refuse_forecast("predict_target")
        if not model.interpolant.is_linear:
            raise ValueError(
                "predict_target needs a path that is linear in space: E[x1 | x_t] has no closed form here."
            )
        if model.support is not None:
            raise ValueError(
                "predict_target is a mean, which the map of a support to the line does not keep: fit with "
                "support='real', or take the mean of rows that are drawn (trajectory with noise)."
            )
        if model.interpolant.has_noise:
            model.require_score("predict_target")
        return self._wrapped(self._field(X, t, condition, Fields.target, DataUnits.target_to_data), X)

    def interpolate(self, X0, X1, t, *, random_state=None):
        """Points x_t = I(t, x0, x1) + gamma(t) z of the path between paired rows, in data units.

        Parameters
        ----------
        X0, X1 : array-like of shape (n_samples, n_features)
            Rows at t = 0 and at t = 1, row i with row i. With a normal base, X0 holds rows of N(0, D D^T).
        t : float
            Time in [0, 1].
        random_state : int, RandomState instance or None, default=None
            Seed of z; None is the estimator's own `random_state`.

        Returns
        -------
        x_t : ndarray or frame of shape (n_samples, n_features)
            The points, in data units and in the container that `set_output` asks for; their index is that of X1.
        """
        check_is_fitted(self)
        given = X1
        X0, X1 = (self._in_support(self._points(X, name), None, name) for X, name in ((X0, "X0"), (X1, "X1")))
        if len(X0) != len(X1):
            raise ValueError(f"X0 has {len(X0)} rows and X1 has {len(X1)}: expected pairs, row i with row i.")
        model, moment, cpu = self.model_, time_of(t), torch.device("cpu")
        x0 = as_tensor(model.units.base.transform(X0), torch.float64, cpu)
        x1 = as_tensor(model.target_map.transform(X1), torch.float64, cpu)
        path = model.interpolant.two_sided()
        x1 = path.nearest(x0, x1)
        generator = make_generator(self._seed_of(random_state), PATH_STREAM)
        z = normal(x0.shape, generator, like=x0) if path.has_noise else None
        x = as_array(path.point(moment, x0, x1, z), np.float64)
        return self._wrapped(returned(model.units.to_data(x, moment), X1.dtype, model.support), given)

    @torch.no_grad()
    def trajectory(self, X, n_times=11, *, start=0.0, stop=1.0, noise_level=0.0, condition=None, random_state=None):
        """Paths of rows along the ODE or the SDE, between any two times, forward or backward.

        dX = b dt,    or    dX = (b + epsilon s) dt + sqrt(2 epsilon) dW

        with b - epsilon s backward in time (2303.08797, (2.32)-(2.35), with the noise of (2.35) at 1 - t).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows at time `start`, in data units.
        n_times : int, default=11
            Number of times, both ends among them; at least 2.
        start, stop : float, default=0.0 and 1.0
            Times in [0, 1]; start > stop runs backward.
        noise_level : float, default=0.0
            Of this path, whatever the estimator's own; 0 is the ODE, solved within `ode_tol` at every one of the
            times. With noise, `n_steps` is the least number of steps.
        condition : array-like, default=None
            The condition, if the model was fitted with one: one row for all rows of X, or one for each.
        random_state : int, RandomState instance or None, default=None
            Seed of the noise; None is the estimator's own `random_state`.

        Returns
        -------
        paths : ndarray of shape (n_times, n_samples, n_features)
            In data units, in the dtype of X. Rows of the ODE that miss `ode_tol` are counted in an
            `IntegrationWarning`.
        """
        model = self._ready()
        _check_trajectory(n_times, start, stop, noise_level)
        model.refuse_forecast("trajectory")
        X = self._in_support(self._points(X, "X"))
        sampling = dataclasses.replace(self._sampling(), noise_level=float(noise_level))
        generator = None
        if noise_level > 0:
            model.require_score("trajectory with noise_level > 0")
            check_schedule(sampling.noise_schedule, model.interpolant)
            generator = make_generator(self._seed_of(random_state), PATH_STREAM, self._evaluation().device)
        times = n_times, sampling.even_steps, time_of(start), time_of(stop)
        return _trajectory(model, X, times, sampling, self._evaluation(strict=False), generator, condition)

    def _field(self, X, t, condition, field, to_data):
        """One field at one time, in data units."""
        check_is_fitted(self)
        model, X = self.model_, self._in_support(self._points(X, "X"))
        return model.field(X, time_of(t), field, to_data, self._evaluation(strict=False), condition)


def time_of(t):
    """A time as a tensor of shape ()."""
    if not isinstance(t, numbers.Real) or not 0 <= float(t) <= 1:
        raise ValueError(f"Got t={t!r}, but expected a time in [0, 1].")
    return torch.tensor(float(t), dtype=torch.float64)


def _trajectory(model, X, times, sampling, evaluation, generator, condition):
    """States at equidistant times, in data units; `times` are their number, that of the steps, and both ends."""
    (n_times, n_steps, begin, end), device, units = times, evaluation.device, model.units
    fields = model.fields(X.dtype, device, condition, len(X), evaluation.guidance)
    x = as_tensor(units.to_scaled(X, begin), evaluation_dtype(X.dtype, device), device)
    ends, node, error = (float(begin), float(end)), model.interpolant.gaussian_time, None
    if generator is not None:
        grid, kept = _output_grid(n_times, n_steps, *ends, node)
        drift, epsilon = fields.sde(sampling.noise_level, sampling.noise_schedule, grid.to(x))
        states, times = sdeint(drift, epsilon, x, grid.to(x), generator, dense=True)[kept], grid[kept]
    else:
        times = time_grid(int(n_times) - 1, "uniform", *ends)
        states, error = transport_rows(
            fields, x, *ends, evaluation.tolerance, GRID_SPACING, node, outputs=times.tolist()
        )
    with np.errstate(over="ignore", invalid="ignore"):
        moments = zip(as_array(states, np.float64), times, strict=True)
        paths = np.stack([returned(units.to_data(x, t), X.dtype, units.support) for x, t in moments])
    paths = settled(paths.swapaxes(0, 1), "following a trajectory", evaluation.strict)
    if error is not None:
        warn_missed(unknown_where_lost(error, paths), evaluation.tolerance)
    return paths.swapaxes(0, 1)


def _output_grid(n_times, n_steps, start, stop, node):
    """A grid of at least n_steps steps with n_times equidistant ones among them (their places), and a kink."""
    inner = -(-n_steps // (n_times - 1))
    times = time_grid(inner * (n_times - 1), "uniform", start, stop)
    outputs = times[::inner]
    if node is not None and min(start, stop) < node < max(start, stop):
        sides = torch.tensor([node - KINK, node + KINK], dtype=torch.float64)
        times = torch.cat([times[(times - node).abs() > KINK], sides]).sort(descending=stop < start).values
    return times, (times[:, None] - outputs).abs().argmin(0)


def _check_trajectory(n_times, start, stop, noise_level):
    if not isinstance(n_times, numbers.Integral) or n_times < 2:
        raise ValueError(f"Got n_times={n_times!r}, but expected an integer of at least 2.")
    if start == stop:
        raise ValueError(f"Got start = stop = {start!r}: expected two different times.")
    if not isinstance(noise_level, numbers.Real) or not float(noise_level) >= 0:
        raise ValueError(f"Got noise_level={noise_level!r}, but expected a float of at least 0.")
