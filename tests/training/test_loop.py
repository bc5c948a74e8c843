"""The averaged weights and the training loop."""

import math

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from torch import nn

from sklearn_si import InterpolantFlow
from sklearn_si._training.loop import ROUND, History, Scores, Settings, _rate, train
from sklearn_si._training.optimizer import AdamWithEMA
from sklearn_si.exceptions import FitDivergedError
from sklearn_si.networks import FiLMNetwork


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normals(*shape, seed=0):
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


# ---------------------------------------------------------------------------------- averages


def module(*shapes):
    """A module that is nothing but its parameters, all zero."""
    return nn.ParameterList([nn.Parameter(torch.zeros(shape).double()) for shape in shapes])


def average_of(values):
    """The averages after each of a sequence of values of two parameters."""
    weights, means = AdamWithEMA(module((2,), ())), []
    for value in values:
        weights.flat.fill_(value)
        weights.steps += 1
        weights._update_ema()
        assert (weights.ema == weights.ema[0]).all()
        means.append(float(weights.ema[0]))
    return means


def test_the_average_of_the_first_steps_is_their_mean():
    values = normals(10).tolist()
    np.testing.assert_allclose(average_of(values), np.cumsum(values) / np.arange(1, 11), rtol=1e-12)


@pytest.mark.parametrize("n", [100, 1000, 5000])
def test_the_average_lags_by_its_window(n):
    """Of the numbers 1, 2, ...: the mean lies near a window of 10 + n / 10 steps behind."""
    lag = n - average_of(range(1, n + 1))[-1]
    window = 10 + 0.1 * n
    # an exponential window that grows by 1 step in 10 holds w - 1 steps, less a tenth for its growth
    assert 0.9 * window < lag + 1 < window
    assert average_of([3.0] * n)[-1] == pytest.approx(3.0, rel=1e-12)


def test_swapping_twice_is_the_identity():
    network = FiLMNetwork(2, 0, (4, 4), "silu", generator())
    before = [p.detach().clone() for p in network.parameters()]
    weights = AdamWithEMA(network)
    weights.flat.add_(1)
    for shift in (0, 1, 0):
        weights.swap(weights.ema)
        for p, value in zip(network.parameters(), before, strict=True):
            assert torch.equal(p, value + shift)


def test_released_parameters_stand_alone():
    """Views of one vector would be pickled with all of it, each."""
    network = FiLMNetwork(2, 0, (4, 4), "silu", generator())
    weights = AdamWithEMA(network)
    sizes = {p.untyped_storage().nbytes() for p in network.parameters()}
    assert sizes == {4 * len(weights.flat)}
    weights.release()
    for p in network.parameters():
        assert p.untyped_storage().nbytes() == 4 * p.numel() and p.grad is None


def test_parameters_of_several_dtypes_are_refused():
    mixed = nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1).double()])
    with pytest.raises(ValueError, match=r"dtypes \['torch.float32', 'torch.float64'\]: give them one"):
        AdamWithEMA(mixed)


@pytest.mark.parametrize("scale", [1e-3, 1e3], ids=["plain", "clipped"])
def test_a_step_is_that_of_adam(scale):
    """Beside torch's own Adam and clipping, on the same gradients."""
    ours, theirs = module((3, 2), (4,)), module((3, 2), (4,))
    weights, optimizer = AdamWithEMA(ours), torch.optim.Adam(theirs.parameters(), lr=0.01)
    for step in range(30):
        gradients = [scale * normals(*p.shape, seed=step) for p in theirs]
        weights.gradient.copy_(torch.cat([g.flatten() for g in gradients]))
        for p, g in zip(theirs, gradients, strict=True):
            p.grad = g.clone()
        nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        optimizer.step()
        weights.step(0.01)
        assert not weights.gradient.any()
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


# --------------------------------------------------------------------------- the training loop


