"""What a log-density costs a row: ours as users get it and in one pass, beside the solver and the flows of others.

Part "densities" of speed.py. Prices are of the processor time of one thread, so that other programs on the machine
count little; contenders take turns. Errors are against a fine solve of the same model, and so are known of solvers of
our fields alone: a spline flow, an autoregressive flow and a kernel density are other models.
"""

import copy
import dataclasses
import time

import numpy as np
import torch
from sklearn.neighbors import KernelDensity

from likelihood import log_normal, trace_by_vjps, unit_probes

try:
    import zuko
except ImportError:
    zuko = None
try:
    import torchdiffeq
except ImportError:
    torchdiffeq = None

# Rows of a kernel density, and its bandwidth in deviations.
KERNEL_ROWS = 50_000
BANDWIDTH = 0.3
# Relative and absolute tolerances of torchdiffeq, from the loosest on.
TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
# Stated errors of the rows that one pass is to serve, in nats.
ONE_PASS = (0.05, 0.1, 0.3, 1.0)


@dataclasses.dataclass
class Contender:
    """A way to a log-density.

    Parameters
    ----------
    run : callable
        Without arguments; the log-densities of its rows.
    n_rows : int
        How many these are.
    truth : ndarray or None
        Those of a fine solve, where it is one of the same model.
    note : callable
        What else there is to say after a run.
    """

    run: object
    n_rows: int
    truth: object = None
    note: object = str


def dopri5(field, x, jacobian, tol):
    """A log-density by torchdiffeq and d VJPs an evaluation; and the number of these."""
    probes, count = unit_probes(x), [0]

    def slope(t, state):
        count[0] += 1
        value, divergence = trace_by_vjps(field, t, state[:, :-1], probes)
        return torch.cat([value, divergence[:, None]], 1)

    start = torch.cat([x, torch.zeros_like(x[:, :1])], 1)
    # unless told to step onto t = 0 it steps past it, where the field is not defined
    times, options = torch.tensor([1.0, 0.0], dtype=x.dtype), {"step_t": torch.zeros(1, dtype=x.dtype)}
    end = torchdiffeq.odeint(slope, start, times, rtol=tol, atol=tol, method="dopri5", options=options)[-1].detach()
    return (log_normal(end[:, :-1]) + end[:, -1]).double().numpy() + jacobian, count[0]


def of_torchdiffeq(flow, rows, truth, dtype):
    """A contender for each tolerance."""
    model, torch_dtype = flow.model_, torch.float64 if dtype == np.float64 else torch.float32
    fields = copy.deepcopy(model.fields(dtype, torch.device("cpu")))
    fields.velocity_network.requires_grad_(False)
    x, jacobian = torch.as_tensor(model.target_map.transform(rows)), model.target_map.log_abs_det_jacobian(rows)
    x = x.to(torch_dtype)
    found = {}
    for tol in TOLERANCES:
        counts = []

        def run(tol=tol, counts=counts):
            value, count = dopri5(fields.velocity, x, jacobian, tol)
            counts.append(count)
            return value

        found[f"torchdiffeq dopri5, {tol:g}"] = Contender(
            run, len(rows), truth, lambda counts=counts: f"{counts[-1]} evaluations"
        )
    return found


def of_zuko(rows, dtype):
    """Flows of others, whose price does not depend on their weights."""
    x = torch.as_tensor(rows.astype(dtype))
    kinds = {"zuko NSF": zuko.flows.NSF, "zuko MAF": zuko.flows.MAF}
    found = {}
    for name, kind in kinds.items():
        flow = kind(rows.shape[1], transforms=5, hidden_features=(128, 128)).to(x.dtype)
        found[name] = Contender(lambda flow=flow: no_grad(lambda: flow().log_prob(x)), len(rows))
    return found


def no_grad(function):
    """What a function gives without gradients."""
    with torch.no_grad():
        return function().numpy()


def contenders(flow, one_pass, X, rows, few, dtype):
    """By name; `few` of the rows are for those that take long."""
    plain = copy.copy(flow)
    plain.model_ = dataclasses.replace(flow.model_, likelihood_calibration=None)
    truth = copy.copy(plain).set_params(ode_tol=1e-7).score_samples(rows)
    typed = rows.astype(dtype)
    found = {"ours, default": Contender(lambda: flow.score_samples(typed), len(rows), truth)}
    served = copy.copy(one_pass).set_params(ode_tol=1e9)
    note = lambda: served_shares(served, typed, truth)  # noqa: E731
    found["ours, one pass"] = Contender(lambda: served.score_samples(typed), len(rows), truth, note)
    if torchdiffeq:
        found |= of_torchdiffeq(flow, rows[:few], truth[:few], dtype)
    if zuko:
        found |= of_zuko(rows, dtype)
    if dtype == np.float64 and len(X) >= KERNEL_ROWS:
        kernel = KernelDensity(bandwidth=BANDWIDTH).fit(X[:KERNEL_ROWS])
        found[f"KernelDensity, {KERNEL_ROWS} rows"] = Contender(lambda: kernel.score_samples(rows[:few]), few)
    return found


def served_shares(one_pass, rows, truth):
    """How many rows one pass serves at some tolerances, how many errors the stated ones cover, and the mean error."""
    value, stated = one_pass.score_samples(rows, return_error=True)
    off = value - truth
    shares = ", ".join(f"{np.mean(stated <= tol):.3f} at {tol:g}" for tol in ONE_PASS)
    kept = np.where(stated <= ONE_PASS[-1], off, 0.0)
    return f"served {shares}; covered {np.mean(np.abs(off) <= stated):.4f}; mean off by {kept.mean():.4f}"


def prices(found, rounds):
    """Microseconds of thread time a row of each contender, by the median of the rounds, and its last answer."""
    spent, values = {name: [] for name in found}, {}
    for k in range(rounds + 1):
        for name, contender in found.items():
            began = time.thread_time()
            values[name] = contender.run()
            if k:
                spent[name].append(time.thread_time() - began)
    return {name: 1e6 * np.median(times) / found[name].n_rows for name, times in spent.items()}, values


def report(found, rounds):
    """A line for each contender; last, the cheapest solve of torchdiffeq that is as accurate as our default."""
    price, values = prices(found, rounds)
    errors = {}
    for name, contender in found.items():
        line = f"    {name:<28}{price[name]:>10.1f} us a row"
        if contender.truth is not None:
            off = np.abs(values[name] - contender.truth)
            errors[name] = off.mean()
            line += f"   error: mean {off.mean():.1e}, median {np.median(off):.1e}"
        print(f"{line}   {contender.note()}", flush=True)
    own, theirs = "ours, default", [name for name in errors if name.startswith("torchdiffeq")]
    for what, least in (("the true error of our default", errors[own]), ("1e-3 nats", 1e-3)):
        alike = [price[name] for name in theirs if errors[name] <= least]
        if alike:
            print(f"    at {what}, torchdiffeq costs {min(alike) / price[own]:.1f} times ours")
