"""One choice of the defaults against another, on validation rows of the sets of density.py.

    OMP_NUM_THREADS=1 python benchmarks/studies/ablation.py --data PATH --sets digits wine --budget 20 \
        --try preprocessing=whiten --try preprocessing=marginal,dropout=0.3

Every --try is a set of parameters of InterpolantFlow, in Python's notation, in addition to max_time and random_state.
The model is fitted to the training rows of the split and judged by its validation rows; test rows are not touched.
Prints mean log-likelihoods with their standard errors, the score of the rows that the fit itself held out, and that of
training rows: the three tell a bad fit from one that overfits.
"""

import argparse
import ast
import time
import warnings

import torch
from threadpoolctl import threadpool_limits

from density_sets import SETS, load
from sklearn_si import InterpolantFlow

ROWS = 1000


def parameters(text):
    """A dict from "a=1,b=(2, 3)"; names need no quotes."""
    call = ast.parse(f"f({text})", mode="eval").body
    return {k.arg: k.value.id if isinstance(k.value, ast.Name) else ast.literal_eval(k.value) for k in call.keywords}


def row(name, text, args, seed):
    """Fit one model and print its line."""
    split = load(name, args.data, seed)
    began = time.perf_counter()
    flow = InterpolantFlow(random_state=seed, max_time=args.budget, device="cpu", **parameters(text)).fit(split.train)
    seconds = time.perf_counter() - began
    rows = flow.score_samples(split.valid[:ROWS])
    head = f"seed {seed}  {name:<14}{text:<44}"
    error = rows.std() / len(rows) ** 0.5
    scores = f"{rows.mean():9.3f} ({error:.3f})  held out {flow.best_validation_score_:9.3f}"
    print(
        f"{head}{scores}  training {flow.score(split.train[:ROWS]):9.3f}  {flow.n_iter_} steps, {seconds:.1f} s",
        flush=True,
    )


def main():
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="the folder that holds density/*.csv.gz")
    parser.add_argument("--budget", type=float, default=20.0, help="seconds of a fit")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--sets", nargs="*", default=list(SETS), choices=list(SETS), metavar="SET", help=f"{[*SETS]}")
    parser.add_argument("--try", dest="tries", action="append", default=[], metavar="PARAMETERS")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with threadpool_limits(1):
        for seed in range(args.seeds):
            for name in args.sets:
                for text in args.tries or [""]:
                    row(name, text, args, seed)


if __name__ == "__main__":
    main()
