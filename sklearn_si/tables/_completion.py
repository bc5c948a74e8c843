"""Rows of which some cells are known: what is known of them, and draws of the rest."""

import dataclasses
import warnings

import numpy as np
import torch

from .._utils.tensors import SAMPLE_STREAM, make_generator, resolve_device
from ..exceptions import rows_among
from ._masked import draw_codes
from ._values import ABSENT, ASKED, GIVEN

__all__ = ["Known", "complete", "known_cells", "nothing_known"]

# Draws from which the one is taken whose sum is nearest to a known one, where a part of it is asked for.
_CANDIDATES = 32


@dataclasses.dataclass
class Known:
    """What is known of some rows.

    Parameters
    ----------
    codes, values : ndarray of shape (n_rows, n_columns)
        As they are modelled; -1 and NaN where nothing is known.
    readings : list of Reading or None
        The cells as they stand in the table.
    allowed : dict
        Of columns that stand for several, the codes that agree with what is known, of shape (n_rows, n_codes).
    """

    codes: np.ndarray
    values: np.ndarray
    readings: list
    allowed: dict

    def rows(self, places):
        """The same of some rows, any number of times."""
        n = len(self.codes)
        readings = [
            None
            if r is None
            else dataclasses.replace(r, values=np.resize(r.values, n)[places], gaps=np.resize(r.gaps, n)[places])
            for r in self.readings
        ]
        allowed = {j: mask[places] for j, mask in self.allowed.items()}
        return Known(self.codes[places], self.values[places], readings, allowed)


def nothing_known(n, n_columns):
    """Rows of which nothing is known."""
    codes = np.full((n, n_columns), -1)
    return Known(codes, np.full(codes.shape, np.nan), [None] * n_columns, {})


def known_cells(codec, X, name, gaps=False, without=()):
    """What is known of the rows of a table; missing values are not, unless they count as a level."""
    relations, n_columns = codec.relations_, codec.n_features_in_
    raw = codec.table_.readings(X, name, hasattr(X, "columns"))
    for j in without:
        raw[j] = None
    if all(reading is None for reading in raw):
        return nothing_known(len(X), n_columns)
    readings = relations.forward(raw, asked=not gaps)
    if all(reading is None for reading in readings):
        n = next(len(reading.gaps) for reading in raw if reading is not None)
        known = nothing_known(n, n_columns)
    else:
        codes, values = codec._encoded(readings, None, name)
        known = Known(codes, values, raw, {})
    known.readings = raw
    owned = {relation.target for relation in relations.linear} | {r.members[0] for r in relations.joint}
    for j, column in enumerate(codec.columns_):
        if readings[j] is None:
            continue
        unseen = (known.codes[:, j] < 0) & (readings[j].gaps == 0)
        if column.kind == "discrete" and unseen.any():
            # a number that fit has not seen is kept, and tells what its nearest neighbour tells
            known.codes[unseen, j] = column.nearest(readings[j].values[unseen])
            unseen[:] = False
        if unseen.any() and name == "given" and j not in owned:
            column._refuse_unseen(readings[j].values[unseen], "error", name)
        if not gaps and len(column.gap_kinds):
            known.codes[np.isin(known.codes[:, j], column.gap_codes), j] = -1
    _restrict(relations, known, name)
    _warn_of_broken(relations, raw, name)
    return known


def _restrict(relations, known, name):
    """Which combinations agree with the cells of columns that are modelled as one."""
    for relation in relations.joint:
        for k, j in enumerate(relation.members):
            reading = known.readings[j]
            if reading is not None and name == "given":
                seen = {combination[k][0] for combination in relation.combinations}
                new = [v for v in reading.values[reading.gaps == 0].tolist() if v not in seen]
                if new:
                    raise ValueError(
                        f"Column {relation.constraint.columns[k]!r} of given holds {list(dict.fromkeys(new))[:5]}, "
                        "which fit has not seen: give a level that it has seen, or fit on a table that has them."
                    )
        allowed = relation.allowed(known.readings, len(known.codes))
        if allowed is not None:
            known.allowed[relation.members[0]] = allowed


def _warn_of_broken(relations, raw, name):
    for relation, _, rows in relations.broken(raw):
        parts = [raw[j] for j in relation.columns]
        n = int((rows & (sum(part.gaps > 0 for part in parts) == 0)).sum())
        if n:
            warnings.warn(
                f"{n} of {len(rows)} rows of {name} break {relation.constraint}: their cells are kept as they are.",
                UserWarning,
                stacklevel=5,
            )


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
        far = relations.distance(relations.overlaid(cells, again.readings), cells, again.readings)
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
