"""The fields and the paths of a fitted model, in data units."""

import numbers
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from .._model.sampling import check_schedule
from .._utils.input_checks import validate_points
from .._utils.tensors import (
    PATH_STREAM,
    as_array,
    as_tensor,
    draw_seed,
    evaluation_dtype,
    make_generator,
    normal,
    resolve_device,
)
from ..preprocessing import AffineMap
from ..solvers import (
    KINK,
    odeint,
    require_finite,
    sdeint,
    time_grid,
)


class FieldMethods:
    """Velocity, score function, denoiser, prediction of the target, interpolation and trajectories.

    In data units x_t = c(t) + D x_t', with c = alpha m0 + beta m1 the path of the centres and D the scale, so that
    b = c_dot + D b', s = D^-T s', and eta is the same.
    """

    def velocity(self, X, t, *, condition=None):
        """Velocity b(t, x) = E[dx_t/dt | x_t = x], in data units a unit of time (2303.08797, (2.9)).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Points.
        t : float
            Time in [0, 1].
        condition : array-like, default=None
            One row for all or one for each, if the model was fitted with a condition.

        Returns
        -------
        b : ndarray of shape (n_samples, n_features)
        """
        return self._field(X, t, condition, lambda f, t, x: f.velocity(t, x), self._velocity_to_data)

    def score_function(self, X, t, *, condition=None):
        """Score function s(t, x) = grad log rho_t(x), in inverse data units (2303.08797, (2.14)).

        With a normal base and alpha W = 0 at t = 1 (linear and trigonometric paths) it is taken at
        t <= 0.999, where it is still a quotient of two numbers that do not vanish.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Points.
        t : float
            Time in [0, 1].
        condition : array-like, default=None
            One row for all or one for each, if the model was fitted with a condition.

        Returns
        -------
        s : ndarray of shape (n_samples, n_features)

        Raises
        ------
        ValueError
            When only the velocity of a bridge was learned: it does not give the score.
        """
        self._require_score("score_function")
        return self._field(X, t, condition, lambda f, t, x: f.score(t, x), lambda s, t: self._scale.pull_back(s))

    def denoiser(self, X, t, *, condition=None):
        """Denoiser eta(t, x) = E[z | x_t = x], of the standard normal noise z (2303.08797, (2.18)).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Points.
        t : float
            Time in [0, 1].
        condition : array-like, default=None
            One row for all or one for each, if the model was fitted with a condition.

        Returns
        -------
        eta : ndarray of shape (n_samples, n_features)
            In units of z. With a normal base z is the base row itself, in scaled units.

        Raises
        ------
        ValueError
            When only the velocity of a bridge was learned.
        """
        self._require_score("denoiser")
        return self._field(X, t, condition, lambda f, t, x: f.denoiser(t, x), lambda eta, t: eta)

    def predict_target(self, X, t, *, condition=None):
        """Posterior mean E[x1 | x_t = x] of the target row, in data units (2303.08797, (4.6)).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Points.
        t : float
            Time in [0, 1].
        condition : array-like, default=None
            One row for all or one for each, if the model was fitted with a condition.

        Returns
        -------
        x1 : ndarray of shape (n_samples, n_features)

        Raises
        ------
        ValueError
            When the latent noise of a bridge was not learned, or the path is not linear in space.
        """
        check_is_fitted(self)
        self._refuse_forecast("predict_target")
        if not self.interpolant_.is_linear:
            raise ValueError(
                "predict_target needs a path that is linear in space: E[x1 | x_t] has no closed form here."
            )
        if self.interpolant_.has_noise:
            self._require_score("predict_target")
        return self._field(
            X, t, condition, lambda f, t, x: f.target(t, x), lambda x, t: self.preprocessing_.inverse_transform(x)
        )

    def interpolate(self, X0, X1, t, *, random_state=None):
        """Points x_t = I(t, x0, x1) + gamma(t) z of the path between paired rows, in data units.

        Parameters
        ----------
        X0, X1 : array-like of shape (n_samples, n_features)
            Rows at t = 0 and at t = 1, row i with row i. With a normal base, X0 holds rows of N(0, D D^T).
        t : float
            Time in [0, 1].
        random_state : int, RandomState instance or None, default=None
            Seed of z; None means the estimator's own.

        Returns
        -------
        x_t : ndarray of shape (n_samples, n_features)
        """
        check_is_fitted(self)
        X0, X1 = self._points(X0, "X0"), self._points(X1, "X1")
        if len(X0) != len(X1):
            raise ValueError(f"X0 has {len(X0)} rows and X1 has {len(X1)}: expected pairs, row i with row i.")
        time, device = self._time(t), torch.device("cpu")
        x0, x1 = (as_tensor(X, torch.float64, device) for X in (self._base_map().transform(X0),
                                                                self.preprocessing_.transform(X1)))  # fmt: skip
        seed = draw_seed(self.random_state if random_state is None else random_state)
        path: Any = getattr(self.interpolant_, "path", self.interpolant_)
        z = normal(x0.shape, make_generator(seed, PATH_STREAM), like=x0) if path.has_noise else None
        return self._to_data(as_array(path.point(time, x0, x1, z), np.float64), time).astype(X1.dtype, copy=False)

    @torch.no_grad()
    def trajectory(self, X, n_times=11, *, start=0.0, stop=1.0, noise_level=0.0, condition=None, random_state=None):
        """Paths of rows along the ODE or the SDE, between any two times, forward or backward.

        dX = b dt, or dX = (b + epsilon s) dt + sqrt(2 epsilon) dW forward and, with b - epsilon s, backward
        (2303.08797, (2.32)-(2.35), with the noise of (2.35) at 1 - t).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows at time `start`, in data units.
        n_times : int, default=11
            Number of times, both ends among them; at least 2.
        start, stop : float, default=0.0 and 1.0
            Times in [0, 1]; start > stop runs backward.
        noise_level : float, default=0.0
            Of this path, whatever the estimator's own; 0 is the ODE.
        condition : array-like, default=None
            One row for all or one for each, if the model was fitted with a condition.
        random_state : int, RandomState instance or None, default=None
            Seed of the noise; None means the estimator's own.

        Returns
        -------
        paths : ndarray of shape (n_times, n_samples, n_features)
            In data units, in the dtype of X.
        """
        check_is_fitted(self)
        self._validate_params()
        _check_trajectory(n_times, start, stop, noise_level)
        self._refuse_forecast("trajectory")
        X = self._points(X, "X")
        device = resolve_device(self.device)
        fields = self._fields(X.dtype, device, condition, len(X))
        begin, end = self._time(start), self._time(stop)
        x = as_tensor(self._to_scaled(X, begin), evaluation_dtype(X.dtype, device), device)
        times, kept = _output_grid(n_times, self._sampling_steps[0], float(begin), float(end), self._grid()[1])
        times = times.to(x)
        if noise_level > 0:
            self._require_score("trajectory with noise_level > 0")
            check_schedule(self.noise_schedule, self.interpolant_)
            drift, epsilon = fields.sde(noise_level, self.noise_schedule, times)
            seed = draw_seed(self.random_state if random_state is None else random_state)
            states = sdeint(drift, epsilon, x, times, make_generator(seed, PATH_STREAM, device), dense=True)
        else:
            states, _ = odeint(fields.velocity, x, times, "rk4", dense=True)
        require_finite(states[kept].transpose(0, 1), "following a trajectory")
        moments = zip(states[kept], times[kept].double().cpu(), strict=True)
        return np.stack([self._to_data(as_array(x, np.float64), t) for x, t in moments]).astype(X.dtype, copy=False)

    @torch.no_grad()
    def _field(self, X, t, condition, field, to_data):
        """One field at one time: scaled, evaluated, brought back."""
        check_is_fitted(self)
        self._refuse_forecast("A field of its own")
        X, time = self._points(X, "X"), self._time(t)
        device = resolve_device(self.device)
        dtype = evaluation_dtype(X.dtype, device)
        fields = self._fields(X.dtype, device, condition, len(X))
        x = as_tensor(self._to_scaled(X, time), dtype, device)
        value = require_finite(field(fields, time.to(x), x), "computing a field")
        return to_data(as_array(value, np.float64), time).astype(X.dtype, copy=False)

    def _points(self, X, name):
        return validate_points(self, X, name)

    @staticmethod
    def _time(t):
        if not isinstance(t, numbers.Real) or not 0 <= float(t) <= 1:
            raise ValueError(f"Got t={t!r}, but expected a time in [0, 1].")
        return torch.tensor(float(t), dtype=torch.float64)

    def _require_score(self, what):
        check_is_fitted(self)
        self._refuse_forecast(what)
        if not (self.interpolant_.kind == "one-sided" or self.denoiser_network_ is not None):
            raise ValueError(
                f"{what} needs the score function, which the velocity alone does not give after a fit of two samples: "
                "use InterpolantDiffusion, or fields='b+eta' with a gamma."
            )

    def _base_map(self):
        """The map of the base: the bridge's own, or D alone for a normal base."""
        return self._scale if self.base_preprocessing_ is None else self.base_preprocessing_

    @property
    def _affine(self):
        """The map of the target, if it is affine: else only t = 1 has data units."""
        if not isinstance(self.preprocessing_, AffineMap):
            raise ValueError(
                "Fields, trajectories and densities at t < 1 have no data units after a map of each column, which "
                f"preprocessing={self.preprocessing!r} {'chose' if self.preprocessing == 'auto' else 'is'}: fit with "
                "preprocessing='whiten'."
            )
        return self.preprocessing_

    @property
    def _scale(self):
        """The map x = D x'."""
        return self._affine.without_centre()

    def _centre(self, time, derivative=False):
        """c(t) = alpha m0 + beta m1, or its derivative."""
        path, m1 = self.interpolant_, self._affine.centre
        if not path.is_linear:
            return 0 * m1 if derivative else m1
        beta = float(path.beta_dot(time) if derivative else path.beta(time))
        if self.base_preprocessing_ is None:
            return beta * m1
        alpha = float(path.alpha_dot(time) if derivative else path.alpha(time))
        return alpha * self.base_preprocessing_.centre + beta * m1

    def _to_scaled(self, X, time):
        if time == 1 and self.base_preprocessing_ is None:
            return self.preprocessing_.transform(X)
        return self._scale.transform(X - self._centre(time))

    def _to_data(self, x, time):
        return self._scale.inverse_transform(x) + self._centre(time)

    def _velocity_to_data(self, b, time):
        return self._scale.inverse_transform(b) + self._centre(time, derivative=True)


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
