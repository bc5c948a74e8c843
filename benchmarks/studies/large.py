"""A table larger than memory would hold twice: fit and score a memory-mapped array in bounded anonymous memory.

    OMP_NUM_THREADS=1 python benchmarks/studies/large.py --rows 10000000 --columns 20 --folder /tmp

Prints the seconds and the highest anonymous memory (RssAnon, read every 20 ms; pages of the file can be dropped and do
not count) of making the file, of fits of --steps steps, and of scoring --scored rows.
"""

import argparse
import pathlib
import threading
import time

import numpy as np

from sklearn_si import InterpolantDiffusion, InterpolantFlow


def anonymous():
    """Anonymous memory of this process in MB."""
    text = pathlib.Path("/proc/self/status").read_text()
    return int(text.split("RssAnon:")[1].split()[0]) / 1024


class Peak:
    """The highest anonymous memory while it is entered."""

    def __enter__(self):
        self.most, self.done, self.began = anonymous(), threading.Event(), time.perf_counter()
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def watch(self):
        while not self.done.wait(0.02):
            self.most = max(self.most, anonymous())

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()
        self.seconds = time.perf_counter() - self.began


def make(path, rows, columns):
    """A correlated mixture, written piece by piece."""
    rng = np.random.default_rng(0)
    mixing = np.eye(columns) + 0.3 * rng.normal(size=(columns, columns))
    X = np.lib.format.open_memmap(path, "w+", np.float32, (rows, columns))
    for start in range(0, rows, 100_000):
        stop = min(start + 100_000, rows)
        shift = np.where(rng.uniform(size=(stop - start, 1)) < 0.3, 2.0, 0.0)
        X[start:stop] = (rng.normal(size=(stop - start, columns)) + shift) @ mixing
    X.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--columns", type=int, default=20)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--scored", type=int, default=100_000)
    parser.add_argument("--folder", default="/tmp")
    args = parser.parse_args()
    path = pathlib.Path(args.folder) / "large.npy"
    if not path.exists():
        make(path, args.rows, args.columns)
    X = np.load(path, mmap_mode="r")
    print(f"{X.shape}, {X.dtype}, {X.nbytes / 2**20:.0f} MB; before: {anonymous():.0f} MB")
    half = len(X) // 2
    fits = {
        "density": lambda: InterpolantFlow(max_iter=args.steps, random_state=0).fit(X),
        "bridge": lambda: InterpolantDiffusion(max_iter=args.steps, base_density=None, random_state=0).fit(
            X[:half], X[half:]
        ),
    }
    for name, fit in fits.items():
        with Peak() as fitting:
            model = fit()
        print(f"{name}: fit {fitting.seconds:.0f} s, at most {fitting.most:.0f} MB")
        if name == "density":
            with Peak() as scoring:
                score = model.score_samples(X[: args.scored]).mean()
            print(f"{args.scored} rows scored {scoring.seconds:.0f} s, at most {scoring.most:.0f} MB: {score:.3f} nats")


if __name__ == "__main__":
    main()
