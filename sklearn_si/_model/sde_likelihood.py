"""The density of the Euler-Maruyama chain, by importance weights of backward paths."""

import math

import torch
from torch import Tensor

from .fields import Fields, Schedule
from .levels import Level
from .likelihood import Parts
from .sde import sde_times


def path_log_weights(
    fields: Fields,
    x: Tensor,
    level: float,
    schedule: Schedule,
    n_steps: int,
    n_paths: int,
    base_parts: Parts,
    generator: torch.Generator,
) -> Tensor:
    """Log-weights whose mean exponential is the density of the sampler's chain at x, of shape (n_paths, n).

    log w = log rho_0(x_0) + sum_k log p(x_{k+1} | x_k) - log q(x_k | x_{k+1}),    x_K = x, x_k ~ q

    with p the step of the sampler (drift b + epsilon s) and q the backward step (drift b - epsilon s), both of variance
    2 epsilon h. E[w] is exactly the density of the chain, and E[log w] a lower bound of its logarithm: no divergence
    and no error of step size. (After 2303.08797, Thm. 2.26, whose weights are those of q with drift b + epsilon s.)

    The noise of a path is the same for every row, so that a row's value does not depend on its batch mates.

    Parameters
    ----------
    fields : Fields
        Velocity and denoiser, in scaled units.
    x : Tensor of shape (n, d)
        Rows.
    level, schedule
        The noise, as in `Fields.sde`.
    n_steps, n_paths : int
        Steps of the chain; paths a row.
    base_parts : callable
        As in `ode_log_density`.
    generator : torch.Generator
        The source of the noise.
    """
    times = sde_times(fields.interpolant, n_steps).to(x)
    noise = torch.randn((n_paths, len(times) - 1, x.shape[1]), generator=generator, dtype=x.dtype, device=x.device)
    some = max(1, _ROWS // len(x))
    return torch.cat([_paths(fields, x, level, schedule, times, z, base_parts) for z in noise.split(some)])


def _paths(
    fields: Fields, x: Tensor, level: float, schedule: Schedule, times: Tensor, noise: Tensor, base_parts: Parts
) -> Tensor:
    """Log-weights of some paths at once, of shape (p, n): path i of row r stands in row i n + r."""
    p, n = len(noise), len(x)
    fields = fields.rows(torch.arange(n).repeat(p))
    forward, epsilon = fields.sde(level, schedule, times)
    backward, _ = fields.sde(level, schedule, times.flip(0))
    x, noise = x.repeat(p, 1), noise.repeat_interleave(n, 0)
    log_weight = torch.zeros_like(x[:, 0])
    for k in range(len(times) - 2, -1, -1):
        h = times[k + 1] - times[k]
        e = epsilon(times[k] + h / 2)
        noise_increment = torch.sqrt(2 * e * h) * noise[:, k]
        earlier = x - h * backward(times[k + 1], x, e) + noise_increment
        miss = x - earlier - h * forward(times[k], earlier, e)
        log_weight = log_weight + (noise_increment.square().sum(1) - miss.square().sum(1)) / (4 * e * h)
        x = earlier
    return (log_weight + base_parts(x, _BASE_LEVEL)[0].sum(1)).reshape(p, n)


# Rows (paths times points) of one chunk: it stays in cache.
_ROWS = 4096
# By which a base that is a flow itself is solved.
_BASE_LEVEL = Level.of(24)


def summarise(log_weights: Tensor) -> dict[str, Tensor]:
    """Point value, bound and their errors from log-weights of shape (n_paths, n).

    point = log mean w (consistent, biased low by its Monte Carlo error), bound = mean log w (exact lower bound in
    expectation), effective sample size (sum w)^2 / sum w^2.
    """
    m = len(log_weights)
    point = torch.logsumexp(log_weights, 0) - math.log(m)
    normalised = torch.softmax(log_weights, 0)
    size = 1 / normalised.square().sum(0)
    spread = log_weights.std(0) if m > 1 else torch.full_like(point, torch.inf)
    # delta method: sd(w) / (mean(w) sqrt(m)), with the spread of the normalised weights
    error = (m * normalised).std(0) / math.sqrt(m) if m > 1 else spread
    return {
        "point": point,
        "error": error,
        "bound": log_weights.mean(0),
        "standard_error": spread / math.sqrt(m),
        "effective_sample_size": size,
        "weight_std": spread,
    }
