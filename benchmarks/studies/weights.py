"""Does a weighted fit learn the weighted distribution? Three questions, each with its error.

    python benchmarks/studies/weights.py mixture --seeds 3
    python benchmarks/studies/weights.py margins --data PATH/tables/diamonds.csv.gz
    python benchmarks/studies/weights.py repeats --seeds 4

`mixture`: rows of one Gaussian mixture with the weights q / p of another, against a fit to fresh rows of the other, as
many as the effective sample size (sum w)^2 / sum w^2; KL of both on the same fresh rows.
`margins`: weights as of a survey (a factor for each stratum, times noise); the margins of drawn rows of a flow and of a
table against the weighted margins of the data, in units of the 95 % point of the noise of both.
`repeats`: integer weights against rows that are repeated as often, with the spread over seeds of either.
"""

import argparse

import numpy as np
import pandas as pd
from scipy.special import logsumexp

from sklearn_si import InterpolantFlow
from sklearn_si.tables import TableSynthesizer

# Largest difference of the two KL divergences, in nats.
LARGEST_GAP = 0.02
# 95 % point of the Kolmogorov-Smirnov distance, times the root of the number of rows.
KS_POINT = 1.36
# 97.5 % point of the standard normal.
NORMAL_POINT = 1.96
# Fresh rows on which a KL divergence is measured.
TEST_ROWS = 5000
# Rows that are drawn for the margins.
DRAWN = 20_000


def effective(weight):
    """The number of equal rows that would tell as much as weighted ones."""
    return weight.sum() ** 2 / np.square(weight).sum()


# ---------------------------------------------------------------- one mixture reweighted to another


class Mixture:
    """Gaussian components with weights, means and one standard deviation."""

    def __init__(self, weights, means, scale):
        self.weights, self.means, self.scale = np.asarray(weights), means, scale

    def sample(self, n, rng):
        """Rows of it."""
        component = rng.choice(len(self.weights), n, p=self.weights)
        return self.means[component] + self.scale * rng.normal(size=(n, self.means.shape[1]))

    def log_density(self, X):
        """Its log-density."""
        d = X.shape[1]
        squares = ((X[:, None] - self.means) ** 2).sum(2) / self.scale**2
        return logsumexp(-squares / 2, b=self.weights, axis=1) - d * np.log(self.scale * np.sqrt(2 * np.pi))


def reweighted(args):
    """KL of a weighted fit and of a fit to fresh rows, in two and eight columns."""
    print(f"{args.rows} rows; KL(q || model) on {TEST_ROWS} fresh rows, in nats")
    for d in args.columns:
        gaps = []
        for seed in range(args.seeds):
            rng = np.random.default_rng([seed, d])
            means = 2.0 * rng.normal(size=(3, d))
            p, q = Mixture([0.6, 0.3, 0.1], means, 1.0), Mixture([0.2, 0.3, 0.5], means, 0.9)
            X, test = p.sample(args.rows, rng), q.sample(TEST_ROWS, rng)
            weight = np.exp(q.log_density(X) - p.log_density(X))
            fresh = q.sample(round(effective(weight)), rng)
            exact = q.log_density(test)
            model = InterpolantFlow(random_state=seed)
            kl = (exact - model.fit(X, sample_weight=weight).score_samples(test)).mean()
            kl_fresh = (exact - model.fit(fresh).score_samples(test)).mean()
            gaps.append(kl - kl_fresh)
            told = f"KL {kl:.4f} by weights, {kl_fresh:.4f} by fresh rows"
            print(f"d = {d}, seed {seed}: {len(fresh)} effective rows; {told}", flush=True)
        verdict = "met" if np.mean(gaps) <= LARGEST_GAP else "missed"
        gap = f"{np.mean(gaps):+.4f} +- {standard_error(gaps):.4f}"
        print(f"d = {d}: mean difference {gap}; at most {LARGEST_GAP}: {verdict}", flush=True)


