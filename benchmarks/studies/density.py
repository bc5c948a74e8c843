"""Held-out log-likelihood of InterpolantFlow and of six peers on fifteen tables, at an equal budget of seconds.

    OMP_NUM_THREADS=1 python benchmarks/studies/density.py --data PATH --budget 45 --seeds 3 --out density.jsonl
    OMP_NUM_THREADS=1 python benchmarks/studies/density.py --data PATH --budget 20 --train-rows 2000 --out subset.jsonl
    python benchmarks/studies/density.py --table --out density.jsonl

PATH holds density/*.csv.gz. The peers are zuko and torchdiffeq (pip install sklearn-si[bench]). The sets and their
cleaning are in density_sets.py, the methods in density_flows.py and density_peers.py:

    ours  InterpolantFlow at its defaults          fm   a plain flow-matching loop, torchdiffeq's dopri5
    nsf   zuko's neural spline flow                gmm  scikit-learn's GaussianMixture
    maf   zuko's masked autoregressive flow        kde  scikit-learn's KernelDensity
    cnf   zuko's continuous flow

Every choice a method makes is made inside the budget, on one thread and on the CPU; scoring comes after it and is timed
apart. Test rows are read once, to score them. One result is one line of the file, with the log-density of every test
row; what is there already is not run again (errors are). Two processes may share the work by different --sets.
"""

import argparse
import json
import time
import traceback
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from density_peers import METHODS
from density_sets import SETS, load

SECONDS = ("fit_s", "score_s")


def moments(values):
    """Mean and its standard error."""
    values = np.asarray(values)
    return float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5)


def result(split, method, budget, seed):
    """What one method makes of one split."""
    began = time.perf_counter()
    log_density, note = METHODS[method](split.train, split.valid, budget, seed)
    fitted = time.perf_counter()
    rows = np.asarray(log_density(split.test), np.float64)
    scored = time.perf_counter()
    ll, se = moments(rows)
    line = {"ll": ll, "se": se, "fit_s": round(fitted - began, 2), "score_s": round(scored - fitted, 2), "note": note}
    if split.truth is not None:
        line["kl"], line["kl_se"] = moments(split.truth - rows)
    return line | {"rows": [round(float(v), 4) for v in rows]}


def key(line):
    """What makes a line a run of its own."""
    return tuple(line[k] for k in ("set", "method", "seed", "budget", "train_rows"))


def lines_of(path):
    """The lines of a file by their keys; of several with one key, the last."""
    text = Path(path).read_text() if Path(path).exists() else ""
    return {key(line): line for line in map(json.loads, text.splitlines())}


def run(args):
    """Run what is missing, and append it to the file."""
    for seed in range(args.seed0, args.seed0 + args.seeds):
        for name in args.sets:
            done, split = lines_of(args.out), None
            for method in args.methods:
                head = {"set": name, "method": method, "seed": seed}
                head |= {"budget": args.budget, "train_rows": args.train_rows}
                if "ll" in done.get(key(head), {}):
                    continue
                split = split or load(name, args.data, seed, args.train_rows)
                head |= {"n": split.n, "d": split.train.shape[1]}
                head |= {"n_train": len(split.train), "n_valid": len(split.valid), "n_test": len(split.test)}
                try:
                    line = head | result(split, method, args.budget, seed)
                except Exception as error:
                    line = head | {"error": f"{type(error).__name__}: {error}", "note": traceback.format_exc(limit=-3)}
                with open(args.out, "a") as file:
                    file.write(json.dumps(line) + "\n")
                print(brief(line), flush=True)


def brief(line):
    """One result in one printed line."""
    head = f"seed {line['seed']}  {line['set']:<14}{line['method']:<5}"
    if "error" in line:
        return f"{head}{line['error']}"
    kl = f"  KL {line['kl']:.4f} ({line['kl_se']:.4f})" if "kl" in line else ""
    seconds = f"fit {line['fit_s']:.1f} s, score {line['score_s']:.1f} s"
    return f"{head}{line['ll']:9.3f} ({line['se']:.3f}){kl}  {seconds}  {line['note']}"


class Results:
    """The lines of one budget: runs[set][method][seed]."""

    def __init__(self, lines):
        self.runs, self.failed = {}, []
        for line in lines:
            if "error" in line:
                self.failed.append(line)
            else:
                self.runs.setdefault(line["set"], {}).setdefault(line["method"], {})[line["seed"]] = line
        self.sets = [name for name in SETS if name in self.runs]
        self.methods = [m for m in METHODS if any(m in self.runs[s] for s in self.sets)]

    def values(self, name, method, what="ll"):
        """One number a seed."""
        return [line[what] for line in self.runs[name].get(method, {}).values() if what in line]

    def median(self, name, method, what="ll"):
        """Median over seeds; -inf where there is none, or where one is not a number."""
        values = self.values(name, method, what)
        median = float(np.median(values)) if values else np.nan
        return median if np.isfinite(median) else -np.inf

    def order(self, name, methods=None):
        """Methods that have run, the best first."""
        ran = [m for m in methods or self.methods if m in self.runs[name]]
        return sorted(ran, key=lambda m: -self.median(name, m))

    def gap(self, name, one, other):
        """Mean of one minus other over the test rows of the seeds both have, and its standard error, paired by rows."""
        one, other = self.runs[name][one], self.runs[name][other]
        pairs = [moments(np.subtract(one[s]["rows"], other[s]["rows"])) for s in one if s in other]
        if not pairs:
            return np.nan, np.nan
        means, errors = np.transpose(pairs)
        return float(means.mean()), float((errors**2).sum() ** 0.5 / len(pairs))


