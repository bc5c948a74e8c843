"""Whether 90 % intervals of a log-density, which speak of the fit, hold the true one.

    python benchmarks/studies/model_error.py --rows 300 --seeds 2
    python benchmarks/studies/model_error.py --rows 30000 --seconds 4

Rows of eight known distributions, none of which the constants of the intervals were chosen by (`--settings` takes the
seven that they were chosen by). For each: the share of 1,000 new rows whose interval holds the true log-density, of all
rows and of the fifth of lowest density; the median half-width; the Kullback-Leibler divergence of the true distribution
from the ensemble and from its first member, in nats.
"""

import argparse
import time

import numpy as np
from scipy import stats

from sklearn_si import InterpolantFlow

TEST_ROWS = 1000


class Mixture:
    """Normal distributions of some weights, means and covariances."""

    def __init__(self, weights, means, covariances):
        self.weights, self.means, self.covariances = map(np.asarray, (weights, means, covariances))
        self.factors = np.linalg.cholesky(self.covariances)

    def draw(self, n, rng):
        """Rows."""
        k = rng.choice(len(self.weights), n, p=self.weights)
        z = rng.normal(size=(n, self.means.shape[1]))
        return self.means[k] + np.einsum("nij,nj->ni", self.factors[k], z)

    def log_density(self, X):
        """In nats."""
        parts = zip(self.weights, self.means, self.covariances, strict=True)
        return np.logaddexp.reduce([np.log(w) + stats.multivariate_normal(m, c).logpdf(X) for w, m, c in parts])


class Known:
    """A distribution by two functions."""

    def __init__(self, draw, log_density):
        self.draw, self.log_density = draw, log_density


def equicorrelated(d, r):
    """A correlation matrix."""
    return np.eye(d) * (1 - r) + r


def clusters(n_clusters, d, size, width, floor, seed):
    """A mixture of random means and covariances."""
    rng = np.random.default_rng(seed)
    means, factors = size * rng.normal(size=(n_clusters, d)), width * rng.normal(size=(n_clusters, d, d))
    covariances = factors @ factors.transpose(0, 2, 1) + floor * np.eye(d)
    return Mixture(np.full(n_clusters, 1 / n_clusters), means, covariances)


def along(curve, width):
    """Normal noise around equidistant points of a curve."""
    n, d = curve.shape
    return Mixture(np.full(n, 1 / n), curve, np.repeat(width**2 * np.eye(d)[None], n, 0))


def skewed():
    """Lognormal, normal and light-tailed columns with correlated ranks."""
    normal = stats.multivariate_normal(np.zeros(3), equicorrelated(3, 0.6))

    def draw(n, rng):
        z = rng.multivariate_normal(np.zeros(3), equicorrelated(3, 0.6), n)
        return np.c_[np.exp(0.6 * z[:, 0]), z[:, 1], np.arcsinh(2 * z[:, 2])]

    def log_density(X):
        z = np.c_[np.log(X[:, 0]) / 0.6, X[:, 1], np.sinh(X[:, 2]) / 2]
        return normal.logpdf(z) - np.log(0.6 * X[:, 0]) + np.log(np.cosh(X[:, 2]) / 2)

    return Known(draw, log_density)


def laplace():
    """Correlated Laplace columns."""
    factor = np.linalg.cholesky(equicorrelated(4, 0.5))
    inverse, volume = np.linalg.inv(factor), np.linalg.slogdet(factor)[1]
    return Known(
        lambda n, rng: rng.laplace(size=(n, 4)) @ factor.T,
        lambda X: stats.laplace.logpdf(X @ inverse.T).sum(1) - volume,
    )


def banana():
    """A parabola with noise."""
    return Known(
        lambda n, rng: np.c_[a := 1.5 * rng.normal(size=n), 0.3 * a**2 + 0.4 * rng.normal(size=n)],
        lambda X: stats.norm(0, 1.5).logpdf(X[:, 0]) + stats.norm(0.3 * X[:, 0] ** 2, 0.4).logpdf(X[:, 1]),
    )


def ring():
    """A circle with noise along its radius."""

    def draw(n, rng):
        angle, radius = rng.uniform(0, 2 * np.pi, n), 3 + 0.3 * rng.normal(size=n)
        return np.c_[radius * np.cos(angle), radius * np.sin(angle)]

    def log_density(X):
        radius = np.hypot(*X.T)
        return stats.norm(3, 0.3).logpdf(radius) - np.log(2 * np.pi * radius)

    return Known(draw, log_density)


def student():
    """Multivariate t with five degrees of freedom."""
    shape = equicorrelated(5, 0.4)
    known = stats.multivariate_t(np.zeros(5), shape, df=5)

    def draw(n, rng):
        z = rng.multivariate_normal(np.zeros(5), shape, n)
        return z / np.sqrt(rng.chisquare(5, n) / 5)[:, None]

    return Known(draw, known.logpdf)


