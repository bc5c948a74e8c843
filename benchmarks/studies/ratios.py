"""Ratios of densities on pairs whose ratio is known, beside two flows and a boosted classifier.

    python benchmarks/studies/ratios.py [--methods NAME ...] [--pairs NAME ...] [--seeds N] [--max-time S]

For each pair: the root mean square error of the log-ratio at fresh rows, half of the base and half of the target; and
of the weights exp(log-ratio) at 2,000 fresh rows of the base their mean and effective number, with those of the truth.
"""

import argparse
import time
import warnings

import numpy as np
from scipy import stats
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from sklearn_si import InterpolantDiffusion, InterpolantFlow
from sklearn_si._training.ratio import RatioEffort, fit_ratio

TEST_ROWS = 2000


class Mixture:
    """A Gaussian mixture."""

    def __init__(self, weights, means, covariances):
        self.weights, self.means, self.covariances = np.asarray(weights), np.asarray(means), np.asarray(covariances)

    def sample(self, n, rng):
        which = rng.choice(len(self.weights), n, p=self.weights)
        factors = np.linalg.cholesky(self.covariances)[which]
        return self.means[which] + np.einsum("nij,nj->ni", factors, rng.normal(size=(n, self.means.shape[1])))

    def log_density(self, X):
        parts = [np.log(w) + stats.multivariate_normal(m, c).logpdf(X)
                 for w, m, c in zip(self.weights, self.means, self.covariances, strict=True)]  # fmt: skip
        return np.logaddexp.reduce(parts, axis=0)


class Margins:
    """Independent columns by their distributions of scipy."""

    def __init__(self, *columns):
        self.columns = columns

    def sample(self, n, rng):
        return np.column_stack([c.rvs(size=n, random_state=rng) for c in self.columns])

    def log_density(self, X):
        return sum(c.logpdf(x) for c, x in zip(self.columns, X.T, strict=True))


class Copula:
    """Columns with given margins whose normal scores are normal with some correlations."""

    def __init__(self, correlation, *columns):
        self.correlation, self.columns = correlation, columns
        self.normal = stats.multivariate_normal(np.zeros(len(columns)), correlation)

    def sample(self, n, rng):
        u = stats.norm.cdf(self.normal.rvs(size=n, random_state=rng))
        return np.column_stack([c.ppf(v) for c, v in zip(self.columns, u.T, strict=True)])

    def log_density(self, X):
        u = np.column_stack([c.cdf(x) for c, x in zip(self.columns, X.T, strict=True)])
        z = stats.norm.ppf(np.clip(u, 1e-12, 1 - 1e-12))
        margins = sum(c.logpdf(x) for c, x in zip(self.columns, X.T, strict=True))
        return self.normal.logpdf(z) - stats.norm.logpdf(z).sum(1) + margins


def normal(mean, covariance):
    return Mixture([1.0], [mean], [covariance])


def _correlated(d, r):
    return r ** np.abs(np.subtract.outer(np.arange(d), np.arange(d)))


def _random_mixture(seed, k, d, spread):
    rng = np.random.default_rng(seed)
    q = np.linalg.qr(rng.normal(size=(k, d, d)))[0]
    covariances = np.einsum("kab,kb,kcb->kac", q, rng.uniform(0.2, 1.0, (k, d)), q)
    return Mixture(rng.dirichlet(np.full(k, 5.0)), spread * rng.normal(size=(k, d)), covariances)


def _moved(mixture, seed, shift, weights=None):
    rng = np.random.default_rng(seed)
    means = mixture.means + shift * rng.normal(size=mixture.means.shape)
    return Mixture(mixture.weights if weights is None else weights, means, mixture.covariances)


