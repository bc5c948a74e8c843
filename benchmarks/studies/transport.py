"""Optimal maps and Schroedinger bridges against closed forms, and beside peers re-created in plain torch.

    OMP_NUM_THREADS=1 python benchmarks/studies/transport.py action gauss bridge --seeds 1
    OMP_NUM_THREADS=1 python benchmarks/studies/transport.py plane eot cancer --seeds 3 --budget 25

action  the action of learned paths, N(0, 1) -> N(2, 1/4)
gauss   maps between normal distributions whose full covariances do not commute, against the optimal map: relative L2
bridge  SchroedingerBridge between the same distributions against the closed form: drift, marginals, action
plane   8 gaussians, moons and S-curve (arXiv 2307.03672): W2 of carried rows, normalised path energy
eot     plans with a known closed form in 2, 16 and 64 columns: conditional Bures-Wasserstein error
cancer  malignant and benign rows: how far rows are moved, and whether they can be told apart

The peers have the published settings (networks of 3 x 64 SELU, AdamW 1e-3, batch 512, exact plans of batches) and as
many seconds as ours; what is printed is measured on fresh or held-out rows, with a row for two samples of the truth.
"""

import argparse
import itertools
import time
import warnings

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.datasets import load_breast_cancer, make_moons, make_s_curve
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict, train_test_split
from torch import nn

from sklearn_si import InterpolantFlow, SchroedingerBridge
from sklearn_si._estimators.bridge_potentials import MixturePotential, _descend
from sklearn_si.couplings import conditional_covariance
from sklearn_si.metrics import path_energy, wasserstein_distance

PLAIN = {"preprocessing": None, "base_density": None}
EPSILONS = (0.05, 0.5, 3.0)


def timed(fit):
    """Result and seconds."""
    began = time.perf_counter()
    result = fit()
    return result, time.perf_counter() - began


def root(matrix):
    """The symmetric square root."""
    values, axes = np.linalg.eigh(matrix)
    return (axes * np.sqrt(values.clip(min=0))) @ axes.T


class NormalPair:
    """Two normal distributions with full covariances, eigenvalues between .2 and 3 on axes of their own."""

    def __init__(self, d, seed):
        rng = np.random.default_rng(seed)
        self.means = rng.normal(size=(2, d))
        self.covariances = []
        for _ in range(2):
            axes = np.linalg.qr(rng.normal(size=(d, d)))[0]
            self.covariances.append((axes * np.geomspace(0.2, 3.0, d)) @ axes.T)

    def draw(self, n, seed):
        """Rows of both ends."""
        rng = np.random.default_rng(seed)
        return [rng.multivariate_normal(m, c, n) for m, c in zip(self.means, self.covariances, strict=True)]

    def optimal_map(self, X):
        """The map of optimal transport."""
        half = root(self.covariances[0])
        inverse = np.linalg.inv(half)
        matrix = inverse @ root(half @ self.covariances[1] @ half) @ inverse
        return self.means[1] + (X - self.means[0]) @ matrix

    def distribution(self, epsilon, t):
        """Mean and covariance of the bridge at a time, slope of its drift."""
        s0, s1 = self.covariances
        k = s0 @ conditional_covariance(s0, s1, epsilon) / (2 * epsilon)
        one = 2 * epsilon * np.eye(len(s0))
        covariance = (1 - t) ** 2 * s0 + t**2 * s1 + t * (1 - t) * (k + k.T + one)
        slope = (t * s1 + (1 - t) * k.T - (1 - t) * s0 - t * k - t * one) @ np.linalg.inv(covariance)
        return (1 - t) * self.means[0] + t * self.means[1], covariance, slope

    def drift(self, epsilon, t, X):
        """The drift of the bridge."""
        mean, _, slope = self.distribution(epsilon, t)
        return self.means[1] - self.means[0] + (X - mean) @ slope.T


def gauss_kl(mean, covariance, mean1, covariance1):
    """KL(N(mean, covariance) || N(mean1, covariance1))."""
    solved = np.linalg.solve(covariance1, covariance)
    gap = mean1 - mean
    trace = np.trace(solved) - len(mean) + gap @ np.linalg.solve(covariance1, gap)
    return 0.5 * (trace - np.linalg.slogdet(solved)[1])


