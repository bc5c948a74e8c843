"""The log-ratio of two densities as a fitted classifier gives it: closed forms, networks, and their blend, in numpy."""

import dataclasses
import warnings
from collections.abc import Sequence

import numpy as np
from scipy.special import expit, logsumexp, ndtri

from .._utils.callers import users_level
from .._utils.names import registered
from .._utils.tensors import blocks

# Scaled units beyond which a column counts as this far out: a ratio is not extrapolated.
_FARTHEST = 6.0
# Columns up to which their products are features of a quadratic function.
_MOST_COLUMNS = 30
# Rows that are evaluated at a time.
_BLOCK_ROWS = 2**14
# Log-ratio towards its own sample above which a row has no partner in the other: one of them to a hundred of its own.
WITHOUT_PARTNER = float(np.log(100.0))
# Share of rows without partners, in either sample, above which the samples hardly overlap.
_HARDLY = 0.95
# Effective number of the rows of the base below which a few of them decide all that is weighted.
_FEW_ROWS = 10


@registered("ratio.RatioUnits")
@dataclasses.dataclass(frozen=True, eq=False)
class RatioUnits:
    """Two scalings of the pooled rows, neither of which changes a ratio: affine, and by normal scores.

    Parameters
    ----------
    centre, scale : ndarray of shape (d,)
        Of the affine one.
    knots, scores : list of ndarray
        Quantiles of each column, and the normal scores at them.
    """

    centre: np.ndarray
    scale: np.ndarray
    knots: list
    scores: list

    @classmethod
    def of(cls, X: np.ndarray, n_knots: int = 65) -> "RatioUnits":
        """The scalings of some rows, in which both samples have as many."""
        scale = X.std(0)
        shares = (np.arange(n_knots) + 0.5) / n_knots
        knots, scores = [], []
        for x in X.T:
            values, places = np.unique(np.quantile(x, shares), return_inverse=True)
            # a value that is repeated has the score of the middle of its share
            middle = np.bincount(places, shares) / np.bincount(places)
            knots.append(values)
            scores.append(ndtri(middle))
        return cls(X.mean(0), np.where(scale > 0, scale, 1.0), knots, scores)

    def affine(self, X: np.ndarray) -> np.ndarray:
        """Centred and scaled columns, none farther than six deviations."""
        with np.errstate(over="ignore"):
            return np.clip((X - self.centre) / self.scale, -_FARTHEST, _FARTHEST)

    def normal(self, X: np.ndarray) -> np.ndarray:
        """Normal scores of the columns, constant beyond the outer quantiles."""
        columns = [np.interp(x, k, s) for x, k, s in zip(X.T, self.knots, self.scores, strict=True)]
        return np.column_stack(columns)


def quadratic_features(z: np.ndarray) -> np.ndarray:
    """1, the columns, and the products of any two of them; of many columns the squares alone."""
    d = z.shape[1]
    i, j = np.triu_indices(d) if d <= _MOST_COLUMNS else (np.arange(d), np.arange(d))
    return np.column_stack([np.ones(len(z)), z, z[:, i] * z[:, j]])


def mixture_log_density(z: np.ndarray, parts: Sequence[np.ndarray]) -> np.ndarray:
    """Of a Gaussian mixture with log-weights, means, and factors P of the precisions P P^T."""
    log_weights, means, factors = parts
    # P^T (z - m) of all components by one product
    y = np.einsum("nd,kde->kne", z, factors) - np.einsum("kd,kde->ke", means, factors)[:, None]
    log_det = np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(1)
    parts_of = (log_weights + log_det)[:, None] - 0.5 * np.einsum("kne,kne->kn", y, y)
    return logsumexp(parts_of, axis=0) - 0.5 * z.shape[1] * np.log(2 * np.pi)


