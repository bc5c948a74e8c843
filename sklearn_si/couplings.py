"""Couplings: how rows of the base and rows of the target are paired in training."""

__all__ = ["COUPLINGS", "independent", "paired"]


def independent(x0, x1, condition, generator):
    """Pair rows at random: the product measure rho0 x rho1.

    The batches are drawn independently, so nothing is left to do.
    """
    return x0, x1, condition


def paired(x0, x1, condition, generator):
    """Pair row i of the base with row i of the target: the law of the given pairs."""
    return x0, x1, condition


# The training loop draws the same row numbers from both samples for this coupling.
paired.row_by_row = True

COUPLINGS = {"independent": independent, "paired": paired}
