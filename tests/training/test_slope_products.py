"""The divergence of a perceptron as products of its slopes."""

import pytest
import torch

from sklearn_si._training.slope_products import canonical_factors, divergence_tensor, slope_products


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normals(*shape, seed=0):
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def perceptron(widths, d=3):
    sizes = [d, *widths]
    weights = [normals(m, n, seed=m) / n**0.5 for n, m in zip(sizes, widths, strict=False)]
    return weights, normals(d, widths[-1], seed=99)


def value_and_slopes(weights, output, x):
    h, slopes = x, []
    for w in weights:
        a = h @ w.T
        h = torch.tanh(a)
        slopes.append(1 - h**2)
    return h @ output.T, slopes


def divergence(weights, output, x):
    """By automatic differentiation."""
    field = lambda row: value_and_slopes(weights, output, row[None])[0][0]  # noqa: E731
    return torch.stack([torch.autograd.functional.jacobian(field, row).trace() for row in x])


@pytest.mark.parametrize("widths", [(5, 4), (4, 6, 5)])
def test_the_tensor_is_that_of_the_divergence(widths):
    weights, output = perceptron(widths)
    x = normals(7, 3, seed=5)
    form = divergence_tensor(weights, output)
    slopes = value_and_slopes(weights, output, x)[1]
    kinds = {2: "ki,nk,ni->n", 3: "kji,nk,nj,ni->n"}
    torch.testing.assert_close(torch.einsum(kinds[len(widths)], form, *slopes), divergence(weights, output, x))


@pytest.mark.parametrize("widths", [(5,), (4, 4, 4, 4), (300, 300, 300)])
def test_other_perceptrons_have_none(widths):
    assert divergence_tensor(*perceptron(widths)) is None


def test_a_tensor_of_low_rank_is_found():
    factors = [normals(m, 2, seed=m) for m in (6, 5, 4)]
    tensor = torch.einsum("ir,jr,kr->ijk", *factors)
    found = canonical_factors(tensor, 2, generator())
    torch.testing.assert_close(torch.einsum("ir,jr,kr->ijk", *found), tensor, rtol=0, atol=1e-4)
    norms = torch.stack([f.norm(dim=0) for f in found])
    torch.testing.assert_close(norms, norms[:1].expand_as(norms))


@pytest.mark.parametrize("widths", [(24, 24), (12, 12, 12)])
def test_few_products_are_near_to_the_divergence(widths):
    """Of rows that the decomposition has not seen, within a fifth of what varies."""
    weights, output = perceptron(widths)
    seen, x = 0.7 * normals(2000, 3, seed=1), 0.7 * normals(200, 3, seed=2)
    slopes = value_and_slopes(weights, output, seen)[1]
    parts = slope_products(divergence_tensor(weights, output), slopes, 10, generator())
    total = 1.0
    for (factor, shift), s in zip(parts, value_and_slopes(weights, output, x)[1], strict=True):
        total = total * (s @ factor.T + shift)
    exact = divergence(weights, output, x)
    assert (total.sum(1) - exact).std() < 0.2 * exact.std()
