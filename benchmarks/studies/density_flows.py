"""Trained peers of the density benchmark: zuko's flows (spline, autoregressive, continuous) and plain flow matching.

A flow of zuko is fitted by maximum likelihood: Adam at 3e-3 (1e-3 below 2,000 rows, 5e-3 for the continuous flow) with
warm-up and a cosine to zero over its time, gradients clipped, weight decay, stopped when the validation likelihood
stalls, its best weights restored. These settings did best on validation rows of three sets in short fits. Scaled and
whitened columns race with 15 % of the budget each, and the better on validation goes on. If it stops early, what is
left of the budget goes to fits from other settings (noise on the inputs, a smaller network, more decay), and the best
on validation is kept. Training is in float32, log-densities are in float64.

Flow matching is the usual short loop: uniform t, a straight path, an MLP with t as one more input, the last weights.
"""

import copy
import itertools
import time

import numpy as np
import torch
import zuko
from torch import nn
from torchdiffeq import odeint

RACE, WARM_UP, LEAST_STEPS, VALIDATION_SHARE, SMALL = 0.15, 20, 20, 0.1, 2000
VARIANTS = (
    {"noise": 0.1},
    {"noise": 0.03},
    {"noise": 0.2},
    {"weight_decay": 1e-2, "shrink": 2},
    {"noise": 0.1, "shrink": 2},
    {"noise": 0.1, "weight_decay": 1e-2, "rate_factor": 0.3},
)


class Affine:
    """x -> (x - mean) @ matrix, and the log of its volume."""

    def __init__(self, mean, matrix):
        self.mean, self.matrix = mean, matrix
        self.log_det = np.linalg.slogdet(matrix)[1]

    def __call__(self, X):
        return (X - self.mean) @ self.matrix


def identity(train):
    """The columns as they are."""
    return Affine(np.zeros(train.shape[1]), np.eye(train.shape[1]))


def whitening(train):
    """Principal components of unit variance."""
    values, vectors = np.linalg.eigh(np.cov(train.T))
    return Affine(train.mean(0), vectors / np.sqrt(np.maximum(values, 1e-8)))


def float32(X):
    """A tensor in single precision."""
    return torch.as_tensor(X, dtype=torch.float32)


