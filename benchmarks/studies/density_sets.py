"""Data sets of the density benchmark, and what every method is given of them.

Real sets: protein without its 8th column, concrete, wine without its last column (the quality), energy and airfoil
from PATH/density/*.csv.gz (no header); breast cancer, diabetes, digits and iris, the features only, from scikit-learn.
Synthetic sets: two moons, 8 gaussians, checkerboard, Gaussian mixtures in 16 and 32 dimensions, a funnel; 10,000 rows
drawn by the seed. All but two moons know their log-density; the distributions themselves are the same for every seed.

Real columns are cleaned before the split, the same for every method:
- constant columns are dropped;
- a column whose distinct values are fewer than 5 % of its rows is dequantised: uniform noise, as wide as the median gap
  between neighbouring distinct values (the step itself where they are evenly spaced), is added around each value;
- after the split and the scaling, normal noise of deviation 0.01 is added once to every row, those of training,
  validation and test. A density of a real table is unbounded where values repeat; this floor bounds it, at the same
  height for everyone. Synthetic sets are continuous and get no noise.
Duplicate rows stay (1,712 of protein, 244 of wine, 25 of concrete), and so may fall on both sides of a split.

Rows are split 80 / 10 / 10 by the seed, test and validation at most 2,000 rows (what exceeds them is trained on).
Columns are scaled to mean zero and deviation one on training rows; log-densities are of the scaled columns.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import logsumexp
from sklearn import datasets

ROWS, HELD_OUT, MOST_HELD_OUT = 10_000, 0.1, 2_000
DISTINCT, FLOOR = 0.05, 0.01


@dataclass
class Table:
    """Rows in data units; their log-density where it is known; whether they are measurements."""

    name: str
    X: np.ndarray
    log_density: Callable | None = None
    real: bool = False


@dataclass
class Split:
    """Scaled rows of a table, and the true log-densities of the scaled test rows where they are known."""

    name: str
    n: int
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    truth: np.ndarray | None


class Mixture:
    """A Gaussian mixture with equal or given weights."""

    def __init__(self, means, covariances, weights=None):
        self.means, self.factors = np.asarray(means), np.linalg.cholesky(covariances)
        k = len(self.means)
        self.weights = np.full(k, 1 / k) if weights is None else np.asarray(weights)

    def sample(self, rows, rng):
        """Rows of the mixture."""
        which = rng.choice(len(self.weights), rows, p=self.weights)
        z = rng.normal(size=(rows, self.means.shape[1]))
        return self.means[which] + np.einsum("nij,nj->ni", self.factors[which], z)

    def log_density(self, X):
        """Log-density of each row."""
        parts = []
        for weight, mean, factor in zip(self.weights, self.means, self.factors, strict=True):
            z = np.linalg.solve(factor, (X - mean).T)
            log_det = np.log(np.diag(factor)).sum() + 0.5 * len(mean) * np.log(2 * np.pi)
            parts.append(np.log(weight) - 0.5 * (z**2).sum(0) - log_det)
        return logsumexp(parts, axis=0)


def from_file(name, *, without=None):
    """A function of (folder, seed) that reads PATH/density/name.csv.gz, without one of its columns."""

    def read(folder, seed):
        X = pd.read_csv(f"{folder}/density/{name}.csv.gz", header=None).to_numpy(float)
        return cleaned(name, X if without is None else np.delete(X, without, axis=1), seed)

    return read


def from_sklearn(name, load):
    """A function of (folder, seed) that loads a set of scikit-learn."""
    return lambda folder, seed: cleaned(name, load().data.astype(float), seed)


def cleaned(name, X, seed):
    """A real table without constant columns, its discrete columns dequantised."""
    rng = np.random.default_rng([seed, 1])
    X = X[:, X.max(0) > X.min(0)]
    return Table(name, np.column_stack([dequantised(column, rng) for column in X.T]), real=True)


def dequantised(column, rng):
    """The column, uniform noise added if its distinct values are few."""
    values = np.unique(column)
    if len(values) >= DISTINCT * len(column):
        return column
    return column + np.median(np.diff(values)) * rng.uniform(-0.5, 0.5, len(column))


def two_moons(folder, seed):
    """Two interleaved half circles with noise; the log-density is not known in closed form."""
    return Table("two-moons", datasets.make_moons(ROWS, noise=0.07, random_state=seed)[0])


def eight_gaussians(folder, seed):
    """Eight modes of deviation 0.5 / sqrt(2) on a circle of radius 4 / sqrt(2)."""
    angles = np.arange(8) * np.pi / 4
    distribution = Mixture(
        8**0.5 * np.column_stack([np.cos(angles), np.sin(angles)]), np.tile(np.eye(2) / 8, (8, 1, 1))
    )
    return Table("8-gaussians", distribution.sample(ROWS, np.random.default_rng([seed, 2])), distribution.log_density)


def checkerboard(folder, seed):
    """Uniform on eight squares of side 2 in [-4, 4]^2."""
    rng = np.random.default_rng([seed, 3])
    x1 = rng.uniform(-2, 2, ROWS)
    x2 = rng.uniform(size=ROWS) - 2 * rng.integers(2, size=ROWS) + np.floor(x1) % 2
    return Table("checkerboard", 2 * np.column_stack([x1, x2]), checkerboard_log_density)


def checkerboard_log_density(X):
    """-log 32 on the squares, -inf elsewhere."""
    i, j = np.floor(X / 2).T
    inside = (np.abs(X) <= 4).all(1) & ((i + j) % 2 == 0)
    return np.where(inside, -np.log(32), -np.inf)


def gaussian_mixture(d, modes):
    """A function of (folder, seed): modes at random with full covariances, eigenvalues 0.03 to 1, unequal weights."""
    rng = np.random.default_rng(d)
    bases = np.linalg.qr(rng.normal(size=(modes, d, d)))[0]
    spectra = np.exp(rng.uniform(np.log(0.03), 0.0, (modes, d)))
    distribution = Mixture(
        1.5 * rng.normal(size=(modes, d)),
        np.einsum("kij,kj,klj->kil", bases, spectra, bases),
        rng.dirichlet(np.full(modes, 5.0)),
    )

    def draw(folder, seed):
        return Table(
            f"mixture-{d}", distribution.sample(ROWS, np.random.default_rng([seed, d])), distribution.log_density
        )

    return draw


def funnel(folder, seed):
    """x1 ~ N(0, 1.5^2); given it, x2 ... x5 ~ N(0, exp(x1))."""
    rng = np.random.default_rng([seed, 4])
    x1 = 1.5 * rng.normal(size=(ROWS, 1))
    return Table("funnel", np.hstack([x1, np.exp(x1 / 2) * rng.normal(size=(ROWS, 4))]), funnel_log_density)


def funnel_log_density(X):
    """Log-density of the funnel."""
    x1, rest = X[:, 0], X[:, 1:]
    normal = -0.5 * (x1 / 1.5) ** 2 - np.log(1.5) - 0.5 * np.exp(-x1) * (rest**2).sum(1) - 0.5 * rest.shape[1] * x1
    return normal - 0.5 * X.shape[1] * np.log(2 * np.pi)


SETS = {
    "protein": from_file("protein", without=7),
    "concrete": from_file("concrete"),
    "wine": from_file("wine", without=-1),
    "energy": from_file("energy"),
    "airfoil": from_file("airfoil"),
    "breast-cancer": from_sklearn("breast-cancer", datasets.load_breast_cancer),
    "diabetes": from_sklearn("diabetes", datasets.load_diabetes),
    "digits": from_sklearn("digits", datasets.load_digits),
    "iris": from_sklearn("iris", datasets.load_iris),
    "two-moons": two_moons,
    "8-gaussians": eight_gaussians,
    "checkerboard": checkerboard,
    "mixture-16": gaussian_mixture(16, 8),
    "mixture-32": gaussian_mixture(32, 6),
    "funnel": funnel,
}


def split(table, seed, train_rows=None):
    """The table split and scaled; with `train_rows`, so many rows of training and an eighth of it of validation."""
    rng = np.random.default_rng([seed, 5])
    X, held_out = table.X[rng.permutation(len(table.X))], min(int(HELD_OUT * len(table.X)), MOST_HELD_OUT)
    test, valid, train = np.split(X, [held_out, 2 * held_out])
    if train_rows is not None:
        train, valid = train[:train_rows], valid[: max(train_rows // 8, 10)]
    mean, scale = train.mean(0), train.std(0)
    truth = None if table.log_density is None else table.log_density(test) + np.log(scale).sum()
    floor = FLOOR if table.real else 0.0
    scaled = [(part - mean) / scale + floor * rng.normal(size=part.shape) for part in (train, valid, test)]
    return Split(table.name, len(X), *scaled, truth)


def load(name, folder, seed, train_rows=None):
    """The split of a set, by its name."""
    return split(SETS[name](folder, seed), seed, train_rows)
