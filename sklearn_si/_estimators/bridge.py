"""The Schroedinger bridge: of all diffusions between two distributions, the one nearest to Brownian motion."""

import dataclasses
import functools
import numbers
from typing import ClassVar

import numpy as np
import torch
from sklearn.base import _fit_context
from sklearn.utils._param_validation import Interval, StrOptions

from .._model.lost_rows import settled
from .._model.redraws import draw_rows
from .._model.settings import Sampling
from .._model.units import returned
from .._training.losses import TIME_DISTRIBUTIONS
from .._training.problem import fit_problem, make_problem
from .._training.recipe import Recipe
from .._training.repeats import warn_repeats
from .._utils.callbacks import Tasks
from .._utils.input_checks import validate_samples
from .._utils.names import registered
from .._utils.row_numbers import numbered, rows_of_weights
from .._utils.tensors import (
    BASE_STREAM,
    FIT_STREAM,
    PATH_STREAM,
    as_array,
    as_tensor,
    evaluation_dtype,
    make_generator,
    resolve_device,
)
from .._utils.weights import weighted_samples
from ..couplings import OwnPairs
from ..preprocessing._support import check_ends, images, read_support, refuse_circles
from ..solvers import sdeint, time_grid
from .base import BaseInterpolant
from .bridge_choice import built_fields, chosen_epsilon, column_moments
from .bridge_fields import simulate_pairs
from .far_rows import ranges_of, warn_of_far
from .flow import InterpolantFlow
from .in_group import fit_by_first
from .memory import open_memory
from .model_estimator import ModelEstimator
from .resume import open_checkpoint

# Steps of the simulations whose ends are the pairs of the next round.
_SIMULATION_STEPS = 50
# Share of the seconds of a round, where they are limited, in which its pairs are simulated.
_SIMULATION_SHARE = 0.3


