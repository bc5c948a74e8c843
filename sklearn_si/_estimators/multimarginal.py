"""Many samples in one model: trajectories through snapshots, maps between any two, barycenters of all."""

import dataclasses
import itertools
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator, DensityMixin, OneToOneFeatureMixin, _fit_context
from sklearn.utils._param_validation import StrOptions
from sklearn.utils._set_output import _SetOutputMixin, _wrap_data_with_container
from sklearn.utils.validation import check_is_fitted

from .._model.densities import log_density
from .._model.lost_rows import warn_missed
from .._model.settings import Evaluation
from .._training.multimarginal import ManySamples, fit_many
from .._training.recipe import Recipe
from .._utils.callbacks import FollowedEstimator, Tasks
from .._utils.input_checks import all_or_nothing, check_count, validate_points, validate_rows
from .._utils.links import LinkedEstimator
from .._utils.many_samples import column_names
from .._utils.names import registered
from .._utils.tensors import SAMPLE_STREAM, draw_seed, make_generator, resolve_device
from ..persistence._pickling import PackedNetworks
from .base import BaseInterpolant
from .flow import InterpolantFlow
from .in_group import fit_by_first
from .many_samples import check_samples, checked_weights, position_of, read_samples


@registered("MultimarginalFlow")
class MultimarginalFlow(
    OneToOneFeatureMixin, _SetOutputMixin, PackedNetworks, FollowedEstimator, LinkedEstimator, DensityMixin,
    BaseEstimator,
):  # fmt: skip
    """One model of many samples: snapshots in the order of time, or groups without an order.

    x(alpha) = sum_k alpha_k x_k,    dX/ds = sum_k alpha_k'(s) g_k(alpha(s), X),    g_k = E[x_k | x(alpha) = x]

    (Albergo, Boffi, Lindsey & Vanden-Eijnden, arXiv 2310.03695, (5) and (6)), with weights alpha of sum 1. One network
    with a head for each g_k gives the velocity along every path of weights. With `times` the path is the natural cubic
    spline through the snapshots: it passes through each of them, and between two it bends as their neighbours say.
    Without, it is the straight line between the two samples that are named. Rows of the samples are paired in training
    by optimal transport, so that paths are short.

    Parameters
    ----------
    coupling : {"optimal", "independent", "paired"}, default="optimal"
        How rows of the samples are put together in training. "optimal" pairs batches of 1,024 rows by the least energy
        in scaled units: with times, of the action and a share of the bending of their paths; without, of the squared
        distances between all samples, which is the plan of Wasserstein barycenters. "independent" pairs at random, and
        "paired" row i with row i of all samples.
    preprocessing : {"auto", "standardize", "whiten"} or None, default="auto"
        The map from data units to scaled units, one for all samples. "standardize", which is "auto", divides each
        column by its standard deviation within the samples; "whiten" takes the axes in which their mean covariance is
        the identity; None is no map.
    base_density : {"flow", "normal", "standard_normal"}, estimator or None, default="flow"
        The density of the first sample, on which `score_samples` depends, as in `InterpolantFlow`. "flow" is fitted to
        its rows and to as many rows of the other samples that were moved to it. None saves the time of the fit.
    ode_tol : float, default=1e-3
        Largest error of log-densities (in nats) and of moved rows (in scaled units, relative to 1 + their size). May be
        changed after fit.
    hidden_layer_sizes : "auto", int or array-like of int, default="auto"
        Widths of the hidden layers; "auto" as in `InterpolantFlow`.
    activation : {"silu", "tanh", "softplus"}, default="silu"
        Activation of the hidden layers.
    batch_size : int or "auto", default="auto"
        Points in a gradient step; "auto" is 512.
    learning_rate_init : float, default=0.01
        Largest learning rate of Adam; the rate warms up to it and then falls to zero along a cosine.
    max_iter : int or "auto", default="auto"
        Number of gradient steps; "auto" is 3000 for two samples, and 1000 more for each further one.
    max_time : float or None, default=None
        Seconds of training, half of them for a `base_density` of "flow". The result then depends on the speed of the
        machine, and is not reproducible.
    tol : float, default=0.0
        A validation round whose score does not rise by more than this counts as stale, in units of the loss.
    n_iter_no_change : int or "auto", default="auto"
        Number of stale validation rounds after which training stops; "auto" is 20.
    early_stopping : bool, default=True
        Whether rows are held out for validation: training then stops when their score no longer rises, and keeps the
        weights of the best round.
    validation_fraction : float, default=0.1
        Share of the rows of each sample that are held out; at least 50 rows, or a fifth of the rows where that is
        fewer.
    device : str or torch.device, default="auto"
        Where the model is trained and evaluated; "auto" is CUDA if there is one, else MPS, else the CPU. May be changed
        after fit.
    verbose : int, default=0
        Whether to print a line for each validation round.
    random_state : int, RandomState instance or None, default=None
        Seed of training and of sampling. Global random number generators are left untouched. May be changed after fit.

    Attributes
    ----------
    labels_ : list
        The names of the samples: their times, their groups, or their numbers in the list.
    times_ : ndarray of shape (n_samples,) or None
        The times of the samples, increasing; None where they have no order.
    base_density_ : estimator or None
        The density of the first sample, in data units.
    n_iter_, loss_, loss_curve_, validation_scores_, best_validation_score_, history_, seed_ : object
        As in `InterpolantFlow`.
    n_features_in_ : int
        Number of columns.
    feature_names_in_ : ndarray of str of shape (n_features,)
        Names of the columns, if fit was given frames.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_si import MultimarginalFlow
    >>> rng = np.random.default_rng(0)
    >>> snapshots = [rng.normal([t, t**2], 0.3, size=(300, 2)) for t in (0, 1, 2)]
    >>> flow = MultimarginalFlow(max_iter=50, base_density="normal", random_state=0).fit(snapshots, times=[0, 1, 2])
    >>> flow.sample(200, time=1.8).mean(axis=0).round(0)
    array([2., 3.])
    >>> flow.transform(snapshots[0][:5], source=0, target=2).shape
    (5, 2)
    """

    _networks: ClassVar[tuple[str, ...]] = ("model_",)
    _parameter_constraints: ClassVar[dict] = {
        "coupling": [StrOptions({"optimal", "independent", "paired"})],
        "preprocessing": [StrOptions({"auto", "standardize", "whiten"}), None],
        **{
            name: BaseInterpolant._parameter_constraints[name]
            for name in (
                "base_density", "ode_tol", "hidden_layer_sizes", "activation", "batch_size", "learning_rate_init",
                "max_iter", "max_time", "tol", "n_iter_no_change", "early_stopping", "validation_fraction", "device",
                "verbose", "random_state",
            )
        },
    }  # fmt: skip

    def __init__(
        self,
        coupling="optimal",
        preprocessing="auto",
        base_density="flow",
        ode_tol=1e-3,
        hidden_layer_sizes="auto",
        activation="silu",
        batch_size="auto",
        learning_rate_init=0.01,
        max_iter="auto",
        max_time=None,
        tol=0.0,
        n_iter_no_change="auto",
        early_stopping=True,
        validation_fraction=0.1,
        device="auto",
        verbose=0,
        random_state=None,
    ):
        self.coupling = coupling
        self.preprocessing = preprocessing
        self.base_density = base_density
        self.ode_tol = ode_tol
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.batch_size = batch_size
        self.learning_rate_init = learning_rate_init
        self.max_iter = max_iter
        self.max_time = max_time
        self.tol = tol
        self.n_iter_no_change = n_iter_no_change
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.device = device
        self.verbose = verbose
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, times=None, *, groups=None):
        """Fit one model to several samples.

        Parameters
        ----------
        X : list of array-like of shape (n_samples_k, n_features), or one array-like with `groups`
            The samples, of the same columns, in data units.
        times : list of float or dict, default=None
            The time of each sample, in any unit. With `groups`, a dict from each label to its time. None: samples of a
            list have no order, and numbers in `groups` are times.
        groups : str or array-like of shape (n_samples,), default=None
            Which sample each row of X belongs to: the name of a column of a frame, which is then no feature, or a
            label for each row. Text has no order, unless its dtype orders the categories.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            When there are fewer than two samples, when one has fewer than two rows or no density where one is
            promised, or when times are missing, repeated or infinite.
        ProcessGroupError
            When several processes fit together, and they differ in parameters, columns or times, or one of them fails.
        FitDivergedError
            When the training loss stops being finite, and does so again at lower learning rates.
        """
        told = {"times": times}

        def fit_to_all(X, groups):
            self._fit_to_all(X, times, groups)

        return fit_by_first(self, fit_to_all, told, X=X, groups=groups)

    def _fit_to_all(self, X, times, groups):
        with all_or_nothing(self):
            samples, labels, times, follow = read_samples(self, X, times, groups)
            check_samples(self, samples, labels)
            problem = ManySamples(
                samples, labels, times, draw_seed(self.random_state), column_names(self), self.coupling,
                follow=follow,
            )  # fmt: skip
            problem.tasks = Tasks(self, X, None, {"times": times})
            model, record = fit_many(self._recipe(), problem)
            self.model_ = model
            for name, value in record.items():
                setattr(self, name, value)
        problem.tasks.end({"model_": model, **record})

    def _recipe(self):
        names = {field.name for field in dataclasses.fields(Recipe)}
        params = {name: value for name, value in self.get_params(deep=False).items() if name in names}
        return Recipe(**params, base_flow=self._base_flow)

    def _base_flow(self, max_time):
        return InterpolantFlow(
            base_density=None, hidden_layer_sizes=self.hidden_layer_sizes, activation=self.activation,
            max_iter=self.max_iter, max_time=max_time, device=self.device, early_stopping=self.early_stopping,
            validation_fraction=self.validation_fraction,
        )  # fmt: skip

    # -- questions

    def transform(self, X, source=None, target=None):
        """Move rows of one sample, or of one time, to another along the ODE.

        dX/ds = sum_k alpha_k'(s) g_k(alpha(s), X)    (arXiv 2310.03695, (6))

        The map is deterministic, and the map from `target` to `source` is its inverse.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows of `source`, in data units.
        source, target : label or float, default=None
            Labels of samples (`labels_`), or, in a model with times, any times from the first to the last. None are the
            first and the last; samples without an order have neither, and are to be named.

        Returns
        -------
        X_t : ndarray or frame of shape (n_samples, n_features)
            The moved rows, in data units, each with an error of at most `ode_tol`; rows that miss it are counted in an
            `IntegrationWarning`. A row that becomes infinite or NaN is NaN, and another warning names it.

        Raises
        ------
        ValueError
            When there is no such label, or the time is not between the first and the last.
        """
        model = self._ready()
        path = model.path(self._position(source, "source", 0), self._position(target, "target", -1))
        return self._moved(validate_rows(self, X), path)

    def trajectory(self, X, times):
        """The rows at several times, from rows at the first of them.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows at times[0], in data units.
        times : array-like of shape (n_times,)
            Times from the first to the last of fit, in any order.

        Returns
        -------
        paths : ndarray of shape (n_times, n_samples, n_features)
            In data units; each step is within `ode_tol`.

        Raises
        ------
        ValueError
            When the model has no times.
        """
        model = self._ready()
        if model.times is None:
            raise ValueError(
                "trajectory needs an order of the samples, but fit was given no times: fit([X0, ..., XK], times=...), "
                "or move rows between two samples with transform."
            )
        if not np.iterable(times) or not len(times := list(times)):
            raise ValueError(f"Got times={times!r}, but expected a list of times.")
        moments = [self._position(t, "times", 0) for t in times]
        paths = [validate_points(self, X, "X")]
        for before, after in itertools.pairwise(moments):
            paths.append(self._moved(paths[-1], model.path(before, after)))
        return np.stack(paths)

    def sample(self, n_samples=1, *, time=None, random_state=None):
        """Draw rows of a sample, or of any time.

        Rows of the samples before and after `time`, those of the nearer one more often, are drawn with replacement and
        moved along the ODE; without times, rows of all other samples alike.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        time : label or float, default=None
            As `target` in `transform`; None is the last sample.
        random_state : int, RandomState instance or None, default=None
            Seed of the draw. None is the estimator's own `random_state`; if that is None too, each call draws other
            rows.

        Returns
        -------
        X : ndarray or frame of shape (n_samples, n_features)
            Rows in data units. A row that becomes infinite or NaN is drawn again, at most three times.

        Raises
        ------
        ValueError
            As in `transform`.
        IntegrationError
            When more than 1 % of the rows become infinite or NaN in each of their four draws.
        """
        model, n_samples = self._ready(), check_count(n_samples, "n_samples")
        X = model.sample(n_samples, self._position(time, "time", -1), self._generator(random_state))
        return _wrap_data_with_container("transform", X, X, self)

    def barycenter(self, weights, n_samples=1, *, random_state=None):
        """Draw rows of a mean of the samples: of x(w) = sum_k w_k x_k.

        Under the plan of coupling="optimal" without times, its distribution minimises sum_k w_k W2(rho, rho_k)^2 (Agueh
        & Carlier 2011, "Barycenters in the Wasserstein space"), up to the bias of batches.

        Parameters
        ----------
        weights : array-like of shape (n_labels,) or dict
            The weight of each sample, in the order of `labels_`, or by label (0 where it is left out); none is
            negative, and their sum is 1.
        n_samples : int, default=1
            Number of rows.
        random_state : int, RandomState instance or None, default=None
            As in `sample`.

        Returns
        -------
        X : ndarray or frame of shape (n_samples, n_features)
            Rows in data units.

        Raises
        ------
        ValueError
            When the weights are not one for each sample, negative, or do not add up to 1.
        """
        model, n_samples = self._ready(), check_count(n_samples, "n_samples")
        weights = checked_weights(weights, model.labels)
        X = model.barycenter(weights, n_samples, self._generator(random_state))
        return _wrap_data_with_container("transform", X, X, self)

    def score_samples(self, X, *, time=None, return_error=False):
        """Log-density of a sample, or of any time, at each row.

        log rho_t(x) = log rho_0(X_0) - int_0^1 div b(s, X_s) ds,    X_1 = x

        along the path from the first sample, whose density is that of `base_density` (2303.08797, (2.53)).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in data units.
        time : label or float, default=None
            As `target` in `transform`; None is the last sample.
        return_error : bool, default=False
            Whether to return the estimated errors of the solver too.

        Returns
        -------
        log_density : ndarray of shape (n_samples,)
            In nats, within `ode_tol` of the exact value for the learned velocity; rows that miss it are counted in an
            `IntegrationWarning`. A row that becomes infinite or NaN is NaN, with a warning that names it.
        error : ndarray of shape (n_samples,)
            Estimated errors in nats, if return_error=True.

        Raises
        ------
        NoDensityError
            After a fit with base_density=None.
        """
        value, error = self._log_density(validate_rows(self, X), time, strict=False)
        return (value, error) if return_error else value

    def score(self, X, y=None, *, time=None):
        """Mean log-likelihood of rows of a sample, or of any time.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in data units.
        y : None
            Ignored.
        time : label or float, default=None
            As `target` in `transform`; None is the last sample.

        Returns
        -------
        score : float
            In nats per row; higher is better.
        """
        return float(self._log_density(validate_rows(self, X), time, strict=True)[0].mean())

    # -- how they are answered

    def _ready(self):
        check_is_fitted(self)
        self._validate_params()
        return self.model_

    def __sklearn_is_fitted__(self):
        """Whether `fit` has run."""
        return "model_" in vars(self)

    def _generator(self, random_state):
        seed = draw_seed(self.random_state if random_state is None else random_state)
        return make_generator(seed, SAMPLE_STREAM, resolve_device(self.device))

    def _moved(self, X, path):
        evaluation = Evaluation(resolve_device(self.device), self.ode_tol, strict=False)
        moved, error = self.model_.along(path).transport(X, True, evaluation)
        warn_missed(error, self.ode_tol)
        return moved

    def _log_density(self, X, time, strict):
        model, end = self._ready(), np.float64(1.0)
        path = model.path(model.position(0), self._position(time, "time", -1))
        evaluation = Evaluation(resolve_device(self.device), self.ode_tol, strict=strict)
        return log_density(model.along(path), X, end, evaluation)

    def _position(self, given, name, default):
        return position_of(self.model_, given, name, default)

    @property
    def labels_(self) -> list[Any]:
        """The names of the samples."""
        return list(self.model_.labels)

    @property
    def times_(self) -> np.ndarray | None:
        """The times of the samples; None where they have no order."""
        return self.model_.times

    @property
    def base_density_(self) -> Any:
        """The density of the first sample; None where none was fitted."""
        return self.model_.base_density

    @property
    def seed_(self) -> int:
        """The seed of the fit."""
        return self.model_.seed

    def __sklearn_tags__(self):
        """The tags of scikit-learn: a fit takes several samples, which its common checks do not pass."""
        tags = super().__sklearn_tags__()
        tags._skip_test = True
        return tags
