"""Rows of which some cells are known: draws of the rest."""

import numpy as np
import torch

from .._utils.tensors import SAMPLE_STREAM, make_generator, resolve_device
from ..exceptions import rows_among
from ._given_cells import overlaid
from ._masked import draw_codes
from ._values import ABSENT, ASKED, GIVEN

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
        candidates = _drawn(model, again, seed, without_gaps)
        rng = np.random.RandomState(seed % 2**32)
        cells = [c.decode(candidates[0][:, j], candidates[1][:, j], rng) for j, c in enumerate(model.codec_.columns_)]
        far = relations.distance(overlaid(cells, again.readings), cells, again.readings)
        best = np.arange(len(pending)) * _CANDIDATES + far.reshape(-1, _CANDIDATES).argmin(1)
        codes[pending], values[pending] = candidates[0][best], candidates[1][best]
    return codes, values


def _drawn(model, known, seed, without_gaps):
    codes, values, layout = known.codes.copy(), known.values.copy(), model._layout
    columns, device = model.codec_.columns_, resolve_device(model.device)
    given = layout.have_values(codes) & ~np.isnan(values[:, layout.valued])
    for j, column in enumerate(columns):
        if column.n_codes == 1:
            codes[:, j] = 0
    if layout.coded:
        cells, shown = layout.tensors(codes, values, device)
        # a stream of its own: the flow draws the values from the same seed, and they must not follow the codes
        generator = make_generator(seed, SAMPLE_STREAM + 100, device)
        forbidden = [columns[j].gap_codes if without_gaps else () for j in layout.coded]
        restricted = [k for k, j in enumerate(layout.coded) if j in known.allowed]
        for k in restricted:
            forbidden[k] = torch.as_tensor(~known.allowed[layout.coded[k]], device=device)
        # what is known of several columns together is told to the others by the one that stands for them
        order = restricted + [k for k in range(len(layout.coded)) if k not in restricted]
        drawn = draw_codes(model.masked_network_, cells, shown, order, generator, forbidden)
        codes[:, layout.coded] = drawn.cpu().numpy()
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