def action(args):
    """The action of a flow between N(0, 1) and N(2, 1/4)."""
    for seed in range(args.seeds):
        rng = np.random.default_rng(seed)
        X0, X1 = rng.normal(size=(20_000, 1)), 2 + 0.5 * rng.normal(size=(20_000, 1))
        shortest = (X1.mean() - X0.mean()) ** 2 + (X1.std() - X0.std()) ** 2
        for name in ("trigonometric", "linear", "learned-schedule", "learned"):
            flow, took = timed(lambda n=name: InterpolantFlow(n, **PLAIN, random_state=seed).fit(X0, X1))  # noqa: B023
            value = path_energy(flow, X0[:5000], n_times=101)
            print(f"  seed {seed} {name:<18}{took:6.1f} s   action {value:.3f} (W2^2 of the sample: {shortest:.3f})")


def gauss(args):
    """Maps against the optimal one."""
    kinds = {
        "independent": {},
        "optimal": {"coupling": "optimal"},
        "learned": {"interpolant": "learned"},
        "optimal, learned": {"coupling": "optimal", "interpolant": "learned"},
    }
    for d in (2, 5, 20):
        pair = NormalPair(d, 0)
        rows = pair.draw(4000, 99)[0]
        best = pair.optimal_map(rows)
        shortest = ((best - rows) ** 2).sum(1).mean()
        for name, params in kinds.items():
            for seed in range(args.seeds):
                X0, X1 = pair.draw(20_000, seed)
                flow = InterpolantFlow(**PLAIN, **params, random_state=seed)
                _, took = timed(lambda f=flow, X0=X0, X1=X1: f.fit(X0, X1))
                line(d, name, took, flow.transform(rows), rows, best, shortest)
                if name in ("independent", "optimal"):
                    _, took = timed(flow.rectify)
                    line(d, f"{name}, rectified", took, flow.transform(rows), rows, best, shortest)


def line(d, name, took, moved, rows, best, shortest):
    """One line of the table."""
    error = np.sqrt(((moved - best) ** 2).sum() / (best**2).sum())
    cost = ((moved - rows) ** 2).sum(1).mean() / shortest
    print(f"  d={d:<3}{name:<24}{took:6.1f} s   error {error:.3f}   cost over W2^2 {cost:.4f}", flush=True)


def bridge(args):
    """Bridges between normal distributions."""
    for d in (2, 5, 20):
        pair, n = NormalPair(d, 0), 20_000
        floor = (d * (d + 1) / 2 + d) / (2 * n)
        for epsilon in EPSILONS:
            for method in ("mixture", "network"):
                X0, X1 = pair.draw(n, 0)
                model = SchroedingerBridge(epsilon, method, **PLAIN, random_state=0)
                _, took = timed(lambda m=model, X0=X0, X1=X1: m.fit(X0, X1))
                error, own, exact = drift_error(model, pair, epsilon)
                kl = marginal_kl(model, pair, epsilon, args.paths)
                print(
                    f"  d={d:<3}epsilon={epsilon:<5}{method:<8}{took:6.1f} s   drift error {error:.3f}   action over "
                    f"exact {own / exact:.3f}   KL of marginals {kl:.1e} (floor of {n} rows {floor:.1e}, of the paths "
                    f"{floor * n / args.paths:.1e}; 1e-3 d = {1e-3 * d:.0e})",
                    flush=True,
                )


def drift_error(model, pair, epsilon):
    """Relative L2(rho_t) error of the drift, and the actions, over times."""
    rng, square, exact, own = np.random.default_rng(5), 0.0, 0.0, 0.0
    for t in np.linspace(0.025, 0.975, 20):
        mean, covariance, _ = pair.distribution(epsilon, t)
        X = rng.multivariate_normal(mean, covariance, 4000)
        u, v = pair.drift(epsilon, t, X), model.velocity(X, t) + epsilon * model.score_function(X, t)
        square, exact, own = square + ((u - v) ** 2).mean(), exact + (u**2).mean(), own + (v**2).mean()
    return np.sqrt(square / exact), own, exact


def marginal_kl(model, pair, epsilon, n_paths):
    """Mean over times of the KL of normal distributions with the moments of simulated rows, from the exact base."""
    X0, kls = pair.draw(n_paths, 77)[0].astype(np.float32), []
    parts = [model.trajectory(X, 11, noise_level=epsilon, random_state=i) for i, X in enumerate(np.array_split(X0, 10))]
    for k, t in enumerate(np.linspace(0, 1, 11)[1:], 1):
        X = np.concatenate([p[k] for p in parts]).astype(float)
        kls.append(gauss_kl(X.mean(0), np.cov(X.T), *pair.distribution(epsilon, t)[:2]))
    return np.mean(kls)


