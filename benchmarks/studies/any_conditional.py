"""One fit of any columns given any others against a dedicated conditional fit of each question.

    OMP_NUM_THREADS=1 python benchmarks/studies/any_conditional.py --data PATH --seconds 60

For five random splits of the columns of protein and elevators into A and B: the mean log p(A given B) of held-out rows,
per column of A, of InterpolantFlow(conditionals="any") and of InterpolantFlow().fit(A, condition=B) in as many seconds;
and log p(A) + log p(B given A) against log p(B) + log p(A given B) of the former, per column: the difference of the
means, and the mean size of the difference of a row. Tables are cleaned and split as in density_sets.py, and scored in
standardised units. What is chosen, is chosen on validation rows (--judge valid); --judge test is run once.
"""

import argparse
import time
import warnings

import numpy as np
import torch

from density_sets import SETS, from_file, split
from sklearn_si import InterpolantFlow

TABLES = {"protein": SETS["protein"], "elevators": from_file("elevators")}


def splits(d, n, seed):
    """Some random splits of the columns: A and B, each of two columns or more."""
    rng = np.random.default_rng([seed, 26])
    for _ in range(n):
        order, k = rng.permutation(d), int(rng.integers(2, d - 1))
        yield sorted(order[:k].tolist()), sorted(order[k:].tolist())


def of_one_fit(train, judge, args, parts):
    """Per split, log p(A given B) of each row, and that of the whole row in two orders."""
    settings = dict(pair.split("=") for pair in args.set)
    settings = {
        name: tuple(map(int, v.split(","))) if "," in v else int(v) if v.isdigit() else float(v)
        for name, v in settings.items()
    }
    began = time.perf_counter()
    flow = InterpolantFlow(conditionals="any", max_time=args.seconds, random_state=args.seed, **settings).fit(train)
    seconds = time.perf_counter() - began
    joint = flow.score(judge) / judge.shape[1]
    print(f"  one fit: {seconds:.0f} s, {flow.n_iter_} steps, {type(flow.preprocessing_).__name__}", flush=True)
    print(f"  joint log-density per column {joint:.4f}", flush=True)
    found = []
    for A, B in parts:
        a_given_b, b_given_a = flow.score_samples(judge, given=B), flow.score_samples(judge, given=A)
        orders = flow.score_samples(judge, columns=A) + b_given_a, flow.score_samples(judge, columns=B) + a_given_b
        found.append((a_given_b, *orders))
    return found


def of_dedicated_fits(train, judge, args, parts):
    """Per split, log p(A given B) of each row by a fit of its own."""
    for A, B in parts:
        flow = InterpolantFlow(max_time=args.seconds, random_state=args.seed)
        flow.fit(train[:, A], condition=train[:, B])
        yield flow.score_samples(judge[:, A], condition=judge[:, B])


def line_of(question, one, dedicated, d):
    """The figures of a split."""
    A, B = question
    line = f"  {len(A)} given {len(B)}:"
    if dedicated is not None:
        line += f" dedicated {dedicated.mean() / len(A):.4f}"
    if one is None:
        return line
    a_given_b, first, second = one
    line += f" one fit {a_given_b.mean() / len(A):.4f}"
    if dedicated is not None:
        behind = (dedicated - a_given_b) / len(A)
        line += f", behind by {behind.mean():+.4f} ({behind.std() / len(behind) ** 0.5:.4f})"
    apart = (first - second) / d
    return f"{line}, orders {apart.mean():+.4f}, of a row {np.abs(apart).mean():.4f}"


def main():
    """Read the arguments, and print a line for each split."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="the folder above density/")
    parser.add_argument("--tables", nargs="*", default=list(TABLES))
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--rows", type=int, default=1000, help="held-out rows that are scored")
    parser.add_argument("--judge", choices=["valid", "test"], default="test")
    parser.add_argument("--set", nargs="*", default=[], help="parameters of the one fit, such as dropout=0.1")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=["one", "dedicated"], help="leave the other out")
    parser.add_argument("--cpu", action="store_true", help="count the processor's seconds, where others use it as well")
    args = parser.parse_args()
    if args.cpu:
        time.perf_counter = time.process_time
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in args.tables:
        parts = split(TABLES[name](args.data, args.seed), args.seed)
        judge = getattr(parts, args.judge)[: args.rows]
        train = parts.train if args.judge == "valid" else np.concatenate([parts.train, parts.valid])
        questions = list(splits(train.shape[1], args.splits, args.seed))
        print(f"{name}: {train.shape[0]} rows, {train.shape[1]} columns", flush=True)
        n = len(questions)
        ours = [None] * n if args.only == "dedicated" else of_one_fit(train, judge, args, questions)
        theirs = [None] * n if args.only == "one" else of_dedicated_fits(train, judge, args, questions)
        for question, one, dedicated in zip(questions, ours, theirs, strict=True):
            print(line_of(question, one, dedicated, train.shape[1]), flush=True)


if __name__ == "__main__":
    main()
