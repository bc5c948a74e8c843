"""Many samples in one model: trajectories through snapshots, maps between any two, barycenters of all."""

import dataclasses
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator, DensityMixin, OneToOneFeatureMixin, _fit_context
from sklearn.utils._param_validation import StrOptions
from sklearn.utils._set_output import _SetOutputMixin

from .._training.multimarginal import ManySamples, fit_many
from .._training.recipe import Recipe
from .._utils.after_fit import AFTER_FIT
from .._utils.callbacks import FollowedEstimator, Tasks
from .._utils.links import LinkedEstimator
from .._utils.many_samples import column_names
from .._utils.names import registered
from .._utils.weights import normalised
from ..persistence._pickling import PackedNetworks
from .base import BaseInterpolant
from .flow import InterpolantFlow
from .in_group import fit_by_first
from .many_samples import (
    check_samples,
    encoded_conditions,
    flattened,
    gathered,
    of_samples,
    read_samples,
    without_weightless,
)
from .memory import open_memory
from .multimarginal_methods import SimplexMethods
from .resume import open_checkpoint


@registered("MultimarginalFlow")
class MultimarginalFlow(
    SimplexMethods, OneToOneFeatureMixin, _SetOutputMixin, PackedNetworks, FollowedEstimator, LinkedEstimator,
    DensityMixin, BaseEstimator,
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
        in scaled units: with times, of the action and a share of the bending of their paths, in a frame that turns with
        the samples where this spares a tenth of the cost; without, of the squared distances between all samples, which
        is the plan of Wasserstein barycenters. "independent" pairs at random, and
        "paired" row i with row i of all samples.
    preprocessing : {"auto", "standardize", "whiten"} or None, default="auto"
        The map from data units to scaled units, one for all samples. "standardize", which is "auto", divides each
        column by its standard deviation within the samples; "whiten" takes the axes in which their mean covariance is
        the identity; None is no map.
    base_density : {"flow", "normal", "standard_normal"}, estimator or None, default="flow"
        The density of the first sample, on which `score_samples` depends, as in `InterpolantFlow`. "flow" is fitted to
        its rows and to as many rows of the other samples that were moved to it; it is the only one that may depend on a
        condition. None saves the time of the fit.
    condition_kinds : dict or None, default=None
        How columns of ``condition=`` are read, as in `InterpolantFlow`.
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
    checkpoint : str or path-like or None, default=None
        File in which `fit` saves its state, as in `InterpolantFlow`, so that the same call of `fit` continues there
        after a crash and gives the same model to the bit (without `max_time`).
    memory : str, path-like, joblib.Memory or None, default=None
        Folder in which fitted models are kept, as in `InterpolantFlow`.
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
    condition_codec_ : object or None
        The encoder of the condition.
    rotations_ : ndarray of shape (n_samples - 1, n_features, n_features) or None
        The rotation between each two neighbouring samples, in scaled units, up to which rows were paired; the identity
        where nothing turns, and None without times or with another coupling.
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

    model_: Any
    _networks: ClassVar[tuple[str, ...]] = ("model_",)
    _parameter_constraints: ClassVar[dict] = {
        "coupling": [StrOptions({"optimal", "independent", "paired"})],
        "preprocessing": [StrOptions({"auto", "standardize", "whiten"}), None],
        **{
            name: BaseInterpolant._parameter_constraints[name]
            for name in (
                "base_density", "condition_kinds", "ode_tol", "hidden_layer_sizes", "activation", "batch_size",
                "learning_rate_init", "max_iter", "max_time", "tol", "n_iter_no_change", "early_stopping",
                "validation_fraction", "device", "checkpoint", "memory", "verbose", "random_state",
            )
        },
    }  # fmt: skip

    def __init__(
        self,
        coupling="optimal",
        preprocessing="auto",
        base_density="flow",
        condition_kinds=None,
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
        checkpoint=None,
        memory=None,
        verbose=0,
        random_state=None,
    ):
        self.coupling = coupling
        self.preprocessing = preprocessing
        self.base_density = base_density
        self.condition_kinds = condition_kinds
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
        self.checkpoint = checkpoint
        self.memory = memory
        self.verbose = verbose
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, times=None, *, groups=None, condition=None, sample_weight=None):
        """Fit one model to several samples.

        Parameters
        ----------
        X : list of array-like of shape (n_samples_k, n_features), or one array-like with `groups`
            The samples, of the same columns, in data units.
        times : list of float or dict, default=None
            The time of each sample, in any unit. With `groups`, a dict from each label to its time. None: samples of a
            list have no order, and numbers in `groups` are times.
        groups : str, int or array-like of shape (n_samples,), default=None
            Which sample each row of X belongs to: the name of a column of a frame, which is then no feature, or a
            label for each row. Text has no order, unless its dtype orders the categories.
        condition : list of array-like of shape (n_samples_k,) or (n_samples_k, n_conditions), default=None
            What is known of each row, one entry for each sample of a list; with `groups`, one array-like for all rows
            of X. All distributions and maps are then learned given the condition, and rows of like conditions are
            paired. It is read as in `InterpolantFlow`.
        sample_weight : list of (array-like of shape (n_samples_k,) or None), default=None
            Weights of the rows of each sample of a list; with `groups` one array for all rows of X, and with
            coupling="paired" one for the paired rows. Only ratios within a sample count. Rows of weight zero are left
            out before any other check; the others are drawn in training, and in `sample`, by their weights.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            When there are fewer than two samples, when one has fewer than two rows or no density where one is
            promised, when times are missing, repeated or infinite, when conditions or weights are not one for each row,
            or when the density of the first sample cannot be learned given a condition.
        ProcessGroupError
            When several processes fit together, and they differ in parameters, columns or times, or one of them fails.
        FitDivergedError
            When the training loss stops being finite, and does so again at lower learning rates.
        CheckpointError
            When the file at `checkpoint` is damaged or belongs to another fit.
        """
        rows = flattened(X, groups=groups, condition=condition, sample_weight=sample_weight)

        def fit_to_all(**rows):
            self._fit_to_all(times, **gathered(rows))

        return fit_by_first(self, fit_to_all, {"times": times}, **rows)

    def _fit_to_all(self, times, X, groups, condition, sample_weight):
        is_paired = self.coupling == "paired"
        X, groups, condition, weights = without_weightless(X, groups, condition, sample_weight, is_paired)
        samples, labels, times, follow, places = read_samples(self, X, times, groups)
        check_samples(self, samples, labels)
        sizes = [len(rows) for rows in samples]
        codec, conditions = encoded_conditions(
            of_samples(condition, "condition", places, sizes), self.condition_kinds, samples, labels
        )
        self._check_density(codec)
        weights = of_samples(weights, "sample_weight", places, sizes)
        weights = None if weights is None else [normalised(w) for w in weights]
        weights = None if weights is None or all(w is None for w in weights) else weights
        told = {"X": samples, "labels": labels, "times": times, "condition": conditions, "sample_weight": weights}
        memory = open_memory(self, told | {"names": column_names(self)})
        with open_checkpoint(self, told) as checkpoint:
            problem = ManySamples(
                samples, labels, times, checkpoint.seed, column_names(self), self.coupling, follow=follow,
                conditions=conditions, codec=codec, weights=weights, checkpoint=checkpoint,
            )  # fmt: skip
            problem.tasks = Tasks(self, X, None, {"times": times})
            if memory.recall(self):
                self._renew_base()
                problem.tasks.end({"model_": self.model_})
                return
            model, record = fit_many(self._recipe(), problem)
            self.model_ = model
            for name, value in record.items():
                setattr(self, name, value)
            memory.keep(self)
            problem.tasks.end({"model_": model, **record})

    def _check_density(self, codec):
        if codec is not None and self.base_density not in ("flow", None):
            raise ValueError(
                f"Got base_density={self.base_density!r} and a condition, but log-densities given a condition need a "
                "density of the first sample that knows it: use base_density='flow', or None for transport alone."
            )

    def _renew_base(self):
        """Give the density of a loaded model this estimator's parameters that may be changed after fit."""
        base = self.model_.base_density
        if self.base_density == "flow" and base is not None:
            fresh = self._base_flow(None).get_params(deep=False)
            base.set_params(**{name: fresh[name] for name in AFTER_FIT[type(base).__name__] if name != "random_state"})

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

    def __sklearn_is_fitted__(self):
        """Whether `fit` has run."""
        return "model_" in vars(self)

    @property
    def labels_(self) -> list[Any]:
        """The names of the samples."""
        return list(self.model_.labels)

    @property
    def times_(self) -> np.ndarray | None:
        """The times of the samples; None where they have no order."""
        return self.model_.times

    @property
    def rotations_(self) -> np.ndarray | None:
        """The rotations between neighbouring samples, in scaled units."""
        return self.model_.rotations

    @property
    def condition_codec_(self) -> Any:
        """What encodes the condition; None without one."""
        return self.model_.condition_codec

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