def settings(**changes):
    defaults = {
        "batch_size": 8, "learning_rate_init": 0.01, "max_iter": 500, "max_time": None, "tol": 0.0,
        "n_iter_no_change": 3, "early_stopping": True, "verbose": 0, "time_distribution": "uniform",
    }  # fmt: skip
    return Settings(**{**defaults, **changes})


class Script:
    """A quadratic loss and validation scores by script, with the weights that each score was given to."""

    def __init__(self, scores=(), event=None):
        self.networks = nn.ModuleDict({"velocity": nn.Linear(1, 2)}).double()
        with torch.no_grad():
            for p in self.networks.parameters():
                p.zero_()
        self.scores, self.event = list(scores), event or {}
        self.n_losses, self.validated = 0, []

    def weights(self):
        return torch.cat([p.detach().flatten() for p in self.networks.parameters()])

    def loss(self):
        event = self.event.get(self.n_losses)
        self.n_losses += 1
        if isinstance(event, type):
            raise event
        value = sum((p - 3).square().sum() for p in self.networks.parameters())
        return value if event is None else value * event

    def validate(self):
        self.validated.append(self.weights())
        score = self.scores[len(self.validated) - 1]
        if isinstance(score, type):
            raise score
        return score

    def train(self, **changes):
        return train(self.networks, self.loss, Scores(self.validate if self.scores else None), settings(**changes))


def test_training_reaches_the_minimum():
    script = Script()
    history = script.train(max_iter=1000, learning_rate_init=0.1)
    torch.testing.assert_close(script.weights(), torch.full((4,), 3.0).double(), rtol=1e-4, atol=0)
    assert history.loss_curve[0] > 1e3 * history.loss_curve[-1]
    assert history.validation_scores == [] and history.best_score == -math.inf and not history.converged


@pytest.mark.parametrize(
    "scores", [[1, 2, 3, 4, 5], [5, 4, 3, 2, 1], [1, 3, 2, 3, 0], [-math.inf, -1, -3, -2, -5]], ids=str
)
def test_the_best_validated_weights_are_kept(scores):
    script = Script(scores)
    history = script.train(n_iter_no_change=10)
    assert history.validation_scores == scores and history.best_score == max(scores)
    assert len({tuple(w.tolist()) for w in script.validated}) == len(scores)
    assert torch.equal(script.weights(), script.validated[scores.index(max(scores))])


