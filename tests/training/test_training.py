"""The training loop: distributions of time, losses at the exact field, batches, averages, the weights that are kept."""

import math
import threading

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import logit
from torch import nn

from sklearn_si import InterpolantFlow
from sklearn_si._training import batches as _batches
from sklearn_si._training.batches import Batches, Sampler, _antithetic, draw_points
from sklearn_si._training.losses import _T_MARGIN, REGRESSIONS, TIME_DISTRIBUTIONS, draw_times, field_loss
from sklearn_si._training.optimizer import AdamWithEMA
from sklearn_si.couplings import COUPLINGS, Coupling, Entropic, Optimal, independent, paired
from sklearn_si.interpolants import (
    INTERPOLANTS,
    GaussianBase,
    Linear,
    Trigonometric,
    VariancePreserving,
    make_interpolant,
)
from sklearn_si.networks import FiLMNetwork, PreconditionedField
from sklearn_si.networks._divergence import Field


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normals(*shape, seed=0):
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


# ------------------------------------------------------------------------------ distributions of time

CDFS = {
    "uniform": stats.uniform.cdf,
    "logit-normal": lambda t: stats.norm.cdf(logit(t) / 2),
    "data-end": lambda t: stats.norm.cdf((logit(t) - 1) / 2),
    "arcsine": stats.arcsine.cdf,
    "beta": stats.beta(1, 0.5).cdf,
}


@pytest.mark.parametrize("n", [1, 2, 64, 400])
@pytest.mark.parametrize("distribution", TIME_DISTRIBUTIONS)
def test_one_time_in_each_part_of_the_mass(distribution, n):
    t = draw_times(distribution, n, generator(), "cpu")
    assert t.shape == (n,) and t.dtype == torch.float32
    strata = n * CDFS[distribution](t.double().numpy())
    inside = t < 1 - 1.5 * _T_MARGIN  # the last times of a distribution crowded at t = 1 are held back
    strata = np.where(inside, strata, np.arange(n) + 0.5)
    assert inside.sum() >= n - 2
    # in float32: 1 - t has seven digits less those that t has lost near 1
    assert (strata > np.arange(n) - 1e-2).all() and (strata < np.arange(n) + 1 + 1e-2).all()
    assert not torch.equal(t, draw_times(distribution, n, generator(1), "cpu"))


@pytest.mark.parametrize("distribution", TIME_DISTRIBUTIONS)
def test_quantiles_of_the_distribution(distribution):
    u = torch.linspace(0.001, 0.999, 99, dtype=torch.float64)
    np.testing.assert_allclose(CDFS[distribution](TIME_DISTRIBUTIONS[distribution](u).numpy()), u, rtol=1e-10)
    t = draw_times(distribution, 20_000, generator(), "cpu").double().numpy()
    for p in (0.1, 0.5, 0.9):
        assert abs(CDFS[distribution](np.quantile(t, p)) - p) < 2 / 20_000  # stratified: not 1 / sqrt(n)


@pytest.mark.parametrize("distribution", TIME_DISTRIBUTIONS)
def test_times_keep_their_distance_from_the_ends(distribution):
    # so many that the uniform numbers round to 1 in float32, where quantiles are infinite
    t = draw_times(distribution, 2**22, generator(), "cpu")
    assert t.min() >= _T_MARGIN and t.max() <= 1 - _T_MARGIN * (1 - 1e-2)


# --------------------------------------------------------------- losses at the exact field

D = 2
V0, V1 = torch.tensor([1.0, 1.0]).double(), torch.tensor([0.3, 2.5]).double()
PATHS = {
    "one-sided": GaussianBase(Linear()),
    "one-sided-singular": GaussianBase(VariancePreserving()),
    "two-sided": Trigonometric(),
    "two-sided-quadratic": Linear("quadratic"),
    "two-sided-singular": Linear("brownian"),
}


def exact_field(path, target="velocity"):
    """The exact field of centred normal ends: the closed-form part, around a network that is zero."""
    network = FiLMNetwork(D, 0, (4,), "silu", generator()).double()
    return PreconditionedField(path, network, target, V0, V1)


class Tilted(Field):
    """A field plus (shift + tilt * x), one pair of parameters a row: gradients row by row."""

    def __init__(self, field, n, weighted=True):
        super().__init__()
        self.field = field
        self.shift = nn.Parameter(torch.zeros(n, D, dtype=torch.float64))
        self.tilt = nn.Parameter(torch.zeros(n, D, dtype=torch.float64))
        if weighted:
            self.output_scale = field.output_scale

    def forward(self, t, x, condition=None):
        return self.field(t, x) + self.shift + self.tilt * x