# ------------------------------------------------------------------------- peers in plain torch


def perceptron(d):
    """3 x 64 SELU of (x, t)."""
    sizes = (d + 1, 64, 64, 64, d)
    layers = [part for n, m in itertools.pairwise(sizes) for part in (nn.Linear(n, m), nn.SELU())]
    return nn.Sequential(*layers[:-1])


class Peer:
    """OT-CFM (sigma None) or [SF]2M with exact plans of batches (arXiv 2302.00482, 2307.03672)."""

    def __init__(self, sigma=None, paired=True):
        self.sigma, self.paired = sigma, paired

    def fit(self, X0, X1, seconds, seed):
        """Train for some seconds."""
        torch.manual_seed(seed)
        X0, X1 = (torch.as_tensor(X, dtype=torch.float32) for X in (X0, X1))
        self.flow, self.score = perceptron(X0.shape[1]), perceptron(X0.shape[1])
        weights = [*self.flow.parameters(), *self.score.parameters()]
        optimiser = torch.optim.AdamW(weights, 1e-3, weight_decay=1e-5)
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            a, b = X0[torch.randint(len(X0), (512,))], X1[torch.randint(len(X1), (512,))]
            if self.paired:
                b = b[linear_sum_assignment(torch.cdist(a, b).square().numpy())[1]]
            t = torch.rand(512, 1)
            x, target = (1 - t) * a + t * b, b - a
            loss = 0.0
            if self.sigma is not None:
                z, width = torch.randn_like(x), torch.sqrt(t * (1 - t))
                x = x + self.sigma * width * z
                target = target + self.sigma * (1 - 2 * t) / (2 * width + 1e-6) * z
                # weighted so that the network gives minus the noise over half of sigma: lambda = 2 width / sigma
                loss = (self.score(torch.cat([x, t], 1)) * 0.5 * self.sigma + z).square().mean()
            loss = loss + (self.flow(torch.cat([x, t], 1)) - target).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        return self

    @torch.no_grad()
    def transform(self, X0, n_steps=100):
        """Rows at t = 1 of the ODE by Euler's steps, and the energy of their paths."""
        x, energy = torch.as_tensor(X0, dtype=torch.float32), 0.0
        for k in range(n_steps):
            v = self.flow(torch.cat([x, torch.full((len(x), 1), k / n_steps)], 1))
            energy, x = energy + v.square().sum(1).mean().item() / n_steps, x + v / n_steps
        return x.double().numpy(), energy

    @torch.no_grad()
    def sample_plan(self, X0, n_steps=100):
        """Partners, by Euler-Maruyama."""
        x, h = torch.as_tensor(X0, dtype=torch.float32), 1 / n_steps
        for k in range(n_steps):
            t = torch.full((len(x), 1), min(max(k * h, 1e-3), 1 - 1e-3))
            inputs = torch.cat([x, t], 1)
            # s = -z / (sigma width), and the network gives -2 z / sigma
            s = self.score(inputs) / (2 * torch.sqrt(t * (1 - t)))
            x = x + h * (self.flow(inputs) + 0.5 * self.sigma**2 * s) + self.sigma * h**0.5 * torch.randn_like(x)
        return x.double().numpy()


# -------------------------------------------------------------------------------------- the plane


def gaussians8(n, rng):
    """Eight modes on a circle of radius 5; the square root of .1 passed for their variance."""
    angles = rng.integers(8, size=n) * np.pi / 4
    return 5 * np.stack([np.cos(angles), np.sin(angles)], 1) + 0.1**0.25 * rng.normal(size=(n, 2))


def moons(n, rng):
    """Two moons with noise .2, times 3, minus 1."""
    return 3 * make_moons(n, noise=0.2, random_state=int(rng.integers(2**31)))[0] - 1


def s_curve(n, rng):
    """Columns 0 and 2 of the S-curve with noise .1, times 1.5."""
    return 1.5 * make_s_curve(n, noise=0.1, random_state=int(rng.integers(2**31)))[0][:, [0, 2]]


def normal(n, rng):
    """N(0, I)."""
    return rng.normal(size=(n, 2))


PAIRS = {
    "N -> 8 gaussians": (normal, gaussians8),
    "8 gaussians -> moons": (gaussians8, moons),
    "N -> moons": (normal, moons),
    "N -> S-curve": (normal, s_curve),
}


