"""Load mutants of saved files: each gives an estimator or a LoadError, in bounded time and memory, and nothing else.

    python benchmarks/checks/fuzz.py --seconds 3600
    python benchmarks/checks/fuzz.py --only 1234 --seed 0

The corpus is one saved file of each kind of model. The interpreter's audit watches what is opened, imported, compiled
or started; a process of its own does the work, so that a crash is a finding and not the end. Models that load are
printed, asked for their parameters, sampled and scored: those may raise what they like, and may take long (a file may
say a million steps), but may not crash and may touch nothing. Ends with status 1 when there is a finding; --only loads
the mutant of one number again and tells what it does.
"""

import argparse
import collections
import contextlib
import pathlib
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import tracemalloc
import warnings

TESTS = pathlib.Path(__file__).parents[2] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "persistence")]

LOAD_SECONDS, USE_SECONDS, SILENCE = 10, 2, 60
# Bytes that `load` may take of its own and for each byte of the file, and address space that a process may add.
MEMORY, TIMES, SPACE, TRACED = 4 * 2**20, 40, 2**30, 16


class TooLong(BaseException):
    """No `except Exception` on the way may take it for an error of its own."""


@contextlib.contextmanager
def limit(seconds):
    def end(number, frame):
        raise TooLong

    signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def make_corpus(folder):
    import sklearn_si
    from sklearn_si.persistence._archive import write
    from sklearn_si.tables import InterpolantImputer, TableCodec, TableSynthesizer
    from test_persistence import FRAME, MODELS, SMALL, X0

    models = {
        **{name: make() for name, make in MODELS.items()},
        "unfitted": sklearn_si.InterpolantFlow(**SMALL),
        "codec": TableCodec(random_state=0).fit(FRAME),
        "imputer": InterpolantImputer(TableSynthesizer(max_iter=3), random_state=0).fit(FRAME),
        "condition": sklearn_si.InterpolantFlow(**SMALL).fit(X0, condition=["a", "b"] * 40),
    }
    for name, model in models.items():
        sklearn_si.save(model, folder / f"{name}.si")
    state = {"a": [1, 2.5, None], "b": {"c": (X0, "x"), 3: {1, 2}}, "flow": models["unfitted"]}
    write(state, folder / "dict.si", "state")


def use(model, rows):
    """What readers do with a model, each of which may fail; the findings."""
    import fuzzing

    calls = {
        "repr": lambda: repr(model), "get_params": lambda: model.get_params(), "picture": lambda: model._repr_html_(),
        "sample": lambda: model.sample(2), "score_samples": lambda: model.score_samples(rows),
        "transform": lambda: model.transform(rows),
    }  # fmt: skip
    for name, call in calls.items():
        try:
            with limit(USE_SECONDS), contextlib.suppress(Exception):
                found = call()
                if name == "picture" and fuzzing.PLANTED in found:
                    return "finding", ["the picture holds text of the file as it is"]
        except TooLong:
            if name in ("repr", "get_params", "picture"):
                return "finding", [f"{name} took more than {USE_SECONDS} s"]
            return "loaded, long", []
    return "loaded", []


def load(path):
    """Outcome of one file, its model if it has one, and the findings."""
    import sklearn_si
    from sklearn_si.exceptions import LoadError

    try:
        with limit(LOAD_SECONDS):
            return "loaded", sklearn_si.load(path), []
    except LoadError:
        return "refused", None, []
    except TooLong:
        return "finding", None, [f"load took more than {LOAD_SECONDS} s"]
    except BaseException:
        return "finding", None, [f"load raised {traceback.format_exc(limit=-2)}"]


def try_mutant(path, guard, traced, rows):
    """Outcome of one file, and the findings."""
    if traced:
        tracemalloc.start()
    with guard(path):
        outcome, model, findings = load(path)
        if traced:
            peak, size = tracemalloc.get_traced_memory()[1], path.stat().st_size
            tracemalloc.stop()
            if peak > MEMORY + TIMES * size:
                findings.append(f"load took {peak} bytes for a file of {size}")
        if model is not None:
            outcome, found = use(model, rows)
            findings += found
    findings += guard.violations
    return "finding" if findings else outcome, findings