def test_what_is_validated_is_the_average():
    script = Script([1.0])
    live = []
    original = script.loss
    script.loss = lambda: live.append(script.weights()) or original()
    script.train(max_iter=ROUND)
    # weights before each step; means lag behind weights that rise all the time
    assert (script.validated[0] < live[-1]).all() and (script.validated[0] > live[ROUND // 2]).all()


def test_validation_does_not_disturb_the_training():
    paths = []
    for script in (Script(), Script([1.0, 2.0, 3.0])):
        seen, original = [], script.loss
        script.loss = lambda seen=seen, script=script, original=original: seen.append(script.weights()) or original()
        script.train(max_iter=250)
        paths.append(torch.stack(seen))
    assert torch.equal(*paths)


@pytest.mark.parametrize("max_iter", [1, 7, ROUND, ROUND + 1, 250])
def test_max_iter_is_exact(max_iter):
    script = Script([float(k) for k in range(9)])
    history = script.train(max_iter=max_iter)
    assert history.n_iter == script.n_losses == max_iter
    assert len(history.loss_curve) == len(history.validation_scores) == math.ceil(max_iter / ROUND)
    assert not history.converged


@pytest.mark.parametrize(
    ("growth", "ends"),
    [(0.0, [100, 200, 300, 400, 500, 600, 700]), (1.0, [100, 200, 400, 700]), (0.5, [100, 200, 300, 450, 675, 700])],
)
def test_rounds_grow_with_the_steps_so_far(growth, ends):
    script, seen = Script([float(k) for k in range(9)]), []
    validate = script.validate
    script.validate = lambda: seen.append(script.n_losses) or validate()
    script.train(max_iter=700, growth=growth)
    assert seen == ends


def test_rounds_double_until_they_have_their_usual_length():
    script, seen = Script([float(k) for k in range(9)]), []
    validate = script.validate
    script.validate = lambda: seen.append(script.n_losses) or validate()
    script.train(max_iter=500, growth=0.0, first_round=10)
    assert seen == [10, 20, 40, 80, 160, 260, 360, 460, 500]


@pytest.mark.parametrize(
    ("scores", "tol", "n_rounds", "best"),
    [
        ([1, 2, 3, 2, 2, 2, 9], 0.0, 6, 3),
        ([1, 1, 1, 1, 9], 0.0, 4, 1),  # a repeated score is no rise
        ([1, 0, 0, 2, 0, 0, 0, 9], 0.0, 7, 2),  # patience starts again
        ([1, 1.4, 1.8, 2.2, 2.2, 2.2, 9], 0.5, 4, 2.2),  # rises below tol are stale, but kept
        ([-5, -4, -4, -4, -4, 9], 0.0, 5, -4),
    ],
)
def test_patience(scores, tol, n_rounds, best):
    script = Script(scores)
    history = script.train(tol=tol, max_iter=10_000)
    assert history.n_iter == n_rounds * ROUND and history.converged
    assert history.best_score == best
    assert torch.equal(script.weights(), script.validated[scores.index(best)])


def test_without_early_stopping_scores_do_not_stop_the_training():
    scores = [5.0, 1, 1, 1, 1, 1, 1]
    script = Script(scores)
    history = script.train(early_stopping=False, max_iter=700)
    assert history.n_iter == 700 and history.best_score == 5.0
    assert torch.equal(script.weights(), script.validated[0])


@pytest.mark.filterwarnings("ignore:The training loss")
@pytest.mark.parametrize("step", [0, 99, 100, 137])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_diverged_loss_names_what_was_tried_and_the_ways_out(step, value):
    script = Script([1.0, 2.0], event=dict.fromkeys(range(step, 10**4), value))
    again = step // ROUND * ROUND  # the first step of the round that is tried again
    tried = rf"rates 0.01 \(step {step}\), 0.001 \(step {again}\), 0.0001 \(step {again}\), 1e-05 \(step {again}\) were"
    with pytest.raises(FitDivergedError, match=f"{tried} tried. Try a smaller learning_rate_init than 1e-05, prep"):
        script.train()
    assert script.n_losses == again + 4 * ROUND


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e9])
def test_a_round_that_blows_up_is_taken_back_and_tried_at_a_lower_rate(value):
    script = Script([2.0, 3.0, 1.0, 1.0], event=dict.fromkeys(range(220, 230), value))
    with pytest.warns(ConvergenceWarning, match="at step 220 with the rate 0.01: .* best weights so far with 0.001"):
        history = script.train(max_iter=400)
    assert history.tried == [(220, 0.01)]
    assert (history.n_iter, script.n_losses, len(history.loss_curve)) == (400, 500, 4)
    # the third round starts from the weights of the second, and moves by a tenth of the rate from there
    best, third = script.validated[1], script.validated[2]
    assert 0 < (third - best).abs().max() < 0.1 * (best - script.validated[0]).abs().max()
    assert torch.equal(script.weights(), best)


def test_a_loss_that_stays_high_though_finite_is_no_error():
    script = Script([2.0, 3.0, 1.0, 1.0], event=dict.fromkeys(range(220, 10**4), 1e9))
    with pytest.warns(ConvergenceWarning, match="rose beyond all bounds"):
        history = script.train(max_iter=400)
    assert len(history.tried) == 3 and history.n_iter == 400 and history.best_score == 3.0