def standard_error(values):
    """Of a mean."""
    return np.std(values, ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.nan


# ---------------------------------------------------------------- weights of a survey


def survey_weights(frame, rng):
    """A factor for each stratum of quality and price, times noise."""
    strata = frame["cut"].astype(str) + (frame["price"] > frame["price"].median()).astype(str)
    names = sorted(strata.unique())
    factors = dict(zip(names, np.exp(0.6 * rng.normal(size=len(names))), strict=True))
    return strata.map(factors).to_numpy() * np.exp(0.3 * rng.normal(size=len(frame)))


def weighted_ks(x, weight, y):
    """Largest distance between the distribution functions of weighted and of plain numbers."""
    order = np.argsort(x)
    points = np.unique(x)
    cumulated = np.concatenate([[0.0], np.cumsum(weight[order])]) / weight.sum()
    mine = cumulated[np.searchsorted(x[order], points, side="right")]
    return np.abs(mine - np.searchsorted(np.sort(y), points, side="right") / len(y)).max()


def share_distance(column, weight, drawn):
    """Largest difference of a share, in units of the 95 % point of its noise."""
    n, distances = effective(weight), []
    for level in sorted(column.unique()):
        share = weight[(column == level).to_numpy()].sum() / weight.sum()
        noise = NORMAL_POINT * np.sqrt(share * (1 - share) * (1 / n + 1 / len(drawn)))
        distances.append(abs((drawn == level).mean() - share) / noise)
    return max(distances)


def margin_distances(frame, weight, drawn):
    """The distance of each margin of drawn rows from the weighted one, in units of the 95 % point of its noise."""
    distances, n = {}, effective(weight)
    for column in frame:
        if pd.api.types.is_numeric_dtype(frame[column]):
            x, y = frame[column].to_numpy(float), np.asarray(drawn[column], float)
            distances[column] = weighted_ks(x, weight, y) / (KS_POINT * np.sqrt(1 / n + 1 / len(y)))
        else:
            distances[column] = share_distance(frame[column], weight, drawn[column])
    return distances


def print_margins(name, model, frame, weight):
    """The margins after a fit by weights; beside them what weights change, and what a fit without them misses."""
    ones, n = np.ones(len(frame)), round(effective(weight))
    some = frame.sample(n, random_state=0)  # as many rows as the weighted ones are worth
    weighted = margin_distances(frame, weight, model.fit(frame, sample_weight=weight).sample(DRAWN))
    own = margin_distances(some, ones[:n], model.fit(some).sample(DRAWN))
    change = margin_distances(frame, weight, frame)
    print(
        f"{name}: {len(frame)} rows, {n} effective; in units of the noise: weighted fit, plain fit, change by weights"
    )
    for column in frame:
        print(f"    {column:8} {weighted[column]:5.2f} {own[column]:5.2f} {change[column]:5.2f}")
    print(
        f"    largest  {max(weighted.values()):5.2f} {max(own.values()):5.2f} {max(change.values()):5.2f}", flush=True
    )


def margins(args):
    """A flow of the numbers of diamonds, and a table of all columns."""
    rng = np.random.default_rng(0)
    frame = pd.read_csv(args.data).sample(args.rows, random_state=0).reset_index(drop=True)
    weight = survey_weights(frame, rng)
    numbers = frame.select_dtypes("number").astype(float)
    flow = InterpolantFlow(dequantize="auto", random_state=0).set_output(transform="pandas")
    print_margins("flow", flow, numbers, weight)
    print_margins("table", TableSynthesizer(random_state=0), frame, weight)


# ---------------------------------------------------------------- integer weights and repeated rows


def repeats(args):
    """Log-likelihood of fresh rows after a fit by weights and by repeated rows."""
    rng = np.random.default_rng(0)
    target = Mixture([0.5, 0.3, 0.2], 2.0 * rng.normal(size=(3, 2)), 1.0)
    X, test = target.sample(args.rows, rng), target.sample(TEST_ROWS, rng)
    times = 1 + (X[:, 0] > np.median(X[:, 0])) * rng.integers(1, 3, size=args.rows)
    # the weighted distribution is not the target: what is compared are two fits of the same one
    scores = {"weights": [], "repeated rows": []}
    for seed in range(args.seeds):
        model = InterpolantFlow(random_state=seed)
        scores["weights"].append(model.fit(X, sample_weight=times).score(test))
        scores["repeated rows"].append(model.fit(np.repeat(X, times, axis=0)).score(test))
    for name, values in scores.items():
        print(f"{name:14} {np.mean(values):.4f}, standard deviation over seeds {np.std(values, ddof=1):.4f}")
    spread = np.sqrt(np.mean([np.var(values, ddof=1) for values in scores.values()]))
    gap = np.mean(scores["weights"]) - np.mean(scores["repeated rows"])
    print(f"difference {gap:+.4f}, spread of seeds {spread:.4f}: {'within' if abs(gap) <= spread else 'beyond'} it")


def main():
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("mixture", "margins", "repeats"))
    parser.add_argument("--data", help="diamonds.csv.gz")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--columns", type=int, nargs="+", default=[2, 8], help="of the mixtures")
    args = parser.parse_args()
    {"mixture": reweighted, "margins": margins, "repeats": repeats}[args.what](args)


if __name__ == "__main__":
    main()