class Fit:
    """A flow that is trained a while at a time; the weights of the best validation likelihood are kept."""

    def __init__(
        self, build, affine, train, valid, *, horizon, noise=0.0, weight_decay=1e-5, rate_factor=1.0, shrink=1
    ):
        self.affine, self.horizon, self.noise = affine, horizon, noise
        self.train, self.valid = float32(affine(train)), float32(affine(valid[:1000]))
        small = len(train) < SMALL
        self.flow = build(train.shape[1], (64 if small else 128) // shrink)
        self.rate = rate_factor * (5e-3 if continuous(self.flow) else 1e-3 if small else 3e-3)
        self.batch = int(np.clip(len(train) // 10, 32, 256))
        self.optimizer = torch.optim.Adam(self.flow.parameters(), lr=self.rate, weight_decay=weight_decay)
        self.score, self.best_step, self.weights = -np.inf, 0, copy.deepcopy(self.flow.state_dict())
        self.steps, self.used, self.checking, self.stale = 0, 0.0, 0.0, False

    def run(self, seconds):
        """Train for so many seconds, validation included, or until the score is stale; return self."""
        began, before = time.perf_counter(), self.used
        checked_at, checked = began, self.steps
        while not self.stale and self.used + self.checking < before + seconds:
            self._step()
            now = time.perf_counter()
            if self.steps - checked >= LEAST_STEPS and (now - checked_at) * VALIDATION_SHARE >= self.checking:
                self._check()
                checked_at, checked = time.perf_counter(), self.steps
            self.used = before + time.perf_counter() - began
        if self.steps > checked:
            self._check()
            self.used = before + time.perf_counter() - began
        return self

    def _step(self):
        """One step of Adam; a loss or gradient that is not finite is skipped."""
        cosine = 0.5 + 0.5 * np.cos(np.pi * min(self.used / self.horizon, 1.0))
        self.optimizer.param_groups[0]["lr"] = self.rate * cosine * min(1.0, (self.steps + 1) / WARM_UP)
        self.steps += 1
        x = self.train[torch.randint(len(self.train), (self.batch,))]
        if self.noise:
            x = x + self.noise * torch.randn_like(x)
        self.flow.train()
        loss = -self.flow().log_prob(x).mean()
        self.optimizer.zero_grad()
        loss.backward()
        if torch.isfinite(nn.utils.clip_grad_norm_(self.flow.parameters(), 5.0)):
            self.optimizer.step()

    @torch.no_grad()
    def _check(self):
        """Score the validation rows; keep the weights if they are the best so far."""
        began = time.perf_counter()
        with ExactTrace(self.flow.eval()) as flow:
            score = float(flow().log_prob(self.valid).mean()) + self.affine.log_det
        self.checking = time.perf_counter() - began
        if score > self.score:
            self.score, self.best_step, self.weights = score, self.steps, copy.deepcopy(self.flow.state_dict())
        self.stale = self.steps - self.best_step > 500 + self.best_step // 2

    def log_density(self):
        """The function X -> log-densities by the best weights, in float64."""
        flow, affine = self.flow, self.affine
        flow.load_state_dict(self.weights)
        flow.double().eval()

        @torch.no_grad()
        def log_density(X, chunk=250):
            parts = torch.as_tensor(affine(X)).split(chunk)
            with ExactTrace(flow, tol=1e-7):
                return np.concatenate([flow().log_prob(x).numpy() for x in parts]) + affine.log_det

        return log_density


def continuous(flow):
    """Whether the flow is an ODE."""
    return isinstance(flow, zuko.flows.CNF)


class ExactTrace:
    """Within it a continuous flow evaluates its trace exactly, at tolerance `tol` if given; others are unchanged."""

    def __init__(self, flow, tol=None):
        self.flow, self.tol = flow, tol
        self.transform = flow.transform if continuous(flow) else None

    def __enter__(self):
        if self.transform is not None:
            t = self.transform
            self.saved = t.exact, t.atol, t.rtol
            t.exact = True
            t.atol, t.rtol = (t.atol, t.rtol) if self.tol is None else (self.tol, self.tol)
        return self.flow

    def __exit__(self, *_):
        if self.transform is not None:
            self.transform.exact, self.transform.atol, self.transform.rtol = self.saved


def best_fit(build, train, valid, budget, seed):
    """The race, the winner's training, and other settings in the time that is left; log-density and a note."""
    began = time.perf_counter()
    torch.manual_seed(seed)

    def left():
        return began + budget - time.perf_counter()

    racers = {
        name: Fit(build, make(train), train, valid, horizon=(1 - RACE) * budget)
        for name, make in (("scaled", identity), ("whitened", whitening))
    }
    for fit in racers.values():
        fit.run(min(RACE * budget, left()))
    name = max(racers, key=lambda name: racers[name].score)
    winner = racers[name].run(left())
    chosen, tried = "", 0
    while left() > 0.1 * budget:
        settings = VARIANTS[tried % len(VARIANTS)]
        tried += 1
        fit = Fit(build, winner.affine, train, valid, horizon=0.5 * left(), **settings).run(left())
        if fit.score > winner.score:
            winner, chosen = fit, f", {settings}"
    note = f"{name}, {winner.steps} steps, best at {winner.best_step}{chosen}; {tried} more settings tried"
    return winner.log_density(), note


def spline_flow(train, valid, budget, seed):
    """zuko's neural spline flow, autoregressive."""

    def build(d, width):
        return zuko.flows.NSF(d, transforms=3, bins=8, hidden_features=(width, width))

    return best_fit(build, train, valid, budget, seed)


def autoregressive_flow(train, valid, budget, seed):
    """zuko's masked autoregressive flow."""

    def build(d, width):
        return zuko.flows.MAF(d, transforms=5, hidden_features=(width, width))

    return best_fit(build, train, valid, budget, seed)


def continuous_flow(train, valid, budget, seed):
    """zuko's continuous flow by maximum likelihood: a narrow net and Hutchinson's trace in training, for speed."""

    def build(d, width):
        layers = {"hidden_features": (min(width, 64),) * 3, "activation": nn.SiLU}
        return zuko.flows.CNF(d, **layers, atol=1e-3, rtol=1e-3, exact=False)

    return best_fit(build, train, valid, budget, seed)


class Velocity(nn.Module):
    """An MLP of (x, t)."""

    def __init__(self, d, width=128):
        super().__init__()
        sizes = [d + 1, width, width, width]
        layers = [layer for i, o in itertools.pairwise(sizes) for layer in (nn.Linear(i, o), nn.SELU())]
        self.layers = nn.Sequential(*layers, nn.Linear(width, d))

    def forward(self, t, x):
        return self.layers(torch.cat([x, t.expand(len(x), 1)], 1))


def flow_matching(train, valid, budget, seed):
    """The plain loop until the time is up; validation rows are not used."""
    began = time.perf_counter()
    torch.manual_seed(seed)
    x, velocity, steps = float32(train), Velocity(train.shape[1]), 0
    optimizer = torch.optim.AdamW(velocity.parameters(), lr=1e-3)
    while time.perf_counter() - began < budget:
        x1 = x[torch.randint(len(x), (512,))]
        x0, t = torch.randn_like(x1), torch.rand(512, 1)
        loss = (velocity(t, (1 - t) * x0 + t * x1) - (x1 - x0)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps += 1
    velocity.double().requires_grad_(False)
    return lambda X, tol=1e-5: ode_log_density(velocity, X, tol), f"{steps} steps"


def velocity_and_trace(velocity, t, x):
    """Velocity, and its divergence by autograd, a column at a time."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = velocity(t, x)
        columns = value.sum(0)
    rows = [torch.autograd.grad(columns[i], x, retain_graph=True)[0][:, i] for i in range(x.shape[1])]
    return value.detach(), torch.stack(rows).sum(0)


def ode_log_density(velocity, X, tol, chunk=500):
    """Log-density of a flow from N(0, I) at t = 0 to the data at t = 1, by dopri5."""
    times, parts = torch.tensor([1.0, 0.0], dtype=torch.float64), []
    for x in torch.as_tensor(X, dtype=torch.float64).split(chunk):
        start = (x, torch.zeros_like(x[:, 0]))
        x0, integral = odeint(lambda t, y: velocity_and_trace(velocity, t, y[0]), start, times, rtol=tol, atol=tol)
        normal = -0.5 * (x0[-1].square() + np.log(2 * np.pi)).sum(1)
        parts.append((normal + integral[-1]).numpy())
    return np.concatenate(parts)
