"""Adam in the eigenbases of the gradients."""

import pytest
import torch
from torch import nn

from sklearn_si._training.optimizer import AdamWithEMA
from sklearn_si._training.soap import SoapWithEMA


def normals(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def module(*values):
    return nn.ParameterList([nn.Parameter(value.clone()) for value in values])


# an ill-conditioned regression of a matrix: |A W B - C|^2 / 2 has its minimum 0 where W = W*
LEFT = normals(5, 5, seed=1) @ torch.diag(torch.logspace(0, -2, 5, dtype=torch.float64))
RIGHT = torch.diag(torch.logspace(0, -1, 4, dtype=torch.float64)) @ normals(4, 4, seed=2)
SOLUTION = normals(5, 4, seed=3)


def descend(kind, start, turn=None, steps=300):
    """Losses and weights of a descent; of weights that were turned, in turned coordinates."""
    turn = torch.eye(5, dtype=torch.float64) if turn is None else turn
    network = module(turn @ start, torch.zeros(3))
    optimizer, losses = kind(nn.ModuleList([network]).double()), []
    for k in range(steps):
        loss = (LEFT @ (turn.T @ network[0] - SOLUTION) @ RIGHT).square().sum() / 2 + (network[1] - 1).square().sum()
        loss.backward()
        losses.append(float(loss.detach()))
        optimizer.step(0.05 * (1 - k / steps))
    return losses, turn.T @ network[0].detach(), network[1].detach()


def test_a_descent_is_the_same_in_every_frame():
    """Of Adam it is not: this one adapts its steps to directions, and not to coordinates."""
    turn = torch.linalg.qr(normals(5, 5, seed=4))[0]
    start = normals(5, 4, seed=5)
    plain, turned = (descend(SoapWithEMA, start, t, steps=40) for t in (None, turn))
    torch.testing.assert_close(plain[1], turned[1], rtol=0, atol=1e-4)
    adam, other = (descend(AdamWithEMA, start, t, steps=40) for t in (None, turn))
    assert (adam[1] - other[1]).abs().max() > 1e-2


def test_it_comes_nearer_to_a_minimum_than_adam():
    losses = {kind: descend(kind, normals(5, 4, seed=5))[0][-1] for kind in (SoapWithEMA, AdamWithEMA)}
    assert losses[SoapWithEMA] < 0.2 * losses[AdamWithEMA]


def test_vectors_are_stepped_as_by_adam_with_these_decays():
    ours, theirs = module(torch.zeros(3)).double(), module(torch.zeros(3)).double()
    optimizer, reference = SoapWithEMA(ours), torch.optim.Adam(theirs, lr=0.01, betas=(0.95, 0.95))
    for k in range(25):
        gradient = 0.1 * normals(3, seed=k)
        ours[0].grad.copy_(gradient)
        theirs[0].grad = gradient
        optimizer.step(0.01)
        reference.step()
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-6, atol=1e-9)


def test_parameters_without_a_gradient_stay_where_they_are():
    network = module(normals(4, 3), torch.ones(2))
    optimizer = SoapWithEMA(network.double())
    for _ in range(12):
        network[1].grad.copy_(torch.ones(2))
        optimizer.step(0.01)
    torch.testing.assert_close(network[0].detach(), normals(4, 3), rtol=0, atol=1e-9)
    assert torch.isfinite(optimizer.flat).all()


def test_a_restart_forgets_the_bases():
    network = module(normals(4, 3)).double()
    optimizer = SoapWithEMA(network)
    optimizer.is_finite()
    start = network[0].detach().clone()
    steps = []
    for _ in range(2):
        for k in range(12):
            network[0].grad.copy_(normals(4, 3, seed=k))
            optimizer.step(0.01)
        steps.append(network[0].detach().clone())
        assert optimizer.restart()
        assert torch.equal(network[0], start)
    assert torch.equal(*steps)


def test_a_training_cannot_be_saved_halfway():
    with pytest.raises(NotImplementedError, match="has no checkpoints"):
        SoapWithEMA(module(torch.ones(2))).state(ended=False)
