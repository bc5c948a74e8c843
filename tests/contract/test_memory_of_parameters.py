"""Every parameter of every estimator with `memory`: in the key, or followed by a loaded fit as by a new one."""

import warnings

import pytest
from sklearn.base import clone

from sklearn_si import SchroedingerBridge
from sklearn_si._utils.after_fit import AFTER_FIT
from test_parameters_after_fit import CHANGES, MODELS, OTHERS, SMALL_BRIDGE, asked, bits, other

# What learns in a fit, and so is not called where a fit is loaded.
LEARNERS = (
    "sklearn_si._estimators.base.fit_problem",
    "sklearn_si._estimators.bridge.fit_problem",
    "sklearn_si._estimators.multimarginal.fit_many",
    "sklearn_si.tables._synthesizer.fit_codes",
)
# Parameters that change neither what is fitted nor an answer.
WITHOUT_EFFECT = {"verbose", "checkpoint", "memory"}


def bridge():
    """A bridge with rounds of pairs that it draws by its own SDE."""
    return SchroedingerBridge(0.3, "network", n_steps=4, **{**SMALL_BRIDGE, "n_rounds": 1})


# The models whose estimators have `memory`.
REMEMBERED = {name: how for name, how in MODELS.items() if "memory" in how[0]().get_params()} | {
    "bridge": (bridge, *MODELS["bridge"][1:])
}
# Changes beside those of the other tests: values that a fit with noise takes, and that are quick to compute.
QUICK = {"ode_tol": [0.05], "solver": ["euler-maruyama"]}
# What is asked of a loaded model and of a new one.
METHODS = {"sample", "transform", "predict", "predict_proba"}


class Learned(Exception):
    """A fit was not loaded."""


def fitted(name, folder, **values):
    """A model fitted with `memory`."""
    make, samples, given = REMEMBERED[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # a clone, because the estimators inside are those of the other tests
        return clone(make()).set_params(memory=folder, **values).fit(*samples, **given)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with one fit of the model that is asked for."""
    known = {}

    def get(name):
        if name not in known:
            known[name] = tmp_path_factory.mktemp("fits")
            fitted(name, known[name])
        return known[name]

    return get


@pytest.fixture
def outcome(monkeypatch, tmp_path):
    """What becomes of a fit with other parameters, which never learns: "loaded", "learned" or "refused"."""
    monkeypatch.chdir(tmp_path)  # where a checkpoint would be

    def learn(*args, **kwargs):
        raise Learned

    def become(name, folder, **values):
        with monkeypatch.context() as patch:
            for learner in LEARNERS:
                patch.setattr(learner, learn)
            try:
                fitted(name, folder, **values)
            except Learned:
                return "learned"
            except ValueError:
                return "refused"  # by the checks of fit, which run in any case
        return "loaded"

    return become


def changes(name):
    """Another value of each parameter in the key of a model, and of each that is not."""
    model = REMEMBERED[name][0]()
    current, called = model.get_params(deep=True), AFTER_FIT[type(model).__name__]
    known = {p: value for p, value in current.items() if "__" not in p or p in OTHERS}
    # random_state is the seed of draws, and in the key as the seed of the fit
    free = ({*called, *WITHOUT_EFFECT} - {"random_state"}) & set(known)
    table = {**OTHERS, **CHANGES, **QUICK}
    values = {p: other(OTHERS[p] if p in OTHERS and p not in free else table[p], known[p]) for p in known}
    return {p: values[p] for p in known if p not in free}, {p: values[p] for p in free}


@pytest.mark.parametrize("name", REMEMBERED)
def test_a_parameter_in_the_key_gives_another_fit(name, folder, outcome):
    assert outcome(name, folder(name)) == "loaded"
    outcomes = {p: outcome(name, folder(name), **{p: value}) for p, value in changes(name)[0].items()}
    assert not [p for p, what in outcomes.items() if what == "loaded"]
    assert [p for p, what in outcomes.items() if what == "learned"]


def test_every_parameter_in_a_key_makes_some_model_learn_anew(folder, outcome):
    """Not only is it refused for another reason: the checks of a fit come before it is looked up."""
    wanted, learned = set(), set()
    for name in REMEMBERED:
        keyed = changes(name)[0]
        wanted |= set(keyed)
        learned |= {p for p in set(keyed) - learned if outcome(name, folder(name), **{p: keyed[p]}) == "learned"}
    assert learned == wanted


@pytest.mark.parametrize("name", REMEMBERED)
def test_a_parameter_that_is_not_in_the_key_is_followed_by_the_loaded_model(name, folder, outcome):
    """One by one they load the same fit; all at once they are answered as by a fit without memory."""
    free = {p: value for p, value in changes(name)[1].items() if p != "memory"}
    loaded = {p: value for p, value in free.items() if outcome(name, folder(name), **{p: value}) == "loaded"}
    assert set(free) - set(loaded) <= {"guidance", "noise_level"}  # which some fits refuse
    told = {p: value for p, value in loaded.items() if p not in WITHOUT_EFFECT}
    question = name if name in MODELS else "bridge"
    model, new = (fitted(name, where, **told) for where in (folder(name), None))
    answers, expected = (asked(question, m, REMEMBERED[name][2], METHODS) for m in (model, new))
    assert [answer for answer in answers.values() if not isinstance(answer, Exception)]
    assert {method: bits(answer) for method, answer in answers.items()} == {m: bits(a) for m, a in expected.items()}
