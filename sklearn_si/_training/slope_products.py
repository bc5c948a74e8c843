"""The divergence of a perceptron as a sum of few products of its slopes."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

# Sweeps of alternating least squares.
_SWEEPS = 40
# Entries of a tensor beyond which there is no decomposition: 256 units in each of three layers.
_MOST_ENTRIES = 257**3
# Ridge of the least squares of a factor, and the smallest root of a second moment that counts, relative to the largest.
_RIDGE = 1e-6
_LEAST_ROOT = 1e-4


def divergence_tensor(weights: Sequence[Tensor], output: Tensor) -> Tensor | None:
    """The tensor of a divergence, which is linear in the slopes of each hidden layer.

    div F = sum_{k..i} T_{k..i} s_1k .. s_Li,    T_kji = (W_1 W_o)_ki (W_2)_jk (W_3)_ij

    Parameters
    ----------
    weights : sequence of Tensor
        Those of the hidden layers.
    output : Tensor of shape (d, m)
        Those of the output.

    Returns
    -------
    Tensor or None
        None but for two and three hidden layers of moderate width.
    """
    if not 2 <= len(weights) <= 3 or math.prod(len(w) + 1 for w in weights) > _MOST_ENTRIES:
        return None
    ends = weights[0] @ output
    if len(weights) == 2:
        return ends * weights[1].T
    return ends[:, None] * weights[1].T[:, :, None] * weights[2].T


def slope_products(
    tensor: Tensor, slopes: Sequence[Tensor], rank: int, generator: torch.Generator
) -> list[tuple[Tensor, Tensor]]:
    """Affine functions of the slopes of each layer, the sum of whose products is near to a form of all of them.

    sum_{k..i} T_{k..i} s_1k .. s_Li  ~  sum_r prod_l (P_l s_l + p_l)_r

    It is a canonical decomposition by alternating least squares (Kolda and Bader 2009, SIAM Review 51, section 3.4), of
    the tensor in coordinates in which the slopes of a layer and a constant have second moments of 1: the sum is then
    near in mean square for slopes like those of the rows, as far as the layers vary apart from each other.

    Parameters
    ----------
    tensor : Tensor of shape (m_1, ..., m_L)
    slopes : sequence of Tensor of shape (n, m_l)
        Of some rows.
    rank : int
        Number of products.
    generator : torch.Generator
        Of the start.

    Returns
    -------
    list of tuple of (Tensor of shape (rank, m_l), Tensor of shape (rank,))
        P and p of each layer, so that the factors of a product have the same size.
    """
    whole, backs = torch.nn.functional.pad(tensor, (0, 1) * tensor.dim()), []
    for s in slopes:
        rows = torch.cat([s, torch.ones_like(s[:, :1])], 1).double()
        moments, axes = torch.linalg.eigh(rows.T @ rows / len(rows))
        roots = moments.clamp(min=0).sqrt()
        whole = torch.tensordot(whole, (axes * roots).to(whole), ([0], [0]))  # the axes come round in their order
        backs.append((axes / roots.clamp(min=_LEAST_ROOT * float(roots.max()))).to(whole))
    factors = [back @ factor for back, factor in zip(backs, canonical_factors(whole, rank, generator), strict=True)]
    return [(factor[:-1].T, factor[-1]) for factor in factors]


def canonical_factors(tensor: Tensor, rank: int, generator: torch.Generator) -> list[Tensor]:
    """Matrices of shape (m_l, rank) with T_{k..i} ~ sum_r A_kr .. C_ir, by alternating least squares."""
    unfolded = [tensor.movedim(axis, 0).flatten(1) for axis in range(tensor.dim())]
    factors = [
        (torch.randn((m, rank), generator=generator, dtype=tensor.dtype) / math.sqrt(m)).to(tensor.device)
        for m in tensor.shape
    ]
    for _ in range(_SWEEPS):
        for axis, matrix in enumerate(unfolded):
            others = [f for k, f in enumerate(factors) if k != axis]
            gram = math.prod((f.T @ f for f in others[1:]), start=others[0].T @ others[0]).double()
            gram += _RIDGE * gram.diagonal().mean() * torch.eye(rank, dtype=gram.dtype, device=gram.device)
            products = matrix @ _columnwise(others)
            factors[axis] = torch.linalg.solve(gram, products.T.double()).T.to(tensor.dtype)
        factors = _of_one_size(factors)
    return factors


def _columnwise(factors: Sequence[Tensor]) -> Tensor:
    """The products of all rows of the factors, column by column, of shape (m_1 .. m_L, rank)."""
    product = factors[0]
    for f in factors[1:]:
        product = (product[:, None] * f).flatten(0, 1)
    return product


def _of_one_size(factors: Sequence[Tensor]) -> list[Tensor]:
    """The same products of factors whose columns have the same norms."""
    norms = torch.stack([f.norm(dim=0) for f in factors]).clamp(min=torch.finfo(factors[0].dtype).tiny)
    size = norms.log().mean(0).exp()
    return [f * (size / norm) for f, norm in zip(factors, norms, strict=True)]