def cells(results, name, what, error, best):
    """Median over seeds, its standard error over rows, and the spread over seeds; the best is marked."""
    text = ""
    for method in results.methods:
        values = results.values(name, method, what)
        if not values:
            text += f"{'-':>24}"
            continue
        se, spread = np.median(results.values(name, method, error)), np.ptp(values)
        spread = f" [{spread:.3f}]" if len(values) > 1 else ""
        mark = "*" if method == best else " "
        text += f"{f'{mark}{np.median(values):.3f} ({se:.3f}){spread}':>24}"
    return text


def head(results):
    """The names of the methods over their cells."""
    return "".join(f"{method:>24}" for method in results.methods)


def print_likelihoods(results):
    """A row a set."""
    print(f"{'':<14}{'n':>7}{'d':>4}{head(results)}")
    for name in results.sets:
        line = next(iter(next(iter(results.runs[name].values())).values()))
        best = results.order(name)[0]
        print(f"{name:<14}{line['n']:>7}{line['d']:>4}{cells(results, name, 'll', 'se', best)}")


def print_divergences(results):
    """KL to the truth, where it is known."""
    known = [s for s in results.sets if any(results.values(s, m, "kl") for m in results.methods)]
    if known:
        print(f"\nKL to the truth, nats\n{'':<25}{head(results)}")
    for name in known:
        print(f"{name:<25}{cells(results, name, 'kl', 'kl_se', results.order(name)[0])}")


def print_ranks(results):
    """Over the sets on which all methods ran: mean rank, firsts, and sets within a standard error of the first."""
    whole = [s for s in results.sets if len(results.order(s)) == len(results.methods)]
    print(f"\nRanks over the {len(whole)} sets where every method has run")
    print(f"{'':<8}{'mean rank':>12}{'first':>8}{'first or within its error':>28}{'fit s':>10}{'score s':>10}")
    for method in results.methods:
        ranks, close = [results.order(s).index(method) + 1 for s in whole], 0
        for name, rank in zip(whole, ranks, strict=True):
            gap, error = results.gap(name, method, results.order(name)[0])
            close += rank == 1 or gap >= -error
        fit, score = (np.mean([v for s in whole for v in results.values(s, method, w)] or [np.nan]) for w in SECONDS)
        mean = np.mean(ranks) if ranks else np.nan
        print(f"{method:<8}{mean:>12.2f}{ranks.count(1):>8}{close:>28}{fit:>10.1f}{score:>10.1f}")


def print_gaps(results):
    """Ours minus the best peer on each set."""
    compared = [s for s in results.sets if "ours" in results.runs[s] and len(results.order(s)) > 1]
    print("\nOurs minus the best peer, nats, with the standard error of the difference (paired by rows)")
    first = close = 0
    for name in compared:
        peer = results.order(name, [m for m in results.methods if m != "ours"])[0]
        gap, error = results.gap(name, "ours", peer)
        won, within = results.order(name)[0] == "ours", gap >= -error
        first, close = first + won, close + (won or within)
        verdict = "first" if won else "within" if within else "behind"
        print(f"{name:<16}{peer:<6}{gap:+9.3f} ({error:.3f})  {verdict}")
    print(f"ours is first on {first} of {len(compared)} sets, first or within one standard error on {close}")


def print_table(lines):
    """All tables, for each budget and number of training rows of the file."""
    for budget, rows in sorted({(line["budget"], line["train_rows"] or 0) for line in lines}):
        chosen = [v for v in lines if (v["budget"], v["train_rows"] or 0) == (budget, rows)]
        results = Results(chosen)
        seeds = sorted({line["seed"] for line in chosen})
        most = f", at most {rows} training rows" if rows else ""
        print(f"\nMean test log-likelihood, nats, columns scaled by training rows; {budget:g} s a fit{most}")
        print(f"median over seeds {seeds} (standard error over rows) [largest minus smallest seed]; * is the first\n")
        if results.sets:
            print_likelihoods(results)
            print_divergences(results)
            print_ranks(results)
            print_gaps(results)
        for line in results.failed:
            print(f"failed: {line['set']}, {line['method']}, seed {line['seed']}: {line['error']}")


def main():
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="the folder that holds density/*.csv.gz")
    parser.add_argument("--budget", type=float, default=45.0, help="seconds of a fit, all tuning included")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--seed0", type=int, default=0, help="the first seed")
    parser.add_argument("--sets", nargs="*", default=list(SETS), choices=list(SETS), metavar="SET", help=f"{[*SETS]}")
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS), metavar="METHOD")
    parser.add_argument("--train-rows", type=int, help="train on so many rows (and an eighth of it for validation)")
    parser.add_argument("--out", default="density.jsonl", help="results, a line each")
    parser.add_argument("--table", action="store_true", help="print the tables of --out and run nothing")
    args = parser.parse_args()
    if not args.table:
        if args.data is None:
            parser.error("--data is needed to run")
        torch.set_num_threads(1)
        with threadpool_limits(1):
            run(args)
    print_table([v for v in lines_of(args.out).values() if v["set"] in args.sets and v["method"] in args.methods])


if __name__ == "__main__":
    main()
