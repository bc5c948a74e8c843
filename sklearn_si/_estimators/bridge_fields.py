"""Fields of a Schroedinger bridge around its closed form, and the pairs that they are trained on."""

import time

import torch

from .._model.fields import Fields
from .._training.losses import REGRESSIONS
from .._training.weighting import pass_of, tensors_of
from .._utils.names import registered
from .._utils.tensors import FIT_STREAM, make_generator
from ..couplings import Coupling
from ..networks import PreconditionedField
from ..networks._perceptrons import FiLMNetwork
from ..solvers import sdeint, time_grid

# Rows of each end from which pairs are simulated.
_MOST_PAIRS = 20_000
# Rows that are simulated together, fewer where the time is limited: it is looked at between them.
_ROWS_AT_A_TIME = 4096
_ROWS_IN_A_HURRY = 512


@registered("bridge.BridgeField")
class BridgeField(PreconditionedField):
    """Velocity, denoiser or score of a bridge: that of two potentials, and a network that learns what they lack.

    b = (u + v) / 2,    s = (u - v) / (2 epsilon),    eta = -gamma s

    with u the drift of the potential from t = 0, and v(t, x) = -u'(1 - t, x) that of the reverse one.

    Parameters
    ----------
    interpolant, network, target, v0, v1, c
        As in `PreconditionedField`; the network may be None.
    potential, reverse_potential : MixturePotential
    """

    def __init__(self, interpolant, network, target, v0, v1, c, potential, reverse_potential):
        super().__init__(interpolant, network, target, v0, v1, c)
        self.potential, self.reverse_potential = potential, reverse_potential

    def _factors(self, t):
        """Weights of u and v in the field."""
        if self.target == "velocity":
            return 0.5, 0.5
        factor = (-self.interpolant.gamma(t) if self.target == "denoiser" else torch.ones_like(t))[..., None]
        factor = factor / (2 * self.potential.epsilon)
        return factor, -factor

    def _closed(self, factors, drifts):
        # the reverse potential's drift runs the other way
        return factors[0] * drifts[0] - factors[1] * drifts[1]

    def time_coefficients(self, times):
        """c_out, 1 / c_in, the weights of u and v, the times, and the spreads of the potentials."""
        _, c_out, sd = self.coefficients(times)
        factors = [torch.as_tensor(f).to(times).expand(*times.shape, 1) for f in self._factors(times)]
        return c_out, sd, *factors, times, self.potential.spread_at(times), self.reverse_potential.spread_at(1 - times)

    def preconditioning_at(self, coefficients, x):
        """The same as `preconditioning`, from the time coefficients."""
        c_out, sd, *factors, t, spread, reverse = coefficients
        drifts = self.potential.drift(t, x, spread), self.reverse_potential.drift(1 - t, x, reverse)
        return self._closed(factors, drifts), c_out, x / sd

    def preconditioning(self, t, x):
        """The field of the potentials, c_out, and x in units of its standard deviation."""
        return self.preconditioning_at(self.time_coefficients(t), x)

    def forward(self, t, x, condition=None):
        """The field, of shape (n, d)."""
        return self.preconditioning(t, x)[0] if self.network is None else super().forward(t, x, condition)

    def velocity_and_divergence(self, t, x, condition=None):
        """The field and its exact divergence, of shapes (n, d) and (n,)."""
        u, trace_u = self.potential.drift_and_divergence(t, x)
        v, trace_v = self.reverse_potential.drift_and_divergence(1 - t, x)
        factors = self._factors(t)
        value = self._closed(factors, (u, v))
        traces = [f.squeeze(-1) if torch.is_tensor(f) else f for f in factors]
        divergence = self._closed(traces, (trace_u, trace_v))
        if self.network is None:
            return value, divergence
        _, c_out, sd = self.coefficients(t)
        own, trace = self.network.value_and_trace(t, x / sd, condition)
        return torch.addcmul(value, c_out, own), divergence + (c_out / sd).squeeze(-1) * trace

    def as_score(self):
        """The score -eta / gamma of a denoiser, without the division: the same weights, another factor."""
        ends = self.v0, self.v1, self.c
        return BridgeField(self.interpolant, self.network, "score", *ends, self.potential, self.reverse_potential)