def work(args, folder):
    """The process that loads: a line before each mutant, and one after."""
    import numpy as np
    import torch

    import fuzzing
    from test_persistence import FRAME

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    files = sorted(folder.glob("*.si"))
    guard, path = fuzzing.Guard(), folder / "mutant"
    rows = {True: FRAME.head(2), False: np.zeros((2, 2))}
    for file in files:
        _, model, _ = load(file)  # what packages import late, they import now
        if model is not None:
            use(model, rows["table" in file.name])
        outcome, findings = try_mutant(file, guard, False, rows["table" in file.name])
        if findings:
            raise RuntimeError(f"The good file {file.name} is {outcome}, with {findings}.")
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + SPACE,) * 2)
    datas, number, end = [file.read_bytes() for file in files], args.work, time.monotonic() + args.seconds
    while time.monotonic() < end:
        kind, data = fuzzing.mutant(f"{args.seed} {number}", datas)
        path.write_bytes(data)
        print(f"{number}\t{kind}", flush=True)
        outcome, findings = try_mutant(path, guard, number % TRACED == 0, rows[number % 2 == 0])
        print(f"{outcome}\t{findings!r}", flush=True)
        number += 1
        if args.only is not None:
            return


def run(args, folder, first, seconds):
    """One process of `work`, as long as it lives: yields number, kind, outcome, findings."""
    command = [sys.executable, __file__, "--work", str(first), "--seconds", str(seconds), "--seed", str(args.seed)]
    only = [] if args.only is None else ["--only", str(args.only)]
    worker = subprocess.Popen([*command, *only, "--folder", str(folder)], stdout=subprocess.PIPE, text=True, bufsize=1)
    number = kind = None
    while True:
        heard = select.select([worker.stdout], [], [], SILENCE)[0]
        line = worker.stdout.readline() if heard else ""
        if not line:
            break
        if number is None:
            number, kind = line.rstrip("\n").split("\t")
            continue
        outcome, findings = line.rstrip("\n").split("\t", 1)
        yield int(number), kind, outcome, findings
        first, number = int(number) + 1, None
    if not heard:
        worker.kill()
    status = worker.wait()
    if status and kind is None:
        raise RuntimeError(f"The process that loads has ended before its first mutant, with status {status}.")
    if status:
        why = f"status {status}" if heard else f"silent for {SILENCE} s"
        yield first, kind, "finding", f"the process ended: {why}"


def fuzz(args, folder):
    """All processes; how often each outcome came, and the findings."""
    counts, findings = collections.Counter(), []
    first, end = args.only or 0, time.monotonic() + args.seconds
    told = time.monotonic()
    while (left := end - time.monotonic()) > 0:
        for number, kind, outcome, found in run(args, folder, first, left):
            first = number + 1
            counts[kind, outcome] += 1
            if outcome == "finding":
                findings.append(f"--seed {args.seed} --only {number} ({kind}): {found}")
                print(findings[-1], flush=True)
            if time.monotonic() - told > 60:
                told = time.monotonic()
                print(f"{end - told:6.0f} s left: {sum(counts.values())} mutants, {len(findings)} findings", flush=True)
        if args.only is not None or len(findings) > 100:
            break
    return counts, findings


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="number of the one mutant to load")
    parser.add_argument("--work", type=int, help="first mutant of the process that loads (set by this program)")
    parser.add_argument("--folder", type=pathlib.Path, help="of the corpus (set by this program)")
    args = parser.parse_args()
    if args.work is not None:
        work(args, args.folder)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        make_corpus(pathlib.Path(folder))
        began = time.monotonic()
        counts, findings = fuzz(args, pathlib.Path(folder))
        seconds = time.monotonic() - began
    outcomes = ("loaded", "loaded, long", "refused", "finding")
    print(f"{'mutants':<12}" + "".join(f"{name:>14}" for name in outcomes))
    for kind in sorted({kind for kind, _ in counts}):
        print(f"{kind:<12}" + "".join(f"{counts[kind, name]:>14}" for name in outcomes))
    total = sum(counts.values())
    print(f"{total} mutants in {seconds:.0f} s, {total / seconds:.1f} a second; {len(findings)} findings")
    print("\n".join(findings))
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
