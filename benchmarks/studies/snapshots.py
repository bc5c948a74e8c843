"""A distribution at a time that was held out, between snapshots of a diffusion that turns and branches.

    OMP_NUM_THREADS=1 python benchmarks/studies/snapshots.py --seeds 5 --budget 10

Rows move around a circle and part into two branches; they are seen at four of five times, other rows each time. What
is printed is W1 between 2,000 rows that are drawn for the held-out time and 2,000 rows of the truth, beside that of
fresh rows of the truth (the floor), and the integral of the density at each time over a grid.

ours            MultimarginalFlow of all four snapshots
straight lines  MultimarginalFlow of the two snapshots beside the held-out time
OT-CFM, [SF]2M  the peers of `transport.py`, between the same two: 3 x 64 SELU, batches of 512 with exact plans
"""

import argparse
import time

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from sklearn_si import MultimarginalFlow
from transport import Peer

# Angle in radians by which rows turn in a unit of time.
TURN = 0.5
# Noise of the diffusion, across the circle and along it.
NOISE = 0.15
TIMES = np.arange(5.0)


def simulate(n, times, rng, n_steps=50):
    """Rows at each time, other ones each time: dv = v (1 - v^2) dt + noise, at radius 2 + v / 2 and angle TURN t."""
    rows = []
    for t in times:
        v, angle = 0.3 * rng.normal(size=n), 0.1 * rng.normal(size=n)
        h = t / n_steps
        for _ in range(n_steps):
            v = v + h * v * (1 - v**2) + NOISE * h**0.5 * rng.normal(size=n)
            angle = angle + h * TURN + 0.5 * NOISE * h**0.5 * rng.normal(size=n)
        rows.append((2 + v / 2)[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1))
    return rows


def w1(X, Y):
    """The exact 1-Wasserstein distance of equally many rows."""
    cost = cdist(X, Y)
    return cost[linear_sum_assignment(cost)].mean()


@torch.no_grad()
def halfway(peer, X0, n_steps=50):
    """Rows of a peer's ODE at t = 1/2; of one with noise, of its SDE."""
    x, h = torch.as_tensor(X0, dtype=torch.float32), 0.5 / n_steps
    for k in range(n_steps):
        inputs = torch.cat([x, torch.full((len(x), 1), max(k * h, 1e-3))], 1)
        v = peer.flow(inputs)
        if peer.sigma is not None:
            t = max(k * h, 1e-3)
            v = v + 0.5 * peer.sigma**2 * peer.score(inputs) / (2 * (t * (1 - t)) ** 0.5)
            x = x + peer.sigma * h**0.5 * torch.randn_like(x)
        x = x + h * v
    return x.double().numpy()


def mass(flow, time, n=120):
    """The integral of the density at a time."""
    grid = np.linspace(-4, 4, n)
    X = np.stack(np.meshgrid(grid, grid, indexing="ij"), -1).reshape(-1, 2)
    return np.exp(flow.score_samples(X, time=time)).sum() * (grid[1] - grid[0]) ** 2


def study(seed, held, args):
    """W1 of each method at one held-out time."""
    rng = np.random.default_rng(seed)
    rows, kept = simulate(args.rows, TIMES, rng), np.delete(np.arange(len(TIMES)), held)
    (truth,), (fresh,) = (simulate(2000, TIMES[[held]], rng) for _ in range(2))
    around = [rows[held - 1], rows[held + 1]]
    density = "flow" if args.densities else None
    began = time.perf_counter()
    ours = MultimarginalFlow(base_density=density, random_state=seed).fit([rows[k] for k in kept], TIMES[kept])
    seconds = time.perf_counter() - began
    line = MultimarginalFlow(base_density=None, random_state=seed).fit(around, [0.0, 1.0])
    found = {"floor": w1(fresh, truth), "ours": w1(ours.sample(2000, time=TIMES[held]), truth)}
    found["straight lines"] = w1(line.sample(2000, time=0.5), truth)
    for name, sigma in (("OT-CFM", None), ("[SF]2M", NOISE)):
        peer = Peer(sigma).fit(*around, args.budget, seed)
        start = around[0][rng.integers(len(around[0]), size=2000)]
        found[name] = w1(halfway(peer, start), truth)
    masses = [mass(ours, t) for t in TIMES] if args.densities else []
    return found, seconds, masses


def main():
    """Print a line for each seed, and the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--budget", type=float, default=10.0, help="seconds of each peer")
    parser.add_argument("--rows", type=int, default=2000, help="rows of each snapshot")
    parser.add_argument("--held", type=int, default=2, help="number of the held-out time, 1 to 3")
    parser.add_argument("--densities", action="store_true", help="integrate the densities as well")
    args = parser.parse_args()
    torch.set_num_threads(1)
    records = []
    for seed in range(args.seeds):
        found, seconds, masses = study(seed, args.held, args)
        records.append(found)
        told = "   ".join(f"{name} {value:.4f}" for name, value in found.items())
        integrals = "   integrals " + " ".join(f"{m:.4f}" for m in masses) if masses else ""
        print(f"  seed {seed}   {told}   ours in {seconds:.1f} s{integrals}", flush=True)
    floor = np.mean([r["floor"] for r in records])
    for name in records[0]:
        values = [r[name] for r in records]
        print(
            f"{name:<16}W1 {np.mean(values):.4f} ({np.std(values):.4f})   over the floor {np.mean(values) / floor:.2f}"
        )


if __name__ == "__main__":
    main()
