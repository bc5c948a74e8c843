"""Adam in the eigenbases of the gradients' second moments, for regressions without noise."""

from typing import Any

import torch
from torch import Tensor, nn

from ..distributed import Single
from .optimizer import LARGEST_NORM, AdamWithEMA

# Decay of both moments and of the second moments of the gradients' rows and columns.
_BETA = 0.95
# Steps from one correction of the bases to the next, and from one look at the second moments to the next.
_STEPS_BETWEEN = 10
_LOOKS_BETWEEN = 2
# Largest side of a matrix that is given a basis.
_LARGEST_SIDE = 512
# Added to the root of the second moments, and to the diagonals of the first matrices.
_EPSILON = 1e-8


class SoapWithEMA(AdamWithEMA):
    """SOAP: steps of Adam in the eigenbases of Shampoo (Vyas et al. 2024, arXiv 2409.11321, algorithm 3).

    W <- W - rate U (M / sqrt(V)) R^T,    U, R the eigenvectors of E[G G^T] and E[G^T G]

    with M the mean of the rotated gradient U^T G R and V that of its square. It needs less than half of the steps of
    Adam where the loss could be brought to zero; each costs half as much again for networks of 128 units.

    Parameters
    ----------
    networks, group
        As in `AdamWithEMA`.
    """

    def __init__(self, networks: nn.Module, group: Single = Single()) -> None:  # noqa: B008 (it has no state)
        super().__init__(networks, group)
        by_shape: dict[tuple[int, ...], list[nn.Parameter]] = {}
        for p in self.parameters:
            by_shape.setdefault(tuple(p.shape) if p.dim() == 2 else (p.numel(), 1), []).append(p)
        self._groups = [_Group(shape, parameters) for shape, parameters in by_shape.items()]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One step along the clipped gradient, which starts again from zero."""
        self.steps += 1
        gradient = self.group.average(self.gradient)
        norm = torch.dot(gradient, gradient).sqrt_()
        gradient.mul_((LARGEST_NORM / (norm + 1e-6)).clamp_(max=1.0))
        for group in self._groups:
            group.step(rate, self.steps)
        self._update_ema()
        gradient.zero_()

    def restart(self) -> bool:
        """The same as that of Adam, with new bases."""
        for group in self._groups:
            group.is_begun = False
        return super().restart()

    def state(self, ended: bool) -> dict[str, Any]:
        """What a training that has ended leaves: one that goes on cannot be saved."""
        if not ended:
            raise NotImplementedError("A training by SOAP has no checkpoints.")
        return super().state(ended)


class _Group:
    """Parameters of one shape, whose products are taken together."""

    def __init__(self, shape: tuple[int, ...], parameters: list[nn.Parameter]) -> None:
        self.shape, self.parameters = shape, parameters
        self.is_begun = False
        # a vector keeps the coordinates that it has
        self.has_basis = [1 < side <= _LARGEST_SIDE and min(shape) > 1 for side in shape]
        self.moments: list[Tensor] = []  # of the rows and of the columns, where these have a basis
        self.bases: list[Tensor] = []
        self.mean = self.square = torch.empty(0)

    def step(self, rate: float, number: int) -> None:
        """One step along the gradients; the bases are corrected after some of them."""
        gradient = torch.stack([p.grad.view(self.shape) for p in self.parameters])  # type: ignore[union-attr]
        if not self.is_begun:
            self.moments = self._products(gradient)
            self.bases = [_eigenvectors(moment) for moment in self.moments]
            self.mean, self.square = torch.zeros_like(gradient), torch.zeros_like(gradient)
            self.is_begun = True
        rotated = self._rotated(gradient)
        self.mean.lerp_(rotated, 1 - _BETA)
        self.square.mul_(_BETA).addcmul_(rotated, rotated, value=1 - _BETA)
        correction = 1 - _BETA**number
        step = self.mean / (self.square / correction).sqrt_().add_(_EPSILON) / correction
        for p, own in zip(self.parameters, self._rotated(step, back=True), strict=True):
            p.sub_(own.view(p.shape), alpha=rate)
        if number % _LOOKS_BETWEEN == 0:
            for moment, product in zip(self.moments, self._products(gradient), strict=True):
                moment.lerp_(product, 1 - _BETA**_LOOKS_BETWEEN)
        if number % _STEPS_BETWEEN == 0:
            self._correct_bases()

    def _products(self, gradient: Tensor) -> list[Tensor]:
        """G G^T and G^T G, of the sides that have a basis."""
        return [g @ g.mT for g, has in zip((gradient, gradient.mT), self.has_basis, strict=True) if has]

    def _correct_bases(self) -> None:
        """A step of the power method for the bases; the mean, which is kept in them, turns with them."""
        mean = self._rotated(self.mean, back=True)
        self.bases = [torch.linalg.qr(m @ q)[0] for m, q in zip(self.moments, self.bases, strict=True)]
        self.mean = self._rotated(mean)

    def _rotated(self, values: Tensor, back: bool = False) -> Tensor:
        """Values in the bases, or back from there."""
        bases = iter(self.bases)
        if self.has_basis[0]:
            basis = next(bases)
            values = (basis if back else basis.mT) @ values
        if self.has_basis[1]:
            basis = next(bases)
            values = values @ (basis.mT if back else basis)
        return values


def _eigenvectors(matrices: Tensor) -> Tensor:
    """Those of symmetric matrices, which may be zero; the largest first, which the corrections keep."""
    scale = matrices.diagonal(dim1=1, dim2=2).mean(1)[:, None, None].clamp(min=torch.finfo(matrices.dtype).tiny)
    ridge = _EPSILON * torch.eye(matrices.shape[1], dtype=matrices.dtype, device=matrices.device)
    return torch.linalg.eigh(matrices / scale + ridge).eigenvectors.flip(2)