def normal_points(path, n, t, seed=0):
    """Points of independent normal ends, each with its mirror image where the target is singular."""
    x0, x1, z = (normals(n, D, seed=s) for s in (seed, seed + 1, seed + 2))
    points = t, V0.sqrt() * x0, V1.sqrt() * x1, z if path.has_noise else None, None
    return _antithetic(path, *points) if path.singular_target else points


def pair_means(value, path):
    """Means over mirror images, which are independent of each other, a row."""
    return (value[: len(value) // 2] + value[len(value) // 2 :]) / 2 if path.singular_target else value


def standard_scores(value, path):
    """Mean over its standard error, a column."""
    value = pair_means(value.detach(), path)
    return value.mean(0) / (value.std(0) / math.sqrt(len(value)))


def row_gradients(name, field, points, path, weighted=True):
    """Gradients of the loss with respect to shift and tilt, of shape (rows, 2 d)."""
    t, x0, x1, z, condition = points
    model = Tilted(field, len(x0), weighted)
    field_loss(name, model, path, t, x0, x1, z, condition).backward()
    return torch.cat([model.shift.grad, model.tilt.grad], 1)


@pytest.mark.parametrize("distribution", TIME_DISTRIBUTIONS)
@pytest.mark.parametrize("name", PATHS)
def test_the_exact_velocity_is_a_projection(name, distribution):
    """E[f . (f - dx_t/dt)] = 0 for f = E[dx_t/dt | x_t], at every time."""
    path, n = PATHS[name], 20_000
    t, x0, x1, z, _ = normal_points(path, n, draw_times(distribution, n, generator(9), "cpu").double())
    f = exact_field(path)(t, path.point(t, x0, x1, z))
    products = (f * (f - path.point_dot(t, x0, x1, z))).sum(1, keepdim=True)
    assert standard_scores(products, path).abs().max() < 4


@pytest.mark.parametrize("name", ["two-sided-quadratic", "two-sided-singular"])
def test_the_exact_denoiser_is_a_projection(name):
    path, n = PATHS[name], 20_000
    t, x0, x1, z, _ = normal_points(path, n, draw_times("uniform", n, generator(9), "cpu").double())
    eta = exact_field(path, "denoiser")(t, path.point(t, x0, x1, z))
    assert standard_scores((eta * (eta - z)).sum(1, keepdim=True), path).abs().max() < 4


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", PATHS)
def test_the_gradient_of_the_velocity_loss_vanishes_at_the_exact_field(name, weighted):
    """Along an added constant and an added multiple of x: the weight does not move the minimiser."""
    path, n = PATHS[name], 20_000
    points = normal_points(path, n, draw_times("uniform", n, generator(9), "cpu").double())
    gradients = row_gradients("velocity", exact_field(path), points, path, weighted)
    assert standard_scores(gradients, path).abs().max() < 4
    # the same rows tell a wrong field: here one of ends with other variances
    wrong = exact_field(path)
    wrong.v1 = 1.3 * V1
    assert standard_scores(row_gradients("velocity", wrong, points, path, weighted), path).abs().max() > 8


@pytest.mark.parametrize("name", ["two-sided-quadratic", "two-sided-singular"])
def test_the_gradient_of_the_denoiser_loss_vanishes_at_the_exact_field(name):
    path, n = PATHS[name], 20_000
    points = normal_points(path, n, draw_times("uniform", n, generator(9), "cpu").double())
    gradients = row_gradients("denoiser", exact_field(path, "denoiser"), points, path, weighted=False)
    assert standard_scores(gradients, path).abs().max() < 4
    wrong = exact_field(path, "denoiser")
    wrong.v1 = 3 * V1  # further off: the noise is a small part of x_t, so its estimate says little of x_t
    gradients = row_gradients("denoiser", wrong, points, path, weighted=False)
    assert standard_scores(gradients, path).abs().max() > 8


def test_the_velocity_loss_is_a_mean_of_weighted_squares():
    path, field, n = PATHS["two-sided"], exact_field(PATHS["two-sided"]), 7
    t, x0, x1, z, _ = normal_points(path, n, torch.linspace(0.1, 0.9, n).double())
    squares = (field(t, path.point(t, x0, x1, z)) - path.point_dot(t, x0, x1, z)) ** 2
    expected = (squares / field.output_scale(t)[:, None] ** 2).mean()
    torch.testing.assert_close(field_loss("velocity", field, path, t, x0, x1, z), expected, rtol=1e-12, atol=0)
    plain = field_loss("velocity", field.forward, path, t, x0, x1, z)
    torch.testing.assert_close(plain, squares.mean(), rtol=1e-12, atol=0)


# Near the singular end dx_t/dt has a part u / 2 sqrt(s) or so, s the distance; its mirror image has minus that.
# What is left of the mean of f - dx_t/dt over a pair, in the limit: x0 / (2 v0) - x1, and -x1 / v1.
SINGULAR = {
    "two-sided-singular": (lambda s: s, lambda s: 1 / (4 * s), 1 / (4 * V0) + V1),
    "one-sided-singular": (lambda s: 1 - s, lambda s: 1 / (2 * s), 1 / V1),
}


@pytest.mark.parametrize("name", SINGULAR)
def test_mirror_images_cancel_the_singular_part_of_the_gradient(name):
    time, singular_variance, limit = SINGULAR[name]
    path, n = PATHS[name], 20_000
    for s in (1e-4, 1e-6, 1e-8):
        t = torch.full((n,), time(s), dtype=torch.float64)
        points = normal_points(path, n, t, seed=3)
        gradients = row_gradients("velocity", exact_field(path), points, path, weighted=False)[:, :D]
        residuals = gradients * (2 * n * D) / 2  # the loss is a mean over rows and features of squares
        error = 4 * math.sqrt(2 / n)  # four standard errors of the variance of a normal distribution
        plain, together = residuals[:n].var(0), pair_means(residuals, path).var(0)
        # neglected terms are of order sqrt(s) of those that are kept
        torch.testing.assert_close(together, limit, rtol=error + 2 * math.sqrt(s), atol=0)
        torch.testing.assert_close(
            plain, singular_variance(s) * torch.ones(D).double(), rtol=error + 30 * s**0.5, atol=0
        )


def test_mirror_images_have_the_noise_of_opposite_sign_and_all_else_alike():
    t, condition = torch.linspace(0.1, 0.9, 5).double(), normals(5, 1, seed=3)
    x0, x1, z = (normals(5, D, seed=s) for s in range(3))
    two = _antithetic(Linear("brownian"), t, x0, x1, z, condition)
    for both, once, sign in zip(two, (t, x0, x1, z, condition), (1, 1, 1, -1, 1), strict=True):
        assert torch.equal(both, torch.cat([once, sign * once]))
    one = _antithetic(PATHS["one-sided-singular"], t, x0, x1, None, None)
    assert torch.equal(one[1], torch.cat([x0, -x0])) and torch.equal(one[2], torch.cat([x1, x1]))
    assert one[3] is None and one[4] is None


class Recorder(nn.Module):
    """A field that is zero and keeps the points it was asked about."""

    def __init__(self):
        super().__init__()
        self.points = []

    def forward(self, t, x, condition=None):
        self.points.append((t, x))
        return torch.zeros_like(x)


@pytest.mark.parametrize(("batch", "expected"), [(8, 8), (7, 6), (1, 2)])
def test_pairs_count_as_two_points_of_the_batch(batch, expected):
    sampler = Sampler(normals(40, D), normals(40, D), None, independent, True)
    singular = nn.ModuleDict({"velocity": Recorder(), "denoiser": Recorder()})
    Batches(singular, Linear("brownian"), "uniform", sampler, batch, generator()).loss()
    [(t, x)], [(t_eta, x_eta)] = singular["velocity"].points, singular["denoiser"].points
    assert t.shape == (expected,) and torch.equal(t[: expected // 2], t[expected // 2 :])
    assert torch.equal(t, t_eta) and torch.equal(x, x_eta)  # both fields see the same points
    smooth = nn.ModuleDict({"velocity": Recorder()})
    Batches(smooth, Linear("quadratic"), "uniform", sampler, batch, generator()).loss()
    assert smooth["velocity"].points[0][0].shape == (batch,)


def drawn_points(path, sampler, n, batches):
    """The points of the first batches that `Batches` draws with the same seed, one batch after the other."""
    same = generator()
    times = draw_times("uniform", n, same, "cpu", batches)
    return times.double(), *sampler.draw(n, same, batches)


def test_the_loss_is_the_sum_over_the_fields_batch_by_batch():
    samples = normals(40, D), normals(40, D, seed=1)
    fields, path = nn.ModuleDict({"velocity": Recorder(), "denoiser": Recorder()}), Linear("quadratic")
    batches = Batches(fields, path, "uniform", Sampler(*samples, None, paired, True), 8, generator())
    points = drawn_points(path, Sampler(*samples, None, paired, True), 8, batches.size)
    for k in range(5):
        rows = [None if p is None else p[8 * k : 8 * k + 8] for p in points]
        expected = sum(field_loss(name, field, path, *rows) for name, field in fields.items())
        torch.testing.assert_close(batches.loss(), expected, rtol=1e-12, atol=0)


def test_a_new_block_goes_on_with_the_pass(monkeypatch):
    """Blocks of two batches and one block of six see the rows in passes alike: each once."""
    for block in (2, 6):
        monkeypatch.setattr(_batches, "_BLOCK", block * 4 * D)
        recorder = nn.ModuleDict({"velocity": Recorder()})
        sampler = Sampler(None, numbered(24), None, independent, False)
        path = Still()
        batches = Batches(recorder, path, "uniform", sampler, 4, generator())
        assert batches.size == block
        for _ in range(6):
            batches.loss()
        rows = torch.cat([x[:, 0] for _, x in recorder["velocity"].points])
        assert sorted(rows.tolist()) == list(range(24))


class Still(Linear):
    """A path that stays at its target."""

    def mean(self, t, x0, x1):
        return x1

    def mean_dot(self, t, x0, x1):
        return torch.zeros_like(x1)


OWN = {
    "velocity": ("velocity", GaussianBase(Linear())),
    "mirrored": ("velocity", Linear("brownian")),
    "drift": ("drift", Linear("brownian")),
    "denoiser": ("denoiser", Linear("quadratic")),
    "score": ("score", Linear("quadratic")),
}


def own_fields(name, d, activation="silu"):
    """A learned field around a perceptron none of whose parameters is zero, with its path."""
    target, path = OWN[name]
    network = FiLMNetwork(d, 0, (12, 16, 10), activation, generator()).double()
    with torch.no_grad():
        for i, p in enumerate(network.parameters()):
            p.add_(0.3 * normals(*p.shape, seed=i + 1))
    field = PreconditionedField(path, network, target, torch.ones(d).double(), torch.full((d,), 0.7).double())
    return nn.ModuleDict({target: field}), path


@pytest.mark.parametrize("name", OWN)
def test_hand_written_gradients_of_the_losses_are_those_of_autograd(name):
    """On shared and on single times: 128 points have 32 times, 100 have as many."""
    for batch in (128, 100, 7):
        fields, path = own_fields(name, 3)
        x0 = None if path.path_type == "one-sided" else normals(300, 3)
        samples = x0, normals(300, 3, seed=1), None, independent, path.has_noise
        batches = Batches(fields, path, "uniform", Sampler(*samples), batch, generator())
        weights = AdamWithEMA(fields)
        loss = batches.loss()
        assert not loss.requires_grad
        own = weights.gradient.clone()
        points = draw_points(
            fields, path, "uniform", Sampler(*samples), batch, generator(), batches.size, batches.rows_per_time
        )
        first = [None if p is None else p[: batches.points] for p in points]
        for p in fields.parameters():
            p.grad = None
        ((target, field),) = fields.items()
        expected = field_loss(target, field, path, *first)
        expected.backward()
        torch.testing.assert_close(loss, expected.detach(), rtol=1e-10, atol=1e-12)
        autograd = torch.cat([p.grad.flatten() for p in fields.parameters()])
        torch.testing.assert_close(own, autograd, rtol=1e-9, atol=1e-12)
        assert own.abs().min() >= 0 and (own != 0).float().mean() > 0.99


def named_paths():
    """Every named path with the ends that it takes."""
    for name in INTERPOLANTS:
        kinds = {"vp": [False], "mirror": [False], "learned": [], "learned-schedule": [True]}
        for two_samples in kinds.get(name, [False, True]):
            path = make_interpolant(name, "auto", 1.0, two_samples=two_samples, latent_noise=True)
            yield pytest.param(path, id=f"{'two' if two_samples else 'one'}-{name}")


@pytest.mark.parametrize("target", ["velocity", "drift", "denoiser", "score"])
@pytest.mark.parametrize("path", list(named_paths()))
def test_no_time_that_is_drawn_has_an_infinite_loss(path, target):
    """At t = 1/2 in the middle of an encoding-decoding path, and of a mirror, nothing moves."""
    if target != "velocity" and not path.has_noise:
        return
    t = torch.tensor([_T_MARGIN, 0.25, 0.5, 0.75, 1 - _T_MARGIN])
    network = FiLMNetwork(D, 0, (4,), "silu", generator())
    field = PreconditionedField(path, network, target, torch.ones(D), torch.ones(D))
    x0, x1, z = (normals(5, D, seed=s).float() for s in range(3))
    regression = REGRESSIONS[target](field, path, t, x0, x1, z if path.has_noise else None)
    for part in regression:
        assert part is None or torch.isfinite(part).all()


def test_times_are_shared_only_where_nothing_else_tells_rows_apart():
    one_sided, two_sided = GaussianBase(Linear()), Linear("brownian")

    def group(batch, condition=None, path=one_sided, names=("velocity",)):
        fields = nn.ModuleDict({name: Recorder() for name in names})
        sampler = Sampler(None, numbered(2000), condition, independent, path.has_noise)
        return Batches(fields, path, "uniform", sampler, batch, generator()).rows_per_time

    assert group(512) == group(128) == 4
    assert group(124) == group(510) == 1  # fewer than 32 times; no whole groups
    assert group(512, condition=numbered(2000)) == 1
    assert group(256, path=two_sided) == 4 and group(248, path=two_sided) == 1  # of pairs
    assert group(512, names=("forecast",)) == 1


@pytest.mark.parametrize(("n", "batches", "group"), [(12, 1, 1), (12, 3, 4), (8, 2, 2)])
def test_each_batch_has_its_strata_and_groups_share_a_time(n, batches, group):
    t = draw_times("uniform", n, generator(), "cpu", batches, group).view(batches, n // group, group)
    assert (t == t[:, :, :1]).all()
    strata = (t[:, :, 0] * (n // group)).floor().long()
    assert torch.equal(strata, torch.arange(n // group).expand(batches, -1))
    assert batches == 1 or not torch.equal(t[0], t[1])


# ----------------------------------------------------------------------------------- batches


def numbered(n, sign=1.0):
    """Row i holds i, so that rows can be told apart."""
    return sign * torch.arange(n, dtype=torch.float64)[:, None].repeat(1, 2)


def drawn(sampler, batch, n_batches):
    """Numbers of the rows of the base and of the target, a batch a row."""
    same = generator(5)
    batches = [sampler.draw(batch, same) for _ in range(n_batches)]
    return tuple(torch.stack([b[end][:, 0] for b in batches]).abs().long() for end in (0, 1))


@pytest.mark.parametrize(("n", "batch"), [(12, 6), (12, 4), (12, 5), (13, 1), (100, 7)])
@pytest.mark.parametrize("coupling", ["independent", "paired", "optimal"])
def test_no_row_repeats_within_a_pass(coupling, n, batch):
    sampler = Sampler(numbered(n), numbered(n, -1), None, COUPLINGS[coupling], False)
    a_pass = n // batch  # a rest that does not fill a batch waits for the next permutation
    for rows in drawn(sampler, batch, 3 * a_pass):
        passes = rows.reshape(3, a_pass * batch)
        assert all(len(set(p.tolist())) == a_pass * batch for p in passes)
        assert not torch.equal(passes[0], passes[1])


def test_samples_of_unequal_length_have_passes_of_their_own():
    rows0, rows1 = drawn(Sampler(numbered(12), numbered(30), None, independent, False), 6, 5)
    assert sorted(rows1.flatten().tolist()) == list(range(30))
    for start in (0, 2):
        assert sorted(rows0[start : start + 2].flatten().tolist()) == list(range(12))


def test_independent_rows_are_paired_at_random_and_paired_rows_stay_together():
    rows0, rows1 = drawn(Sampler(numbered(1000), numbered(1000, -1), None, independent, False), 500, 2)
    # each pair is the diagonal's with probability 1/1000: 1 expected, 10 has probability 1e-7
    assert (rows0 == rows1).sum() < 10
    for n, batch in [(1000, 500), (7, 50)]:  # by passes, and with replacement
        rows0, rows1 = drawn(Sampler(numbered(n), numbered(n, -1), None, paired, False), batch, 2)
        assert torch.equal(rows0, rows1)


def test_the_condition_travels_with_the_target():
    for n, batch in [(20, 5), (6, 50)]:
        for coupling in (independent, paired, Optimal(), Entropic(0.5)):
            sampler = Sampler(numbered(n, 3.0), numbered(n), numbered(n)[:, :1] + 0.5, coupling, False)
            _, x1, z, condition = sampler.draw(batch, generator())
            assert torch.equal(condition, x1[:, :1] + 0.5) and z is None


def test_a_coupling_has_the_last_word():
    class ReversedRows(Coupling):
        def __call__(self, x0, x1, condition, generator):
            return x0, x1.flip(0), condition.flip(0)

    plain = Sampler(numbered(20), numbered(20), numbered(20), independent, False).draw(8, generator())
    turned = Sampler(numbered(20), numbered(20), numbered(20), ReversedRows(), False).draw(8, generator())
    assert torch.equal(turned[0], plain[0])
    assert torch.equal(turned[1], plain[1].flip(0)) and torch.equal(turned[3], plain[3].flip(0))


def threads_named(name):
    return [t for t in threading.enumerate() if name in t.name]


class Reversed(Coupling):
    """A coupling that pairs rows in reverse, and remembers the threads that it was called in."""

    def __init__(self, fails_at=None):
        self.calls, self.fails_at = [], fails_at

    def __call__(self, x0, x1, condition, generator):
        self.calls.append(threading.current_thread().name)
        if len(self.calls) == self.fails_at:
            raise RuntimeError("no plan")
        return x0, x1.flip(0), condition


def test_batches_are_paired_ahead_in_a_thread_with_the_same_outcome(monkeypatch):
    monkeypatch.setattr(_batches, "_BLOCK", 2 * 8 * D)
    losses = []
    for ahead in (True, False):
        coupling = Reversed()
        fields, path = own_fields("drift", D)
        sampler = Sampler(normals(40, D), normals(40, D, seed=1), None, coupling, True)
        with Batches(fields, path, "uniform", sampler, 8, generator()) as batches:
            if not ahead:
                batches._thread.shutdown()
                batches._thread = None
            AdamWithEMA(fields)
            losses.append([float(batches.loss()) for _ in range(7)])
        elsewhere = ["sklearn_si-coupling" in name for name in coupling.calls]
        assert all(elsewhere) if ahead else not any(elsewhere)
        assert not threads_named("sklearn_si-coupling")
    assert losses[0] == losses[1]


def test_an_error_of_a_coupling_reaches_the_caller():
    X = normals(60, 2).numpy()
    flow = InterpolantFlow(coupling=Reversed(fails_at=3), max_iter=50, base_density=None, hidden_layer_sizes=(8,))
    with pytest.raises(RuntimeError, match="no plan"):
        flow.fit(X, X + 1)
    assert not threads_named("sklearn_si-coupling")


@pytest.mark.parametrize(("n", "batch"), [(5, 3), (5, 1000), (1, 4)])
def test_small_samples_are_drawn_with_replacement(n, batch):
    rows = drawn(Sampler(None, numbered(n), None, independent, False), batch, 600)[1].flatten()
    assert rows.shape == (600 * batch,)
    counts = torch.bincount(rows, minlength=n)
    assert stats.chisquare(counts.numpy()).pvalue > 1e-4 if n > 1 else counts[0] == 600 * batch
    # as independent draws repeat: three of five differ with probability 12/25
    if batch == 3:
        distinct = sum(len(set(r.tolist())) == 3 for r in rows.reshape(-1, 3))
        assert abs(distinct / 600 - 0.48) < 4 * math.sqrt(0.48 * 0.52 / 600)


def test_the_base_without_a_sample_and_the_latent_noise_are_standard_normal():
    sampler = Sampler(None, numbered(5000), None, independent, True)
    x0, x1, z, condition = sampler.draw(2500, generator())
    assert condition is None and x0.dtype == z.dtype == x1.dtype
    for noise in (x0, z):
        assert noise.shape == x1.shape
        assert stats.kstest(noise.flatten().numpy(), "norm").pvalue > 1e-4
    assert abs(torch.corrcoef(torch.stack([x0.flatten(), z.flatten()]))[0, 1]) < 4 / math.sqrt(5000)
