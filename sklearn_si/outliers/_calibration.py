"""P-values and thresholds from the scores of rows that a density has not seen."""

import numpy as np

from .._utils.names import registered

# Relative difference of p-values that is rounding.
_ROUNDING = 1e-9


@registered("outliers.Calibration")
class Calibration:
    """The scores of rows that neither train nor validate, and of all rows of a fit.

    Parameters
    ----------
    held_out, of_fit : ndarray of shape (m,) and (n,)
        Scores.
    held_out_weight, fit_weight : ndarray or None
        Their weights, of mean one; None where all weigh the same.
    """

    def __init__(self, held_out, of_fit, held_out_weight, fit_weight):
        self.held_out, self.held_out_weight = _in_order(held_out, held_out_weight)
        self.of_fit, self.fit_weight = _in_order(of_fit, fit_weight)

    def p_values(self, scores, weight=None):
        """Shares of the calibration rows with scores as low, the row itself among them.

        p(x) = (w(x) + sum_i w_i 1[s_i <= s(x)]) / (w(x) + sum_i w_i)

        Parameters
        ----------
        scores : ndarray of shape (n,)
        weight : ndarray of shape (n,) or None
            w(x), in units of the mean weight of fit; None is one.
        """
        own = 1.0 if weight is None else weight
        reached = np.concatenate([[0.0], np.cumsum(self._weights())])
        below = reached[np.searchsorted(self.held_out, scores, side="right")]
        return (own + below) / (own + reached[-1])

    def _weights(self):
        return np.ones(len(self.held_out)) if self.held_out_weight is None else self.held_out_weight

    @property
    def lowest(self):
        """The lowest p-value that a new row of mean weight can have: the share of usual rows below all of these."""
        return float(1 / (1 + self._weights().sum()))

    def threshold(self, level):
        """The score below which p-values are at most `level`, or as low as they get.

        It is just above that of a calibration row, which thereby counts as an outlier itself.
        """
        reached = np.cumsum(self._weights())
        # p-values of new rows with scores between that of a row and that of the one before
        p_values = (1.0 + reached - self._weights()) / (1.0 + reached[-1])
        last = max(0, np.searchsorted(p_values, level * (1 + _ROUNDING), side="right") - 1)
        return float(np.nextafter(self.held_out[last], np.inf))

    def quantile(self, share):
        """The score below which a share of the rows of fit lies."""
        if self.fit_weight is None:
            return float(np.quantile(self.of_fit, share))
        reached = np.cumsum(self.fit_weight) - self.fit_weight / 2
        return float(np.interp(share, reached / self.fit_weight.sum(), self.of_fit))


def _in_order(scores, weight):
    order = np.argsort(scores, kind="stable")
    return scores[order], None if weight is None else weight[order]
