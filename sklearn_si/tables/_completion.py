"""Rows of which some cells are known: draws of the rest."""

import numpy as np
import torch

from .._utils.tensors import SAMPLE_STREAM, make_generator, resolve_device
from ..exceptions import rows_among
from ..preprocessing._patterns import ABSENT, ASKED, GIVEN
from ._chain import CANDIDATES, draw_codes, draw_given, log_mass
from ._given_cells import overlaid
from ._ties import decide_ties, impossible_ties

__all__ = ["complete"]

# Draws from which the one is taken whose sum is nearest to a known one, where a part of it is asked for.
_CANDIDATES = 32


def complete(model, known, seed, without_gaps=False):
    """All codes and values of rows of which some are known.

    Where a sum (or the larger of two numbers) is known and a part of it is not, the one of several draws is taken whose
    sum is nearest to the known one; the part then takes up what is left of the difference (`Relations.backward`).
    """
    codes, values = _drawn(model, known, seed, without_gaps)
    relations = model.codec_.relations_
    pending = np.flatnonzero(relations.pending(known.readings, len(codes))) if relations.linear else ()
    if len(pending):
        again = known.rows(np.repeat(pending, _CANDIDATES))
        candidates = _drawn(model, again, seed, without_gaps, 1)
        rng = np.random.RandomState(seed % 2**32)
        cells = [c.decode(candidates[0][:, j], candidates[1][:, j], rng) for j, c in enumerate(model.codec_.columns_)]
        far = relations.distance(overlaid(cells, again.readings), cells, again.readings)
        best = np.arange(len(pending)) * _CANDIDATES + far.reshape(-1, _CANDIDATES).argmin(1)
        codes[pending], values[pending] = candidates[0][best], candidates[1][best]
    return codes, values


def _drawn(model, known, seed, without_gaps, n_candidates=CANDIDATES):
    codes, values, layout = known.codes.copy(), known.values.copy(), model._layout
    columns, device = model.codec_.columns_, resolve_device(model.device)
    _decide_ties(model, known, codes, values, np.random.default_rng([seed, SAMPLE_STREAM + 101]), without_gaps)
    given = layout.have_values(codes) & ~np.isnan(values[:, layout.valued])
    for j, column in enumerate(columns):
        if column.n_codes == 1:
            codes[:, j] = 0
    if layout.coded:
        cells, shown = layout.tensors(codes, values, device)
        # a stream of its own: the flow draws the values from the same seed, and they must not follow the codes
        generator = make_generator(seed, SAMPLE_STREAM + 100, device)
        forbidden = _forbidden(model, known, without_gaps)
        restricted = [k for k, j in enumerate(layout.coded) if j in known.allowed]
        # what is known of several columns together is told to the others by the one that stands for them
        order = restricted + [k for k in range(len(layout.coded)) if k not in restricted]
        drawn = draw_given(model.masked_network_, cells, shown, order, generator, forbidden, n_candidates)
        codes[:, layout.coded] = drawn.cpu().numpy()
        for j, rows in impossible_ties(model.codec_.ties_, columns, codes, known.codes):
            codes[rows, j] = -1
            cells, shown = layout.tensors(codes[rows], values[rows], device)
            k = layout.coded.index(j)
            ruled_out = {k: [columns[j].tie_code, *(columns[j].gap_codes if without_gaps else ())]}
            drawn = draw_codes(model.masked_network_, cells, shown, [k], generator, ruled_out)
            codes[rows, j] = drawn[:, k].cpu().numpy()
    if layout.valued:
        states = np.where(layout.have_values(codes), np.where(given, GIVEN, ASKED), ABSENT)
        asked = (states == ASKED).any(1)
        if asked.any():
            filled = np.where(given, values[:, layout.valued], 0.0)[asked]
            told = layout.features(codes)[asked], codes[np.ix_(asked, layout.coded)]
            with rows_among(np.flatnonzero(asked)):
                drawn = model.value_model_.sample(filled, *told, states[asked], seed)
            values[np.ix_(asked, layout.valued)] = drawn
    return codes, values


def _decide_ties(model, known, codes, values, rng, without_gaps):
    """Draw which known numbers are those of other columns that are not known, in place."""
    layout, network, device = model._layout, model.masked_network_, resolve_device(model.device)
    columns = model.codec_.columns_
    if not model.codec_.ties_ or all(reading is None for reading in known.readings):
        return

    @torch.no_grad()
    def score(codes, k):
        cells, nothing = layout.tensors(codes, np.full(codes.shape, np.nan), device)
        nothing = torch.full_like(nothing, torch.nan)
        mass = log_mass(network, cells, nothing, range(len(layout.coded)))
        gaps = torch.as_tensor(columns[k].gap_codes, device=device)
        if without_gaps and len(gaps) and (codes[:, k] < 0).all():
            missing = network.column(layout.coded.index(k), cells, nothing)[:, gaps].double().exp().sum(1)
            mass += torch.log1p(-missing.clamp(max=1 - 1e-6))
        return mass.cpu().numpy()

    decide_ties(model.codec_.ties_, columns, codes, values, known.readings, score, rng)


def _forbidden(model, known, without_gaps):
    """For each column with several codes those that are ruled out: a list, or a mask of shape (n_rows, n_codes)."""
    columns, coded = model.codec_.columns_, model._layout.coded
    device = resolve_device(model.device)
    forbidden = [columns[j].gap_codes if without_gaps else () for j in coded]
    for relation in model.codec_.relations_.joint if without_gaps else ():
        if relation.members[0] in coded:
            forbidden[coded.index(relation.members[0])] = relation.gapped
    for j in known.allowed:
        if j in coded:
            ruled_out = ~known.allowed[j]
            if without_gaps:
                gapped = np.isin(np.arange(ruled_out.shape[1]), model.codec_.relations_.joint_of(j).gapped)
                # cells that stand with missing values alone leave any combination without them
                ruled_out = np.where((ruled_out | gapped).all(1)[:, None], gapped, ruled_out | gapped)
            forbidden[coded.index(j)] = torch.as_tensor(ruled_out, device=device)
    return forbidden