@registered("SchroedingerBridge")
class SchroedingerBridge(ModelEstimator):
    """The Schroedinger bridge between two distributions: entropic optimal transport as a diffusion.

    min over drifts u of E int |u(t, X_t)|^2 dt,    dX_t = u dt + sqrt(2 epsilon) dW_t,    X_0 ~ rho0, X_1 ~ rho1

    (Albergo, Boffi & Vanden-Eijnden, 2303.08797, (3.35)). The two ends of the process are coupled by the entropic plan,
    which minimises E|x0 - x1|^2 + 4 epsilon KL(plan || product of the marginals); given its ends it is a Brownian
    bridge, x_t = (1 - t) x0 + t x1 + sqrt(2 epsilon t (1 - t)) z. So it is an interpolant with velocity b, score s and
    denoiser eta, and u = b + epsilon s. Draw partners of rows with `sample_plan`, take their means with `transform`,
    and draw rows of the target with `sample`.

    Parameters
    ----------
    epsilon : float or "auto", default=0.1
        The diffusion coefficient, in scaled units squared per unit of time (preprocessing=None: data units). Pairs
        become independent as it grows, and optimal transport as it falls to 0. With "auto" the entropic penalty, 4
        epsilon, is a twentieth of the mean squared distance of rows of X0 and X1 around their means. The fitted value
        is `epsilon_`; another one needs a new fit.
    method : {"auto", "network", "mixture"}, default="auto"
        "mixture" fits plans in both directions whose conditionals are Gaussian mixtures; their fields have a closed
        form, which is exact between normal distributions. "network" learns networks around these closed forms, first
        from pairs of the plans, then from pairs that the model simulates itself, from rows of either end (iterated
        Markovian fitting). "auto" is "mixture" where held-out rows cannot be told from partners that it draws (a
        permutation test of the energy distance, in both directions), and else "network"; `method_` says which.
    n_components : int or "auto", default="auto"
        Number of components of the mixtures; "auto" chooses among 1, 4 and 16 on validation rows.
    n_rounds : int, default=1
        Number of rounds of iterated Markovian fitting, where networks are learned.
    preprocessing : {"auto", "standardize", "whiten"} or None, default="auto"
        The map from data units to scaled units, in which distances are measured, as in `InterpolantDiffusion`.
    base_density : {"flow", "normal", "standard_normal"}, estimator or None, default="flow"
        The density of the base, on which `score_samples` depends, as in `InterpolantDiffusion`; "flow" is an
        `InterpolantFlow`.
    support : str, tuple or dict, default="real"
        Where columns live, as in `InterpolantDiffusion`. The reference process is then Brownian on the line.
    n_steps : int, default=100
        Number of steps of `sample` and `sample_plan`; from a mixture the latter draws without steps. May be
        changed after fit.
    ode_tol : float, default=1e-3
        Largest error of log-densities, in nats, and of rows of `trajectory`, relative to 1 + their size in scaled
        units. May be changed after fit.
    time_distribution : {"auto", "uniform", "logit-normal", "data-end", "arcsine", "beta"}, default="auto"
        Distribution of the times t in training; "auto" is "logit-normal".
    hidden_layer_sizes : "auto", int or array-like of int, default="auto"
        Widths of the hidden layers; "auto" as in `InterpolantDiffusion`.
    activation : {"silu", "tanh", "softplus"}, default="silu"
        Activation of the hidden layers.
    batch_size : int or "auto", default="auto"
        Points in a gradient step; "auto" is 512.
    learning_rate_init : float, default=0.01
        Largest learning rate of Adam in each round; the rate warms up to it and then falls to zero along a cosine.
    max_iter : int or "auto", default="auto"
        Number of gradient steps of each round; "auto" is 3000.
    max_time : float or None, default=None
        Seconds of the fit, shared between its rounds. The result then depends on the speed of the machine, and is not
        reproducible.
    tol : float, default=0.0
        A validation round whose score does not rise by more than this counts as stale, in units of the loss.
    n_iter_no_change : int or "auto", default="auto"
        Number of stale validation rounds after which training stops; "auto" is 20.
    early_stopping : bool, default=True
        Whether rows are held out for validation: training then stops when their score no longer rises, and keeps the
        weights of the best round.
    validation_fraction : float, default=0.1
        Share of the rows that are held out; at least 50 rows, or a fifth of the rows where that is fewer.
    device : str or torch.device, default="auto"
        Where the model is trained and evaluated; "auto" is CUDA if there is one, else MPS, else the CPU. May be changed
        after fit.
    checkpoint : str or path-like or None, default=None
        File in which `fit` saves its state, about once a second, so that the same call of `fit` continues there after a
        crash and gives the same model to the bit (without `max_time`). It is removed at the end of the fit, and kept
        when Ctrl-C ended it. In a folder, each fit has its own file, named by its data and parameters.
    memory : str, path-like, joblib.Memory or None, default=None
        Folder in which fitted models are kept. A fit with the data, condition, training parameters and seed of an
        earlier one is loaded instead of being learned again, so that a search over parameters that may be changed after
        fit trains only once. Fits whose `random_state` is not an integer are not kept, nor are those that
        `sklearn_si.save` refuses (with a warning).
    verbose : int, default=0
        Whether to print a line for each validation round.
    random_state : int, RandomState instance or None, default=None
        Seed of training and of sampling. Global random number generators are left untouched. May be changed after fit.

    Attributes
    ----------
    network_, denoiser_network_ : Module
        The velocity b and the denoiser eta, in scaled units.
    potential_, reverse_potential_ : MixturePotential
        The closed forms of the plan from X0 to X1 and of its reverse, in scaled units.
    epsilon_ : float
        The diffusion coefficient of the fit.
    ranges_ : list of ndarray of shape (2, n_features)
        The least and the largest values of each sample of fit, far beyond which rows are warned of.
    method_ : {"network", "mixture"}
        What the fit has learned.
    interpolant_, preprocessing_, base_preprocessing_, base_density_, base_sample_ : object
        As in `InterpolantDiffusion`.
    n_iter_, loss_curve_, validation_scores_, history_, seed_, n_features_in_, feature_names_in_ : object
        As in `InterpolantDiffusion`.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_si import SchroedingerBridge
    >>> rng = np.random.default_rng(0)
    >>> X0, X1 = rng.normal(size=(500, 2)), rng.normal(3.0, 0.5, size=(400, 2))
    >>> bridge = SchroedingerBridge(method="mixture", base_density=None, random_state=0).fit(X0, X1)
    >>> bridge.transform(X0[:3]).shape, bridge.sample_plan(X0[:3]).shape
    ((3, 2), (3, 2))
    """

    _parameter_constraints: ClassVar[dict] = {
        "epsilon": [StrOptions({"auto"}), Interval(numbers.Real, 0, None, closed="neither")],
        "method": [StrOptions({"auto", "network", "mixture"})],
        "n_components": [StrOptions({"auto"}), Interval(numbers.Integral, 1, None, closed="left")],
        "n_rounds": [Interval(numbers.Integral, 0, None, closed="left")],
        "preprocessing": [StrOptions({"auto", "standardize", "whiten"}), None],
        "n_steps": [Interval(numbers.Integral, 1, None, closed="left")],
        "time_distribution": [StrOptions({"auto", *TIME_DISTRIBUTIONS})],
        **{
            name: BaseInterpolant._parameter_constraints[name]
            for name in (
                "base_density", "ode_tol", "hidden_layer_sizes", "activation", "batch_size", "learning_rate_init",
                "max_iter", "max_time", "tol", "n_iter_no_change", "early_stopping", "validation_fraction", "device",
                "checkpoint", "memory", "support", "verbose", "random_state",
            )
        },
    }  # fmt: skip

    def __init__(
        self,
        epsilon=0.1,
        method="auto",
        n_components="auto",
        n_rounds=1,
        preprocessing="auto",
        base_density="flow",
        support="real",
        n_steps=100,
        ode_tol=1e-3,
        time_distribution="auto",
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
        checkpoint=None,
        memory=None,
        verbose=0,
        random_state=None,
    ):
        self.epsilon = epsilon
        self.method = method
        self.n_components = n_components
        self.n_rounds = n_rounds
        self.preprocessing = preprocessing
        self.base_density = base_density
        self.support = support
        self.n_steps = n_steps
        self.ode_tol = ode_tol
        self.time_distribution = time_distribution
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
        self.checkpoint = checkpoint
        self.memory = memory
        self.verbose = verbose
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X0, X1=None, *, condition=None, sample_weight=None):
        """Fit the bridge between two samples, or from a normal distribution to one sample.

        Parameters
        ----------
        X0 : array-like of shape (n_samples_0, n_features)
            The base. Without X1 it is the target, and the base is the normal distribution with the means and standard
            deviations of its columns.
        X1 : array-like of shape (n_samples_1, n_features), default=None
            The target.
        condition : None
            Not supported: None is the only value.
        sample_weight : array-like of shape (n_samples,) or tuple of two, default=None
            Weights of the rows of the last sample given, or a pair (weights of X0, weights of X1), as in
            `InterpolantDiffusion`.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            When the rows have no density, when weights are negative, not finite, all zero or not one a row, or when a
            condition is given.
        FitDivergedError
            When the training loss stops being finite.
        """
        if condition is not None:
            raise ValueError(
                "Got a condition, but SchroedingerBridge has none: use "
                "InterpolantDiffusion(coupling='entropic'), which pairs rows of like conditions."
            )
        return fit_by_first(self, self._fit_to_all, X0=X0, X1=X1, sample_weight=sample_weight)

    def _fit_to_all(self, X0, X1, sample_weight):
        X0, X1, _, row_weights = weighted_samples(X0, X1, None, sample_weight, False)
        X0, X1 = validate_samples(self, X0, X1)
        self._warn_repeats(X0, X1)
        samples = {"X0": X0, "X1": X1, "sample_weight": row_weights}
        memory = open_memory(self, samples | {"names": list(vars(self).get("feature_names_in_", ()))})
        support = read_support(self.support, self._column_names())
        refuse_circles(support, "SchroedingerBridge, whose processes have noise")
        if support is not None:
            with numbered(rows_of_weights(sample_weight, "X0", "X1")):
                check_ends(support, X0, X1, (None, None), self._column_names())
        ranges = ranges_of(X0) if X1 is None else ranges_of(X0, X1)
        X0, X1 = images(support, X0, X1)
        with open_checkpoint(self, samples) as checkpoint:
            self._fit(X0, X1, row_weights, checkpoint, memory, support, ranges)

    def _warn_repeats(self, X0, X1):
        """Warn of columns that have no density, where one is promised."""
        if self.base_density is not None:
            samples = {"X": X0} if X1 is None else {"X0": X0, "X1": X1}
            ways_out = (
                "Set base_density=None if transport is all that is needed, or use InterpolantDiffusion("
                "coupling='entropic', dequantize='auto'), which adds noise within the cells of the values."
            )
            warn_repeats(samples, self._column_names(), None, ways_out)

    def _fit(self, X0, X1, row_weights, checkpoint, memory, support, ranges):
        """The fit to validated samples on the line."""
        from_normal = X1 is None
        if from_normal:
            rng = np.random.default_rng([checkpoint.seed, BASE_STREAM])
            noise = rng.standard_normal((max(len(X0), 1000), X0.shape[1]))
            mean, deviation = column_moments(X0, row_weights[1])
            X0, X1 = (mean + deviation * noise).astype(X0.dtype), X0
        epsilon = chosen_epsilon(self.epsilon, X0, X1, self.preprocessing, row_weights)
        recipe = self._recipe(epsilon)
        problem = make_problem(recipe, X0, X1, None, checkpoint, weights=row_weights, names=self._column_names())
        problem.tasks, problem.support = Tasks(self, X0, X1), support
        if memory.recall(self):
            self._renew_base()
            problem.tasks.end({"model_": self.model_})
            return self
        model, record = fit_problem(recipe, problem)
        plan = model.velocity.potential if model.velocity.network is None else None
        model = dataclasses.replace(model, coupling=OwnPairs(noise_level=epsilon), plan=plan)
        record |= {"epsilon_": epsilon, "from_normal_": from_normal, "ranges_": ranges}
        self._take(model, record)
        memory.keep(self)
        problem.tasks.end({"model_": model, **record})
        return self

    def _recipe(self, epsilon):
        """How the parameters ask to train: a linear path with the brownian gamma of the bridge."""
        names = {field.name for field in dataclasses.fields(Recipe)}
        params = {name: value for name, value in self.get_params(deep=False).items() if name in names}
        return Recipe(
            **params, gamma="brownian", gamma_scale=2 * epsilon, bf16=False, learns_denoiser=True,
            build_networks=functools.partial(self._build_networks, epsilon),
            train=functools.partial(self._train, epsilon), base_flow=self._base_flow,
        )  # fmt: skip

    def _sampling(self):
        return Sampling(self.epsilon_, "constant", "auto", self.n_steps, self.ode_tol)

    def distill(self, *args, **kwargs):
        """Not offered: a bridge is sampled by its plan or its SDE, not by an ODE."""
        raise ValueError("SchroedingerBridge has no flow map to distill: use InterpolantFlow.")

    @property
    def potential_(self):
        """The closed form from X0 to X1, in scaled units."""
        return self.network_.potential

    @property
    def method_(self):
        """What the fit has learned, "network" or "mixture"."""
        return "mixture" if self.network_.network is None else "network"

    @property
    def reverse_potential_(self):
        """The closed form from X1 to X0, in scaled units."""
        return self.network_.reverse_potential

    def _build_networks(self, epsilon, run):
        """The fields of a run, around the potentials between its rows; its plan then pairs rows by these."""
        return built_fields(run, epsilon, self.method, self.n_components)

    def _train(self, epsilon, run, settings):
        """Train on pairs of the closed-form plans, then on the fields' own, round by round."""
        if run.networks["velocity"].network is None:
            return
        run.train(self._limited(run, settings, self.n_rounds))
        for number in range(self.n_rounds):
            if run.history.interrupted:
                return
            run.keep_history()
            # how far the last training had drawn ahead is chance: the next one has a generator of its own
            run.generator = make_generator(run.problem.seed, FIT_STREAM + 700 + number, run.device)
            rest = self._limited(run, settings, self.n_rounds - 1 - number).max_time
            seconds = None if rest is None else _SIMULATION_SHARE * rest
            run.pairs = simulate_pairs(run, epsilon, _SIMULATION_STEPS, number, seconds)
            run.train(self._limited(run, settings, self.n_rounds - 1 - number))

    def _limited(self, run, settings, rounds_after):
        """The settings of one training, whose time is an equal share of what the closed form and simulations left."""
        if settings.max_time is None:
            return settings
        return dataclasses.replace(settings, max_time=run.problem.left(settings.max_time) / (1 + rounds_after))

    def _base_flow(self, max_time):
        return InterpolantFlow(
            base_density=None, hidden_layer_sizes=self.hidden_layer_sizes, activation=self.activation,
            max_iter=self.max_iter, max_time=max_time, device=self.device, early_stopping=self.early_stopping,
            validation_fraction=self.validation_fraction,
        )  # fmt: skip

    def transform(self, X, *, condition=None):
        """The mean of the plan given rows of fit's first argument: E[x1 | x0] = x0 + (b + epsilon s)(0, x0).

        It is deterministic, and not the inverse of `inverse_transform`: conditional means do not have the distribution
        of the other end (use `sample_plan` for rows that have it). After a fit of one sample it is E[x0 | x1], in units
        in which the base is standard normal.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows of the distribution of fit's first argument, in data units.
        condition : None

        Returns
        -------
        X_t : ndarray of shape (n_samples, n_features)
        """
        return self._plan_mean(self._checked(X, 0), forward=not self.from_normal_, scaled_base=self.from_normal_)

    def inverse_transform(self, X, *, condition=None):
        """The mean of the plan given rows of the other end: E[x0 | x1] = x1 - (b - epsilon s)(1, x1).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows of the end that `transform` leads to.
        condition : None

        Returns
        -------
        X_t : ndarray of shape (n_samples, n_features)
            Conditional means; not the inverse of `transform`.
        """
        moved = self._plan_mean(self._checked(X, 1), forward=self.from_normal_, scaled_base=self.from_normal_)
        return self._wrapped(moved, X)

    def sample_plan(self, X, *, direction="forward", random_state=None):
        """Draw partners of rows from the plan: a row of the other end given a row of this one.

        x1 ~ plan(x1 | x0),    or    x0 ~ plan(x0 | x1) with direction="backward"

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows of the base (direction="forward") or of the target ("backward"), in data units.
        direction : {"forward", "backward"}, default="forward"
            From the base to the target, or back.
        random_state : int, RandomState instance or None, default=None
            Seed of the draw; None is the estimator's own `random_state`.

        Returns
        -------
        partners : ndarray or frame of shape (n_samples, n_features)
            In data units; a frame with the names of fit after ``set_output(transform="pandas")``.

        Raises
        ------
        ValueError
            When the direction is neither of the two.
        """
        if direction not in ("forward", "backward"):
            raise ValueError(f"Got direction={direction!r}, but expected 'forward' or 'backward'.")
        given, forward = X, direction == "forward"
        X, model = self._checked(X, int(forward == vars(self).get("from_normal_", False))), self.model_
        device = resolve_device(self.device)
        generator = make_generator(self._seed_of(random_state), PATH_STREAM, device)
        map_in, map_out = (model.base_map, model.target_map)[:: 1 if forward else -1]
        x = as_tensor(map_in.transform(X), evaluation_dtype(X.dtype, device), device)
        fields = model.fields(X.dtype, device)
        if model.plan is not None:
            field = fields.velocity_network
            follow = (field.potential if forward else field.reverse_potential).draw
        else:
            times = time_grid(self.n_steps, "uniform", *((0.0, 1.0) if forward else (1.0, 0.0))).to(x)
            drift, epsilon = fields.sde(self.epsilon_, "constant", times)

            def follow(x, generator):
                return sdeint(drift, epsilon, x, times, generator)

        def draw(rows):
            partners = map_out.inverse_transform(as_array(follow(x[rows], generator), np.float64))
            return returned(partners, X.dtype, model.support)

        partners = draw_rows(draw, X.shape, X.dtype, given=x, chunk=len(x), advice="fit longer, or raise n_steps")
        return self._wrapped(partners, given)

    def _checked(self, X, argument):
        """Validated rows of an argument of fit, by its number (1 has no rows after a fit of one sample)."""
        self._ready()
        X, ranges = self._validate_rows(X), vars(self).get("ranges_", [])
        name = "X" if len(ranges) == 1 else f"X{argument}"
        warn_of_far(X, dict(enumerate(ranges)).get(argument), self._column_names(), name)
        return self._in_support(X)

    @torch.no_grad()
    def _plan_mean(self, X, forward, scaled_base):
        model, device, sign = self.model_, resolve_device(self.device), 1.0 if forward else -1.0
        map_in, map_out = (model.base_map, model.target_map)[:: 1 if forward else -1]
        rows = X if forward and scaled_base else map_in.transform(X)
        x = as_tensor(rows, evaluation_dtype(X.dtype, device), device)
        fields, time = model.fields(X.dtype, device), torch.tensor(0.0 if forward else 1.0).to(x)
        drift = fields.velocity(time, x) + sign * self.epsilon_ * fields.score(time, x)
        with np.errstate(over="ignore", invalid="ignore"):
            moved = as_array(x + sign * drift, np.float64)
            if not (scaled_base and not forward):
                moved = returned(map_out.inverse_transform(moved), X.dtype, model.support)
            moved = moved.astype(X.dtype, copy=False)
        return settled(moved, "taking the mean of the plan", strict=False)