def test_weights_that_are_lost_from_the_start_are_an_error():
    script = Script([2.0], event=dict.fromkeys(range(9), math.nan))
    script.networks["velocity"].weight.data.fill_(math.nan)
    with pytest.raises(FitDivergedError, match=r"rates 0.01 \(step 0\) were tried"):
        script.train()


def test_an_interrupt_keeps_the_best_weights():
    script = Script([2.0, 1.0, 3.0], event={250: KeyboardInterrupt})
    with pytest.warns(ConvergenceWarning, match="interrupted after 250 steps: the best weights so far are kept"):
        history = script.train()
    assert history.interrupted and not history.converged and history.n_iter == 250
    assert torch.equal(script.weights(), script.validated[0])


def test_an_interrupt_of_the_validation_keeps_the_best_weights():
    script = Script([2.0, KeyboardInterrupt])
    with pytest.warns(ConvergenceWarning, match="interrupted after 200 steps"):
        history = script.train()
    assert history.interrupted and history.validation_scores == [2.0]
    assert torch.equal(script.weights(), script.validated[0])


def test_an_interrupt_before_any_validation_keeps_the_average():
    script, seen = Script([2.0], event={10: KeyboardInterrupt}), []
    original = script.loss
    script.loss = lambda: seen.append(script.weights()) or original()
    with pytest.warns(ConvergenceWarning, match="interrupted after 10 steps"):
        script.train()
    # the loss of step k + 1 is taken at the weights of step k
    torch.testing.assert_close(script.weights(), torch.stack(seen[1:]).mean(0), rtol=1e-12, atol=0)


def test_an_interrupt_of_the_first_validation_keeps_the_average():
    script = Script([KeyboardInterrupt])
    with pytest.warns(ConvergenceWarning, match="interrupted after 100 steps"):
        script.train()
    assert torch.equal(script.weights(), script.validated[0])


def test_a_first_score_that_is_not_a_number_is_not_the_best():
    script = Script([math.nan, 1.0, 2.0, 0.0])
    history = script.train(max_iter=400)
    assert history.best_score == 2.0
    assert torch.equal(script.weights(), script.validated[2])


def test_the_networks_are_left_without_gradients():
    script = Script([1.0, 2.0])
    script.networks.requires_grad_(False)
    script.train(max_iter=150)
    assert all(p.grad is None and not p.requires_grad for p in script.networks.parameters())