def pairs():
    """Base, target and the number of rows of each, by name."""
    m2, m5, m10 = (_random_mixture(s, k, d, 1.5) for s, k, d in ((1, 4, 2), (2, 5, 5), (3, 3, 10)))
    gamma, shifted = stats.gamma(2.0), stats.gamma(3.0)
    skewed = [stats.lognorm(0.7), stats.gamma(1.5), stats.t(4), stats.norm(), stats.beta(2, 3)]
    moved = [stats.lognorm(0.7, scale=1.3), stats.gamma(1.9), stats.t(4, loc=0.4), stats.norm(0.3), stats.beta(2.4, 3)]
    eye = np.eye
    return {
        "normal-2": (normal(np.zeros(2), eye(2)), normal([0.8, 0.4], [[1.0, 0.5], [0.5, 1.2]]), 500),
        "normal-5": (normal(np.zeros(5), eye(5)), normal(np.full(5, 0.4), 0.8 * _correlated(5, 0.4)), 3000),
        "normal-10": (normal(np.zeros(10), _correlated(10, 0.5)), normal(np.full(10, 0.3), _correlated(10, 0.4)), 1000),
        "mixture-2": (m2, _moved(m2, 4, 0.4), 2000),
        "mixture-5": (m5, _moved(m5, 5, 0.4), 5000),
        "mixture-10": (m10, _moved(m10, 6, 0.3), 10000),
        "weights-2": (m2, _moved(m2, 4, 0.0, m2.weights[::-1]), 1000),
        "margins-3": (Margins(gamma, stats.norm(), stats.norm()), Margins(shifted, stats.norm(0.5), stats.norm()), 500),
        "skewed-5": (Copula(_correlated(5, 0.6), *skewed), Copula(_correlated(5, 0.6), *moved), 3000),
        "skewed-8": (
            Copula(_correlated(8, 0.5), *skewed, *skewed[:3]), Copula(_correlated(8, 0.3), *moved, *skewed[:3]), 10000,
        ),
    }  # fmt: skip


def boosting(X0, X1, seed, seconds):
    X, y = np.vstack([X0, X1]), np.repeat([0, 1], [len(X0), len(X1)])
    model = HistGradientBoostingClassifier(random_state=seed).fit(X, y)
    return lambda X: model.decision_function(X) - np.log(len(X1) / len(X0))


def quadratic(X0, X1, seed, seconds):
    X, y = np.vstack([X0, X1]), np.repeat([0, 1], [len(X0), len(X1)])
    model = make_pipeline(StandardScaler(), PolynomialFeatures(2), LogisticRegression(max_iter=2000)).fit(X, y)
    return lambda X: model.decision_function(X) - np.log(len(X1) / len(X0))


def two_flows(X0, X1, seed, seconds):
    a, b = (InterpolantFlow(max_time=seconds / 2, random_state=seed).fit(X) for X in (X0, X1))
    return lambda X: b.score_samples(X) - a.score_samples(X)


def bridge(X0, X1, seed, seconds):
    model = InterpolantDiffusion(base_density=None, max_time=seconds, random_state=seed).fit(X0, X1)
    return model.density_ratio


def default(X0, X1, seed, seconds):
    model = InterpolantDiffusion(base_density=None, random_state=seed).fit(X0, X1)
    return model.density_ratio


def ratio(X0, X1, seed, seconds):
    found = fit_ratio(X0, X1, seed, RatioEffort(10**6, seconds))
    return lambda X: found.evaluate(X)[0]


METHODS = {f.__name__: f for f in (boosting, quadratic, two_flows, bridge, default, ratio)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", nargs="+", default=[*METHODS])
    parser.add_argument("--pairs", nargs="+", default=[*pairs()])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--max-time", type=float, default=10.0)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    for name in args.pairs:
        base, target, n = pairs()[name]
        for seed in range(args.seeds):
            rng = np.random.default_rng([seed, 7])
            X0, X1 = base.sample(n, rng), target.sample(n, rng)
            T0, T1 = base.sample(TEST_ROWS, rng), target.sample(TEST_ROWS, rng)
            T = np.vstack([T0, T1])
            truth = target.log_density(T) - base.log_density(T)
            print(f"{name:11} n={n:5} seed {seed}   truth: {told(truth[:TEST_ROWS])}", flush=True)
            for method in args.methods:
                began = time.perf_counter()
                found = METHODS[method](X0, X1, seed, args.max_time)
                seconds = time.perf_counter() - began
                value = np.asarray(found(T), dtype=np.float64)
                rmse = np.sqrt(np.mean((value - truth) ** 2))
                print(f"    {method:10} rmse {rmse:.3f}  {told(value[:TEST_ROWS])}  {seconds:5.1f} s", flush=True)


def told(log_ratio):
    w = np.exp(log_ratio)
    return f"mean weight {w.mean():.3f}, effective {w.sum() ** 2 / (w**2).sum():6.0f}"


if __name__ == "__main__":
    main()