def bridge_fields(run, potential, reverse_potential, *, with_networks):
    """Velocity and denoiser of a run around two potentials, by name; without networks there is nothing to train."""
    v0, v1 = (x.var(0, correction=0).clamp(min=1e-6).cpu() for x in train_rows(run))
    fields, both = {}, (potential.cpu(), reverse_potential.cpu())
    for name in run.problem.fields:
        generator = make_generator(run.problem.seed, FIT_STREAM + 100 * list(REGRESSIONS).index(name))
        layers = run.x1.shape[1], 0, run.widths, run.recipe.activation, generator
        network = FiLMNetwork(*layers) if with_networks else None
        fields[name] = BridgeField(run.problem.interpolant, network, name, v0, v1, None, *both)
    return fields


def train_rows(run):
    """The training rows of both ends, in scaled units; drawn by weight where they have weights."""
    problem = run.problem
    if not problem.is_weighted:
        return run.x0[problem.base_train], run.x1[problem.target_train]
    x0 = run.some(run.x0, problem.base_train, problem.base_weight)
    return x0, run.some(run.x1, problem.target_train, problem.target_weight)


@registered("bridge.PlanPairs")
class PlanPairs(Coupling):
    """A coupling: half of the pairs by the plan from rows of the base, half by the reverse plan from the target's."""

    def __init__(self, potential, reverse_potential):
        self.potential, self.reverse_potential = potential, reverse_potential

    def __call__(self, x0, x1, condition, generator):
        """The pairs of a batch."""
        half = len(x0) // 2
        forward, back = x0[:half], x1[half:]
        for potential in (self.potential, self.reverse_potential):
            potential.to(x0.device)
        pairs0 = torch.cat([forward, self.reverse_potential.draw(back, generator)])
        return pairs0, torch.cat([self.potential.draw(forward, generator), back]), condition


@torch.no_grad()
def simulate_pairs(run, epsilon, n_steps, number, seconds=None):
    """Ends of simulated paths of training and of validation rows: half forward from the base, half backward.

    With a limit of seconds as many are simulated as fit into it, at least some of each kind.

    Returns
    -------
    dict of pairs of tensors, by "train" and "val"
    """
    generator = make_generator(run.problem.seed, FIT_STREAM + 600 + number, run.device)
    fields = Fields(run.problem.interpolant, run.networks["velocity"], run.networks["denoiser"])
    pairs: dict[str, tuple[torch.Tensor, ...]] = {}
    problem = run.problem
    parts = {
        "train": (problem.base_train, problem.target_train),
        "val": (problem.base_val, problem.target_val),
    }
    for part, rows in parts.items():
        if rows[0] is None:
            continue
        both: tuple[list[torch.Tensor], ...] = ([], [])
        weights = tensors_of(problem, *rows, run.device)
        sides = (0.0, 1.0, run.x0[rows[0]], weights[0]), (1.0, 0.0, run.x1[rows[1]], weights[1])
        for start, stop, x, weight in sides:
            x = x[pass_of(len(x), weight, generator)[:_MOST_PAIRS]]
            times = time_grid(n_steps, "uniform", start, stop).to(x)
            drift, diffusion = fields.sde(epsilon, "constant", times)
            began = time.perf_counter()
            ends: list[torch.Tensor] = []
            for some in x.split(_ROWS_AT_A_TIME if seconds is None else _ROWS_IN_A_HURRY):
                if ends and seconds is not None and time.perf_counter() - began > seconds / 4:
                    break  # what is left would be more of the same: the rows are in random order
                ends.append(sdeint(drift, diffusion, some, times, generator))
            end = torch.cat(ends)
            x = x[: len(end)]
            for side, rows_of_side in zip(both, (x, end) if stop > start else (end, x), strict=True):
                side.append(rows_of_side)
        pairs[part] = tuple(torch.cat(side) for side in both)
    return pairs
