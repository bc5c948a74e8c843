"""Codes of rows one column after the other: draws of those that are not known, and the mass of those that are."""

import math

import torch

__all__ = ["CANDIDATES", "ROWS_PER_BLOCK", "draw_codes", "draw_given", "log_mass", "one_of"]

# Rows that are sampled or scored at a time.
ROWS_PER_BLOCK = 8192
# Candidates of a row of which some cells are known.
CANDIDATES = 8


def draw_codes(network, codes, values, order, generator, forbidden=()):
    """Fill the cells of `codes` that are -1, one column after the other.

    `forbidden` has for each column the codes that are ruled out: a list, or a mask of shape (n, n_codes).
    """
    return _drawn(network, codes, values, order, generator, forbidden)[0]


def draw_given(network, codes, values, order, generator, forbidden=(), n_candidates=CANDIDATES):
    """Fill the cells of `codes` that are -1 given the others, as the chain of whole rows would have them.

    The chain p(c) = prod_k p(c_k given c_1 ... c_{k-1}) is what the network has learned best, but it does not look at
    known cells of later columns. The conditionals q given all known cells do, and are less well learned, as there are
    many patterns. Of some candidates from q, one is taken with a probability in proportion to p(c) / q(c) (sampling
    importance resampling). Columns behind the last known one need no candidates: there p and q look at the same cells.

    Parameters
    ----------
    network, codes, values, order, generator, forbidden
        As in `draw_codes`. Columns for which a mask is forbidden count as known.
    n_candidates : int, default=8
        1 draws from q.
    """
    place = torch.arange(codes.shape[1], device=codes.device)
    told = codes >= 0
    told[:, [j for j, ruled_out in enumerate(forbidden) if torch.is_tensor(ruled_out)]] = True
    last = torch.where(told, place, -1).amax(1)
    weighed = place <= last[:, None]
    steered = ((codes < 0) & weighed).any(1).nonzero()[:, 0] if n_candidates > 1 else place[:0]
    codes = codes.clone() if len(steered) else codes
    for rows in torch.split(steered, max(1, ROWS_PER_BLOCK // n_candidates)):
        ruled_out = [f[rows] if torch.is_tensor(f) else f for f in forbidden]
        parts = network, codes[rows], values[rows], weighed[rows], order, generator, ruled_out, n_candidates
        codes[rows] = _one_candidate(*parts)
    return draw_codes(network, codes, values, order, generator, forbidden)


def _one_candidate(network, codes, values, weighed, order, generator, forbidden, n_candidates):
    """Rows with the cells of the columns that are weighed; -1 in others."""

    def repeated(rows):
        return rows.repeat_interleave(n_candidates, 0) if torch.is_tensor(rows) else rows

    known, shown, within = repeated(codes), repeated(values), repeated(weighed)
    drawn, log_q = _drawn(network, known, shown, order, generator, [repeated(f) for f in forbidden], within)
    nothing = torch.full_like(shown, torch.nan)
    if not torch.isnan(shown).all():
        # what values tell is in q alone: p(c) q(c given values) / q(c) is weighed by q(c given values)
        log_q = log_mass(network, drawn, nothing, order, known)
    # cells before the first unknown one are the same in all candidates
    start = torch.where(((known < 0).cumsum(1) == 0) & (known >= 0), known, -1)
    log_weight = log_mass(network, drawn, nothing, range(codes.shape[1]), start) - log_q
    weight = torch.log_softmax(log_weight.reshape(-1, n_candidates), 1)
    chosen = torch.arange(len(codes), device=codes.device) * n_candidates + one_of(weight, generator)
    return drawn[chosen]


@torch.no_grad()
def _drawn(network, codes, values, order, generator, forbidden=(), within=None):
    """The rows with unknown cells drawn, `within` a mask if it is given, and the log-probability of these cells."""
    codes, total = codes.clone(), torch.zeros(len(codes), dtype=torch.float64, device=codes.device)
    for rows in torch.arange(len(codes), device=codes.device).split(ROWS_PER_BLOCK):
        block, shown = codes[rows], values[rows]
        for j in order:
            asked = block[:, j] < 0
            asked = (asked if within is None else asked & within[rows, j]).nonzero()[:, 0]
            if not len(asked):
                continue
            logs = network.column(j, block[asked], shown[asked])
            ruled_out = forbidden[j] if forbidden else ()
            logs = _without(logs, ruled_out[rows[asked]] if torch.is_tensor(ruled_out) else ruled_out)
            block[asked, j] = drawn = one_of(logs, generator)
            total[rows[asked]] += _of_codes(torch.log_softmax(logs, 1), drawn)
        codes[rows] = block
    return codes, total


@torch.no_grad()
def log_mass(network, codes, values, order, start=None):
    """The log-probability of the known codes of each row, by the chain rule in this order.

    With `start`, that of the codes which are unknown there, given those which are known there.
    """
    total = torch.zeros(len(codes), dtype=torch.float64, device=codes.device)
    start = torch.full_like(codes, -1) if start is None else start
    for rows in torch.arange(len(codes), device=codes.device).split(ROWS_PER_BLOCK):
        block, shown = codes[rows], start[rows].clone()
        for j in order:
            asked = ((block[:, j] >= 0) & (shown[:, j] < 0)).nonzero()[:, 0]
            if len(asked):
                logs = network.column(j, shown[asked], values[rows][asked])
                total[rows[asked]] += _of_codes(logs, block[asked, j])
                shown[asked, j] = block[asked, j]
    return total


def one_of(logs, generator):
    """A code for each row, independently of the other rows."""
    u = torch.rand(len(logs), generator=generator, dtype=torch.float64, device=logs.device)
    ends = logs.double().exp().cumsum(1)
    u = u.clamp(max=1 - 1e-12)[:, None] * ends[:, -1:]
    # a code without mass has a cell without width: it is never drawn
    return torch.searchsorted(ends, u, right=True)[:, 0].clamp(max=logs.shape[1] - 1)


def _of_codes(logs, codes):
    return logs.gather(1, codes[:, None])[:, 0].double()


def _without(logs, ruled_out):
    if not len(ruled_out):
        return logs
    if torch.is_tensor(ruled_out):
        return logs.masked_fill(ruled_out, -math.inf)
    logs = logs.clone()
    logs[:, list(ruled_out)] = -math.inf
    return logs