@pytest.mark.parametrize("max_iter", [1, 9, 300, 3000])
def test_the_rate_warms_up_and_ends_near_zero(max_iter):
    rates = [_rate(step, 0.0, settings(max_iter=max_iter)) for step in range(max_iter)]
    warm_up = min(200, max(1, max_iter // 10))
    assert rates[0] == 1 / warm_up and min(rates) >= 0 and max(rates) <= 1
    assert (np.diff(rates[:warm_up]) > 0).all() and (np.diff(rates[warm_up:]) < 0).all()
    k = np.arange(warm_up, max_iter)
    np.testing.assert_allclose(rates[warm_up:], np.cos(np.pi / 2 * k / max_iter) ** 2, rtol=1e-9)
    if max_iter > 1:
        assert rates[-1] < (math.pi / 2 / max_iter) ** 2


def test_the_rate_follows_whichever_of_steps_and_time_is_nearer_its_end():
    limits = settings(max_iter=1000, max_time=10.0)
    assert _rate(500, 1.0, limits) == _rate(500, 0.0, settings(max_iter=1000)) == pytest.approx(0.5)
    assert _rate(500, 7.5, limits) == pytest.approx(math.cos(math.pi / 2 * 0.75) ** 2)
    assert _rate(500, 10.0, limits) == _rate(500, 99.0, limits) == pytest.approx(0.0, abs=1e-15)


def test_the_optimiser_takes_the_rate_of_its_step():
    """Adam's first step is the rate itself; the last ones are nearly nil."""
    script = Script()
    seen = []
    original = script.loss
    script.loss = lambda: seen.append(script.weights()) or original()
    script.train(max_iter=300, learning_rate_init=0.01)
    first = seen[1] - seen[0]
    torch.testing.assert_close(first, torch.full((4,), 0.01 / 30).double(), rtol=1e-6, atol=0)
    assert (seen[-1] - seen[-2]).abs().max() < 1e-3 * 0.01


def test_verbose_prints_a_line_a_round(capsys):
    Script([1.0, 2.0, 3.0]).train(max_iter=250, verbose=1)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["step 100", "step 200", "step 250", "Ended after step 250"]
    assert lines[1].endswith("validation score 2.0000")


def test_the_best_weights_have_the_buffers_of_their_round():
    """Such as the statistics of a normalisation, which no gradient moves."""
    script = Script([2.0, 1.0, 0.0])
    layer, loss = script.networks["velocity"], script.loss
    layer.register_buffer("steps", torch.zeros(()))

    def counted():
        layer.steps += 1
        return loss()

    script.loss = counted
    script.train(max_iter=3 * ROUND, n_iter_no_change=10)
    assert layer.steps == ROUND


# ------------------------------------------------------------------ rounds that explode, though finite


@pytest.mark.parametrize("fallen", [-200.0, -1e7, -math.inf, math.nan])
def test_a_score_that_falls_by_100_nats_goes_back_to_the_best_weights_at_a_lower_rate(fallen):
    script = Script([2.0, 3.0, fallen, 2.5])
    with pytest.warns(
        ConvergenceWarning, match="^The held-out score fell by .* at step 300 with the rate 0.01: training"
    ):
        history = script.train(max_iter=300)
    assert history.tried == [(300, 0.01)]
    # the round is not among those of the history, and is made again from the best weights
    assert history.validation_scores == [2.0, 3.0, 2.5]
    assert (history.n_iter, script.n_losses, len(history.loss_curve)) == (300, 400, 3)
    best, again = script.validated[1], script.validated[3]
    assert 0 < (again - best).abs().max() < 0.1 * (best - script.validated[0]).abs().max()
    assert torch.equal(script.weights(), best)


def test_the_rounds_say_which_were_taken_back_and_at_which_rate():
    script = Script([2.0, -200.0, 3.0, 1.0])
    with pytest.warns(ConvergenceWarning, match="fell by 202"):
        history = script.train(max_iter=300)
    rounds = [(r["n_iter"], r["learning_rate"], r["validation_score"], r["taken_back"]) for r in history.rounds]
    assert rounds == [
        (100, 0.01, 2.0, False), (200, 0.01, -200.0, True), (200, pytest.approx(0.001), 3.0, False),
        (300, pytest.approx(0.001), 1.0, False),
    ]  # fmt: skip
    assert [r["loss"] for r in history.rounds if not r["taken_back"]] == history.loss_curve
    assert [r["stopped"] for r in history.rounds] == [None] * 3 + ["max_iter"]


@pytest.mark.parametrize(
    ("changes", "scores", "stopped"),
    [
        ({"max_iter": 200}, [1.0, 2.0], "max_iter"),
        ({"max_iter": 900, "n_iter_no_change": 2}, [2.0, 1.0, 1.0], "n_iter_no_change"),
        ({"max_iter": 900, "max_time": 1e-9}, [1.0], "max_time"),
    ],
)
def test_the_last_round_says_why_a_training_ended(changes, scores, stopped):
    history = Script(scores).train(**changes)
    assert [r["stopped"] for r in history.rounds] == [None] * (len(scores) - 1) + [stopped]


def test_the_rounds_of_a_training_that_diverges_can_still_be_read():
    history, script = History(), Losses(lambda k: math.nan)
    with pytest.raises(FitDivergedError), pytest.warns(ConvergenceWarning):
        train(script.networks, script.loss, Scores(), settings(), history=history)
    assert len(history.rounds) == 4
    assert [r["stopped"] for r in history.rounds] == [None] * 3 + ["diverged"]
    assert all(r["taken_back"] and math.isnan(r["loss"]) and r["validation_score"] is None for r in history.rounds)
    assert [r["learning_rate"] for r in history.rounds] == pytest.approx([1e-2, 1e-3, 1e-4, 1e-5])


def test_the_first_round_goes_back_to_the_start_that_was_scored():
    script = Script([5.0, -200.0, 6.0])
    with pytest.warns(ConvergenceWarning, match=r"fell by 205 at step 100 with the rate 0.01: .* far with 0.001\."):
        history = train(script.networks, script.loss, Scores(script.validate, script.validate), settings(max_iter=100))
    assert history.validation_scores == [6.0] and history.best_score == 6.0


def test_scores_that_fall_at_any_rate_are_kept_in_the_history_after_three_attempts():
    script = Script([2.0, -200.0, -300.0, -400.0, -500.0, -600.0])
    with pytest.warns(ConvergenceWarning) as caught:
        history = script.train(max_iter=300)
    assert len(caught) == len(history.tried) == 3
    assert history.validation_scores == [2.0, -500.0, -600.0] and history.best_score == 2.0


@pytest.mark.filterwarnings("error")
def test_a_score_that_falls_by_less_stands():
    history = Script([2.0, -97.0, -90.0]).train(max_iter=300)
    assert history.validation_scores == [2.0, -97.0, -90.0] and not history.tried


class Losses(Script):
    """Losses by script: that of step k is level(k), whatever the weights."""

    def __init__(self, level, scores=()):
        super().__init__(scores)
        self.level = level

    def loss(self):
        value = super().loss()
        return value - value.detach() + self.level(self.n_losses - 1)


@pytest.mark.parametrize("start", [5.0, 0.01, -3.0])
def test_a_loss_ten_times_the_lowest_goes_back(start):
    """Of losses near zero or below it, ten times the lowest is on the scale of 1 or of the first."""
    level = start + 9 * max(1, abs(start)) + 0.1
    script = Losses(lambda k: level if 200 <= k < 300 else start, [1.0, 2.0, 3.0])
    with pytest.warns(ConvergenceWarning, match="loss rose beyond all bounds at step 300 with the rate 0.01"):
        history = script.train(max_iter=300)
    assert script.n_losses == 400 and history.n_iter == 300 and len(history.loss_curve) == 3
    assert max(history.loss_curve) < level / 2 + abs(start)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "level",
    [
        lambda k: 5.0 if k < 200 else 49.0,  # less than ten times
        lambda k: 1e-3 if k < 200 else 0.5,  # ten times next to nothing is nothing
        lambda k: 2.0 if k == 0 else -1.0 + 17 * (k > 200),  # on the scale of the first
        lambda k: 5.0 + 1e5 * (k % 3 == 0),  # steps of a heavy tail
    ],
)
def test_a_noisy_or_small_loss_does_not_go_back(level):
    history = Losses(level, [1.0, 2.0, 3.0, 4.0]).train(max_iter=400)
    assert not history.tried and len(history.loss_curve) == 4


@pytest.mark.filterwarnings("ignore:The held-out score fell")
def test_an_ill_conditioned_conditional_fit_leaves_no_round_that_exploded():
    """Conditions of a Cauchy distribution: a held-out row lies a thousand deviations from all others."""
    rng = np.random.default_rng(0)
    condition, X = rng.standard_t(1, size=(1000, 5)), rng.normal(size=(1000, 2))
    flow = InterpolantFlow(
        random_state=0, max_iter=500, learning_rate_init=0.05, preprocessing="standardize", hidden_layer_sizes=(32, 32)
    )
    scores = flow.fit(X, condition=condition).validation_scores_
    assert max((max(scores[:k]) - s for k, s in enumerate(scores) if k), default=0) < 100
    assert flow.best_validation_score_ > -3 and min(scores) > -1000
