"""What a flow is told of the codes of a row: few numbers a column, whatever the number of its levels."""

import numpy as np

__all__ = ["code_features"]

# Ordered codes up to which each is told apart; codes of one column that are told apart at the most, the most frequent.
_FEW_CODES = 32
# Octaves of the waves of the rank of an ordered code.
_OCTAVES = 3


def code_features(column, codes):
    """The codes of a column as numbers, of shape (n_rows, any); all 0 where a code is not known (-1).

    Codes without an order, and few ordered ones, are told one by one; of many the most frequent, and the others
    together. Of ordered codes their normal score is told, and waves of their ranks where they are many.
    """
    parts, ranks = [], column.ranks
    known, n_codes = codes >= 0, column.n_codes
    if column.is_ordered:
        parts.append(np.where(known, column.scores[codes], 0.0))
    if not column.is_ordered or n_codes <= _FEW_CODES:
        frequent = np.sort(np.argsort(-column.shares, kind="stable")[:_FEW_CODES])
        parts.extend(frequent[:, None] == codes[:, None].T)
        if n_codes > _FEW_CODES:
            parts.append(known & ~np.isin(codes, frequent))
    else:
        phase = np.pi * np.where(known, ranks[codes], np.nan) * 2.0 ** np.arange(_OCTAVES)[:, None]
        parts.extend(np.nan_to_num(wave) for wave in (*np.sin(phase), *np.cos(phase)))
        parts.extend(codes == code for code in np.flatnonzero(np.isnan(ranks)))
    return np.column_stack(parts)