def plane(args):
    """W2 and normalised path energy on held-out rows."""
    for name, (base, target) in PAIRS.items():
        rows = {}
        for seed in range(args.seeds):
            rng = np.random.default_rng(seed)
            X0, X1 = base(10_000, rng), target(10_000, rng)
            T0, T1, fresh = base(args.test, rng), target(args.test, rng), target(args.test, rng)
            shortest = wasserstein_distance(T0, T1) ** 2
            # distances are measured in data units, and so are costs
            ours = InterpolantFlow(coupling="optimal", **PLAIN, max_time=args.budget, random_state=seed)
            ours.fit(X0, X1)
            carried = {"ours, optimal": (ours.transform(T0), path_energy(ours, T0, n_times=101))}
            carried["OT-CFM"] = Peer().fit(X0, X1, args.budget, seed).transform(T0)
            carried["[SF]2M, exact plans"] = Peer(sigma=1.0).fit(X0, X1, args.budget, seed).transform(T0)
            carried["I-CFM"] = Peer(paired=False).fit(X0, X1, args.budget, seed).transform(T0)
            carried["fresh rows of the truth"] = fresh, shortest
            for method, (moved, energy) in carried.items():
                value = wasserstein_distance(moved, T1), abs(energy - shortest) / shortest
                rows.setdefault(method, []).append(value)
        for method, values in rows.items():
            (w2, npe), spread = np.mean(values, 0), np.std(values, 0)
            print(
                f"  {name:<22}{method:<26}W2 {w2:.3f} ({spread[0]:.3f})   NPE {npe:.3f} ({spread[1]:.3f})", flush=True
            )


# ------------------------------------------------------------------------- plans in closed form


def known_plan(d, epsilon, seed):
    """A plan with five components, from N(0, I)."""
    rng = np.random.default_rng(seed)
    shifts = rng.normal(size=(5, d))
    shifts *= 3 / np.linalg.norm(shifts, axis=1, keepdims=True)
    axes = [np.linalg.qr(rng.normal(size=(d, d)))[0] for _ in range(5)]
    matrices = np.stack([(q * rng.uniform(0.5, 1.5, d)) @ q.T for q in axes])
    parts = np.zeros(d), np.full(5, -np.log(5.0)), shifts, matrices
    return MixturePotential(epsilon, *(torch.as_tensor(p) for p in parts))


def moments(draw, X, n_draws):
    """Mean and covariance of partners of each row."""
    draws = draw(np.repeat(X, n_draws, 0)).reshape(len(X), n_draws, -1)
    return draws.mean(1), np.stack([np.cov(some.T) for some in draws])


def exact_moments(plan, X):
    """The same of a plan in closed form, without draws."""
    zero, x = torch.zeros((), dtype=torch.float64), torch.as_tensor(X)
    weights, drifts = plan.components(plan.spread_at(zero), zero, x)
    means = torch.einsum("kij,nkj->nki", plan.frames, drifts)
    mean = (weights[..., None] * means).sum(1)
    spread = torch.einsum("nk,nki,nkj->nij", weights, means - mean[:, None], means - mean[:, None])
    own = 2 * plan.epsilon * plan.matrices
    return (x + mean).numpy(), (spread + torch.einsum("nk,kij->nij", weights, own)).numpy()


def ideal(truth, X0, X1):
    """The minimiser of the same objective on the same rows, from the truth on: what the model class allows."""
    x0, x1 = torch.as_tensor(X0), torch.as_tensor(X1)
    start = truth.log_weights, truth.centred_shifts, torch.linalg.cholesky(truth.matrices)
    weights, shifts, factors = _descend(x0, x1, truth.epsilon, start, 100)[1]
    return MixturePotential(truth.epsilon, truth.centre, weights, shifts, factors @ factors.transpose(1, 2))


def bures(first, second):
    """Squared Bures-Wasserstein distances."""
    total = ((first[0] - second[0]) ** 2).sum(1)
    for k, (a, b) in enumerate(zip(first[1], second[1], strict=True)):
        half = root(a)
        total[k] += np.trace(a + b - 2 * root(half @ b @ half))
    return total


