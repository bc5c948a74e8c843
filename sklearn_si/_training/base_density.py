"""The density of the base of a bridge, known only by its sample."""

import numpy as np
from scipy.stats import multivariate_normal
from sklearn.base import BaseEstimator, DensityMixin, clone
from sklearn.utils.validation import has_fit_parameter

from .._utils.names import registered
from ..preprocessing._maps import check_has_density
from .weighting import by_weight

BASE_DENSITIES = ("flow", "normal", "standard_normal")

WAY_OUT = "drop them, or set base_density=None if transport is all that is needed"


@registered("base.NormalDensity")
class NormalDensity(DensityMixin, BaseEstimator):
    """The normal distribution with the mean and covariance of a sample.

    Parameters
    ----------
    standard : bool, default=False
        N(0, I) whatever the sample.
    """

    def __init__(self, standard=False):
        self.standard = standard

    def fit(self, X, y=None, sample_weight=None):
        """Take the moments of X."""
        n_features = X.shape[1]
        X = np.asarray(X, dtype=np.float64)
        self.mean_ = np.zeros(n_features) if self.standard else np.average(X, axis=0, weights=sample_weight)
        # correlations, not covariances: columns in unequal units are no lack of rank
        self.scale_ = np.ones(n_features) if self.standard else _deviations(X, sample_weight)
        rows = (X - self.mean_) / self.scale_
        self.correlation_ = np.eye(n_features) if self.standard else _covariance(rows, sample_weight)
        self.covariance_ = self.correlation_ * np.outer(self.scale_, self.scale_)
        if np.linalg.matrix_rank(self.correlation_) < n_features:
            raise ValueError(
                f"base_density='normal' needs more than n_features = {n_features} rows of X0, got {len(X)}: "
                "use 'flow' or GaussianMixture(covariance_type='diag')."
            )
        return self

    def score_samples(self, X):
        """Log-density of each row."""
        normal = multivariate_normal(cov=self.correlation_)
        with np.errstate(over="ignore"):  # far out it is -inf, which is an error where it is used
            return normal.logpdf((X - self.mean_) / self.scale_).reshape(len(X)) - np.log(self.scale_).sum()


def _covariance(rows, weight):
    # a weight says how much a row counts in the distribution, not how often it was seen
    return np.cov(rows, rowvar=False, aweights=weight).reshape(rows.shape[1], -1)


def _deviations(X, weight):
    return X.std(axis=0, ddof=1) if weight is None else np.sqrt(np.diagonal(_covariance(X, weight)))


def densities_of(base_density, target_density):
    """What is fitted to the base of a bridge (None for nothing), and whether its target has a density of its own.

    Parameters
    ----------
    base_density : str, estimator or None
    target_density : {"auto", "flow", "transport"}
        The parameters of these names.
    """
    is_auto = isinstance(base_density, str) and base_density == "auto"
    is_own = target_density == "flow" or (target_density == "auto" and is_auto)
    spec = (None if is_own else "flow") if is_auto else base_density
    return spec, is_own


def check_base(spec, X0, names=None):
    """Raise, before anything is fitted, if the rows of X0 have no density."""
    if spec is not None and spec != "standard_normal":
        check_has_density(X0, "X0", WAY_OUT, names)


def fit_base_density(spec, recipe, problem, X0, weight=None, share=0.5, condition=None):
    """Fit what `base_density` asks for to the rows of the base; None gives None.

    Parameters
    ----------
    spec : str, estimator or None
        The parameter `base_density`.
    recipe : Recipe
        What gives the estimator of "flow".
    problem : Problem
        Its seed, its callbacks, and its checkpoint, where "flow" keeps its trainings.
    X0 : ndarray of shape (n_samples, n_features)
        The base sample, in data units.
    weight : ndarray of shape (n_samples,), default=None
        Weights of its rows. An estimator whose fit takes no `sample_weight` is fitted to rows drawn by weight.
    share : float, default=0.5
        Of `max_time`, which "flow" may take.
    condition : array-like, default=None
        Of its rows, given which "flow" learns the density.
    """
    if spec is None:
        return None
    check_base(spec, X0, problem.names)
    if spec == "flow":
        # a share of the time is its own; what the fields took beyond theirs is no longer there
        limit = recipe.max_time
        density = recipe.base_flow(None if limit is None else min(share * limit, problem.left(limit)))
        density.set_params(random_state=problem.seed)
        problem.checkpoint.follow(density, "base density")
        with problem.tasks.part("base density", density):
            # its map must be affine: one matrix product then leads from the bridge's units to its own
            return density._fit_part(X0, condition=condition, sample_weight=weight, affine_only=True)
    if isinstance(spec, str):
        return NormalDensity(standard=spec == "standard_normal").fit(X0, sample_weight=weight)
    density, given = clone(spec), {}
    if weight is not None and has_fit_parameter(density, "sample_weight"):
        given = {"sample_weight": weight}
    elif weight is not None:
        X0 = X0[by_weight(weight, np.arange(len(X0)), len(X0), problem.seed)]
    with problem.tasks.part("base density", density):
        return density.fit(X0, **given)
