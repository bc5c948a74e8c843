"""No tensor of an inner loop is made on the CPU by mistake, and none is read there: torch's meta device sees both.

A tensor of the meta device has no numbers. An operation with one of the CPU raises, and so does reading it: what runs
on the meta device runs on a GPU without a copy or a wait for the host.
"""

import contextlib
import copy
import functools

import numpy as np
import pytest
import torch

from sklearn_si import InterpolantDiffusion, InterpolantFlow, MultimarginalFlow, SchroedingerBridge
from sklearn_si._model.fields import Fields
from sklearn_si._training.batches import Batches, Sampler
from sklearn_si._training.multimarginal import SimplexBatches
from sklearn_si._training.optimizer import AdamWithEMA
from sklearn_si._training.paired_pools import PairedPools
from sklearn_si.couplings import independent
from sklearn_si.solvers import odeint, sdeint, time_grid
from sklearn_si.tables import TableSynthesizer
from sklearn_si.tables._masked import MaskedLoss, _Passes

META = torch.device("meta")
RNG = np.random.default_rng(0)
X0, X1 = RNG.normal(size=(60, 2)), 1.0 + RNG.normal(size=(60, 2))
LABELS = np.array(["a", "b"] * 30)
TINY = {"max_iter": 2, "hidden_layer_sizes": (4, 4), "preprocessing": "standardize", "base_density": None,
        "random_state": 0}  # fmt: skip
FITS = {
    "one sample": lambda: InterpolantFlow(**TINY, condition_dropout=0.2).fit(X0, condition=LABELS),
    "two samples": lambda: InterpolantDiffusion("trigonometric", **TINY).fit(X0, X1),
    "velocity and score": lambda: InterpolantDiffusion(**TINY, fields="b+s").fit(X0, X1),
    "forecast": lambda: InterpolantDiffusion(start="condition", **TINY).fit(X0, X1),
    "learned": lambda: InterpolantFlow("learned", **TINY).fit(X0, X1),
    "bridge": lambda: SchroedingerBridge(0.5, "network", n_rounds=0, n_components=2, **TINY).fit(X0, X1),
}  # fmt: skip


class OnMeta(torch.Generator):
    """A generator that says that it is of the meta device, where nothing is drawn."""

    device = META


@functools.cache
def fitted(name):
    return FITS[name]().model_


def generator():
    return OnMeta().manual_seed(0)


def rows(n=12, d=2):
    return torch.empty((n, d), device=META)


def moved(networks):
    return torch.nn.ModuleDict(copy.deepcopy(dict(networks))).to(META)


def codes_of(model, n):
    return None if model.condition_codec is None else rows(n, model.condition_codec.n_outputs_)


@pytest.mark.parametrize("name", FITS)
def test_a_training_step_stays_on_its_device(name):
    model = fitted(name)
    networks, path = moved(model.learned), copy.deepcopy(model.interpolant)
    for part in vars(path).values():
        if isinstance(part, torch.nn.Module):
            part.to(META)
    networks.requires_grad_(True)
    x0 = None if model.base_sample is None else rows(60)
    sampler = Sampler(x0, rows(60), codes_of(model, 60), independent, path.has_noise)
    batches, optimizer = Batches(networks, path, "uniform", sampler, 16, generator()), AdamWithEMA(networks)
    for _ in range(2):
        loss = batches.loss()
        if loss.requires_grad:
            loss.backward()
        optimizer.step(0.01)
        assert loss.device == META
    assert optimizer.flat.device == optimizer.ema.device == META


@pytest.mark.parametrize("name", ["one sample", "two samples", "bridge"])
def test_steps_of_an_ode_and_of_an_sde_stay_on_their_device(name):
    model, times = fitted(name), time_grid(2, "uniform").to(rows())
    parts = [None if part is None else copy.deepcopy(part).to(META) for part in (model.velocity, model.denoiser)]
    fields = Fields(model.interpolant, *parts, codes_of(model, 12))
    with torch.no_grad():
        assert odeint(fields.velocity, rows(), times, "rk4").device == META
        # what is known ahead is looked up without asking the device for the time
        grid = time_grid(2, "uniform").float()
        drift, epsilon = fields.sde(0.5, "constant", grid)
        assert odeint(fields.velocity_along(grid, "rk4"), rows(), grid, "rk4").device == META
        assert sdeint(drift, epsilon, rows(), grid, generator()).device == META
        value, divergence = fields.velocity_and_divergence(times[0], rows())
        assert value.device == divergence.device == META


def test_a_training_step_of_many_samples_stays_on_its_device():
    model = (
        MultimarginalFlow(max_iter=2, hidden_layer_sizes=(4,), base_density=None)
        .fit([X0, X1, X0 + X1], [0, 1, 3])
        .model_
    )
    velocity = copy.deepcopy(model.velocity).to(META)
    velocity.network.requires_grad_(True)
    pools = PairedPools([rows(60) for _ in range(3)], model.times, "independent", generator())
    networks = torch.nn.ModuleDict({"velocity": velocity.network})
    batches, optimizer = SimplexBatches(velocity, pools, model.times, 16, generator()), AdamWithEMA(networks)
    assert batches.loss().device == META
    optimizer.step(0.01)


def test_a_training_step_of_a_table_stays_on_its_device(monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *args, **params: contextlib.nullcontext())  # which has no such device
    table = np.column_stack([RNG.choice(["u", "v"], 60), RNG.integers(3, size=60)]).astype(object)
    model = TableSynthesizer(hidden_layer_sizes=(4, 1), max_iter=2, random_state=0).fit(table)
    network = copy.deepcopy(model.masked_network_).to(META)
    codes, values = torch.zeros((60, 2), dtype=torch.long, device=META), rows(60, 0)
    network.requires_grad_(True).train()
    optimizer = AdamWithEMA(torch.nn.ModuleDict({"masked": network}))
    passes = _Passes(torch.zeros(60, dtype=torch.long, device=META), 16, generator())
    loss, _ = MaskedLoss(network, codes, values, []).at(passes.next(), generator())
    loss.backward()
    optimizer.step(0.01)
    assert loss.device == META


def test_a_tensor_of_the_cpu_is_seen():
    with pytest.raises(RuntimeError, match="device"):
        rows(3, 1) + torch.arange(3.0)
    with pytest.raises(RuntimeError, match="meta"):
        float(rows().sum())