def network_value(x: np.ndarray, layers: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """A perceptron with silu in its hidden layers, of one output."""
    for weight, bias in layers[:-1]:
        a = x @ weight + bias
        x = a * expit(a)
    weight, bias = layers[-1]
    return (x @ weight + bias)[:, 0]


@registered("ratio.RatioMember")
@dataclasses.dataclass(frozen=True, eq=False)
class RatioMember:
    """The candidates that were learned without the rows of one fold.

    Parameters
    ----------
    quadratics : dict of ndarray
        Coefficients of `quadratic_features`, by the name of the units.
    mixtures : dict of tuple
        For each of some units the parts of the mixtures of base and target.
    layers : list of (weight, bias) or None
        Of the network, which is added to the blend of the closed forms.
    """

    quadratics: dict
    mixtures: dict
    layers: list | None = None

    def closed_forms(self, by_units: dict[str, np.ndarray]) -> np.ndarray:
        """Log-ratios by each closed form, of shape (n_forms, n)."""
        found = [quadratic_features(by_units[name]) @ w for name, w in self.quadratics.items()]
        for name, (base, target) in self.mixtures.items():
            found.append(mixture_log_density(by_units[name], target) - mixture_log_density(by_units[name], base))
        return np.stack(found)


@registered("ratio.Ratio")
@dataclasses.dataclass(frozen=True, eq=False)
class Ratio:
    """The log-ratio log rho_1(x) - log rho_0(x), as the mean over members that each left a fold out.

    Parameters
    ----------
    units : RatioUnits
    members : list of RatioMember
    blend : ndarray
        An intercept and the coefficient of each closed form.
    network_share : float
        The coefficient of the networks; 0 where they bring nothing.
    limit : float
        Largest absolute value.
    report : dict
        What the rows of the fit say, each of them by the member that has not seen it.
    """

    units: RatioUnits
    members: list
    blend: np.ndarray
    network_share: float
    limit: float
    report: dict

    def evaluate(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The log-ratio of rows and its standard error, in nats."""
        value, error = np.empty(len(X)), np.empty(len(X))
        for rows in blocks(len(X), _BLOCK_ROWS):
            of_members = np.stack([self.of_member(member, X[rows]) for member in self.members])
            value[rows] = of_members.mean(0).clip(-self.limit, self.limit)
            # the jackknife that leaves out one fold at a time
            k = len(of_members)
            error[rows] = np.sqrt((k - 1) / k * ((of_members - of_members.mean(0)) ** 2).sum(0))
        return value, error

    def of_member(self, member: RatioMember, X: np.ndarray) -> np.ndarray:
        """The log-ratio of rows by one member."""
        by_units = units_of(self.units, X)
        value = self.blend[0] + self.blend[1:] @ member.closed_forms(by_units)
        if self.network_share and member.layers is not None:
            value = value + self.network_share * network_value(network_inputs(by_units), member.layers)
        return value

    @property
    def hardly_overlaps(self) -> bool:
        """Whether most rows of both samples have no partners in the other."""
        return min(self.report["base_without_partners"], self.report["target_without_partners"]) > _HARDLY

    def check_overlap(self) -> None:
        """Raise where the samples hardly overlap; warn where the weights are worth a few rows."""
        base, target = (100 * self.report[f"{name}_without_partners"] for name in ("base", "target"))
        if self.hardly_overlaps:
            raise ValueError(
                f"The samples hardly overlap: {base:.1f} % of the rows of the base and {target:.1f} % of the rows of "
                "the target have no partners in the other sample (their own is more than a hundred times as dense "
                "there), so that the ratio of the densities is not known. Leave out the columns that tell the samples "
                "apart, or compare them by a test (sklearn_si.metrics.two_sample_test)."
            )
        if self.report["effective_size"] < _FEW_ROWS:
            warnings.warn(
                f"The samples overlap little: {base:.1f} % of the rows of the base and {target:.1f} % of the rows of "
                "the target have no partners in the other sample, and as weights of the base the ratios are worth "
                f"{self.report['effective_size']:.1f} rows. Far from the rows that both have, they are extrapolated: "
                "leave out the columns that tell the samples apart, or fit to rows that lie between.",
                UserWarning,
                stacklevel=users_level(),
            )


def units_of(units: RatioUnits, X: np.ndarray) -> dict[str, np.ndarray]:
    """The rows in both scalings, by name."""
    X = np.asarray(X, dtype=np.float64)
    return {"affine": units.affine(X), "normal": units.normal(X)}


def network_inputs(by_units: dict[str, np.ndarray]) -> np.ndarray:
    """What a network reads."""
    return np.column_stack([by_units["affine"], by_units["normal"]])


def weights_report(log_ratio: np.ndarray, row_weight: np.ndarray | None = None) -> dict[str, float]:
    """Mean and effective number of the weights exp(log_ratio) of rows of the base.

    n_eff = (sum w)^2 / sum w^2    (Kish 1965)
    """
    row_weight = np.ones(len(log_ratio)) if row_weight is None else row_weight
    largest = log_ratio.max(initial=-np.inf)
    scaled = np.exp(log_ratio - largest)
    total, squares = (row_weight * scaled).sum(), (row_weight * scaled**2).sum()
    with np.errstate(over="ignore"):
        mean = total / row_weight.sum() * np.exp(largest)
    return {"mean_weight": float(mean), "effective_size": float(total**2 / squares)}