def eot(args):
    """Conditional Bures-Wasserstein unexplained variance, in percent; their epsilon is twice ours."""
    for d in args.columns:
        for theirs in args.epsilons:
            epsilon, generator = theirs / 2, torch.Generator().manual_seed(0)
            truth = known_plan(d, epsilon, 0)

            def exact(X, truth=truth, generator=generator):
                return truth.draw(torch.as_tensor(X), generator).numpy()

            rng = np.random.default_rng(0)
            X0, X1 = rng.normal(size=(10_000, d)), exact(rng.normal(size=(10_000, d)))
            T, scale = rng.normal(size=(400, d)), X1.var(0).sum() / 2
            reference = exact_moments(truth, T)
            params = {"n_components": 5, **PLAIN, "random_state": 0}
            mixture = SchroedingerBridge(epsilon, "mixture", **params, max_time=args.limit)
            network = SchroedingerBridge(epsilon, "network", **params, max_time=args.budget / 2)
            contenders = {"truth, other draws": (exact, 0.0)}
            for name, model in {"mixture": mixture, "network": network}.items():
                _, took = timed(lambda m=model, X0=X0, X1=X1: m.fit(X0, X1))
                contenders[name] = model.sample_plan, took
            peer, took = timed(lambda s=theirs, X0=X0, X1=X1: Peer(s**0.5).fit(X0, X1, args.budget, 0))
            contenders["[SF]2M, exact plans"] = peer.sample_plan, took
            found = {name: (moments(draw, T, args.draws), took) for name, (draw, took) in contenders.items()}
            found["ideal, without draws"] = exact_moments(ideal(truth, X0, X1), T), 0.0
            found["mixture, without draws"] = exact_moments(mixture.potential_.double(), T), 0.0
            for name, (own, took) in found.items():
                value = 100 * bures(own, reference).mean() / scale
                print(f"  D={d:<4}epsilon {theirs:<5}{name:<22}{took:6.1f} s   cBW2-UVP {value:.3f} %", flush=True)


# ------------------------------------------------------------------------------- two real samples


def c2st(X, Y, seed):
    """1 - |2 AUC - 1| of gradient boosting out of fold: 1 is indistinguishable."""
    rows, labels = np.concatenate([X, Y]), np.repeat([0, 1], [len(X), len(Y)])
    model = HistGradientBoostingClassifier(random_state=seed)
    chances = cross_val_predict(model, rows, labels, cv=5, method="predict_proba")[:, 1]
    return 1 - abs(2 * roc_auc_score(labels, chances) - 1)


def cancer(args):
    """Malignant rows carried to benign ones: 30 columns, in units of their deviations."""
    X, y = load_breast_cancer(return_X_y=True)
    X = (X - X.mean(0)) / X.std(0)
    table = {}
    for seed in range(args.seeds):
        train0, test0 = train_test_split(X[y == 0], test_size=0.3, random_state=seed)
        train1, test1 = train_test_split(X[y == 1], test_size=0.3, random_state=seed)
        n = min(len(test0), len(test1))
        for coupling in ("independent", "optimal"):
            flow = InterpolantFlow(coupling=coupling, base_density=None, random_state=seed).fit(train0, train1)
            moved = flow.transform(test0[:n])
            value = ((moved - test0[:n]) ** 2).sum(1).mean(), c2st(moved, test1[:n], seed)
            table.setdefault(coupling, []).append(value)
    for coupling, values in table.items():
        (far, alike), (wide, spread) = np.mean(values, 0), np.std(values, 0)
        print(f"  {coupling:<14}mean squared displacement {far:.2f} ({wide:.2f})   C2ST {alike:.3f} ({spread:.3f})")


PARTS = {part.__name__: part for part in (action, gauss, bridge, plane, eot, cancer)}


def main():
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=PARTS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budget", type=float, default=25.0, help="seconds of training of plane and eot")
    parser.add_argument("--test", type=int, default=4000, help="held-out rows of plane")
    parser.add_argument("--paths", type=int, default=100_000, help="simulated rows of bridge")
    parser.add_argument("--epsilons", type=float, nargs="+", default=[0.1, 1.0, 10.0], help="of eot, in their units")
    parser.add_argument("--columns", type=int, nargs="+", default=[2, 16, 64], help="of eot")
    parser.add_argument("--limit", type=float, default=None, help="max_time of the mixtures of eot; none without")
    parser.add_argument("--draws", type=int, default=200, help="partners of a row of eot")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    for part in args.parts:
        print(f"\n{part}", flush=True)
        PARTS[part](args)


if __name__ == "__main__":
    main()