def funnel():
    """Two columns whose deviation is the exponential of another."""

    def draw(n, rng):
        v = rng.normal(size=(n, 1))
        return np.hstack([v, np.exp(v / 2) * rng.normal(size=(n, 2))])

    def log_density(X):
        return stats.norm.logpdf(X[:, 0]) + stats.norm(0, np.exp(X[:, :1] / 2)).logpdf(X[:, 1:]).sum(1)

    return Known(draw, log_density)


def moons():
    """Two half circles."""
    t = np.linspace(0, np.pi, 400)
    return along(np.r_[np.c_[np.cos(t), np.sin(t)], np.c_[1 - np.cos(t), 0.5 - np.sin(t)]], 0.15)


def spiral():
    """A helix that widens."""
    t = np.linspace(1, 9, 600)
    return along(np.c_[t * np.cos(t), t * np.sin(t), t] / 3, 0.3)


def exponentials():
    """Exponential columns with correlated ranks."""
    matrix = equicorrelated(3, 0.5)
    normal = stats.multivariate_normal(np.zeros(3), matrix)

    def draw(n, rng):
        return -np.log(stats.norm.sf(rng.multivariate_normal(np.zeros(3), matrix, n)))

    def log_density(X):
        z = stats.norm.isf(np.exp(-X))
        return normal.logpdf(z) - stats.norm.logpdf(z).sum(1) - X.sum(1)

    return Known(draw, log_density)


SETTINGS = {
    "normal": lambda: Mixture([1.0], [[0.0, 0.0]], [equicorrelated(2, 0.7)]),
    "banana": banana,
    "ring": ring,
    "gamma": lambda: Known(lambda n, rng: rng.gamma(3, 1, (n, 1)), lambda X: stats.gamma(3).logpdf(X[:, 0])),
    "student, 5-D": student,
    "funnel, 3-D": funnel,
    "clusters, 3-D": lambda: clusters(5, 3, 2.0, 0.5, 0.1, 5),
}
OTHERS = {
    "skewed, 3-D": skewed,
    "two humps, 1-D": lambda: Mixture([0.3, 0.7], [[-2.0], [1.0]], [[[0.25]], [[1.0]]]),
    "moons": moons,
    "spiral, 3-D": spiral,
    "clusters, 8-D": lambda: clusters(4, 8, 1.5, 0.3, 0.3, 9),
    "Laplace, 4-D": laplace,
    "exponentials": exponentials,
    "cross": lambda: Mixture([0.4, 0.6], [[0.0, 0.0]] * 2, [np.diag([4.0, 0.05]), np.diag([0.1, 3.0])]),
}


def measured(known, args, seed):
    """Coverage of all rows and of the fifth of lowest density, median half-width, both divergences."""
    rng = np.random.default_rng([seed, args.rows])
    X, test = known.draw(args.rows, rng), known.draw(TEST_ROWS, rng)
    seconds = None if args.seconds is None else args.seconds * (args.members + 1.25)
    model = InterpolantFlow(n_estimators=args.members, max_time=seconds, random_state=seed).fit(X)
    value, width = model.score_samples(test, return_error="model")
    true = known.log_density(test)
    held, low = np.abs(value - true) <= width, np.argsort(true)[: TEST_ROWS // 5]
    first = model.estimators_[0].score_samples(test)
    return held.mean(), held[low].mean(), np.median(width), (true - value).mean(), (true - first).mean()


def main():
    """Print a line for each distribution and seed, and their means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--members", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument(
        "--seconds",
        type=float,
        help="of each of the members and of the fit to draws (a quarter of it is for a mixture); None: no limit",
    )
    parser.add_argument("--settings", action="store_true", help="the distributions that the constants were chosen by")
    args, found = parser.parse_args(), []
    print(f"{args.rows} rows, {args.members} members, {args.seconds or 'no limit of'} seconds a member", flush=True)
    for name, make in (SETTINGS if args.settings else OTHERS).items():
        for seed in range(args.seeds):
            began = time.perf_counter()
            found.append(measured(make(), args, seed))
            held, low, width, kl, first = found[-1]
            print(
                f"{name:15s} seed {seed}  coverage {held:.3f}, of low densities {low:.3f}  half-width {width:.3f}  "
                f"KL {kl:.4f}, of the first member {first:.4f}  ({time.perf_counter() - began:.0f} s)",
                flush=True,
            )
    print("mean coverage {:.3f}, of low densities {:.3f}".format(*np.mean(found, axis=0)[:2]))


if __name__ == "__main__":
    main()
