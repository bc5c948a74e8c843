"""Synthetic tables, imputation and conditions beside peers, on held-out rows.

    OMP_NUM_THREADS=1 python benchmarks/studies/tables.py round large small impute given end --data PATH --splits 3

large   adult and diamonds (csv.gz under --data): C2ST against held-out rows, mean distance of marginals and of pairs,
        and on adult the area under the curve after training on synthetic rows. Peers: arfpy (--trees), a Gaussian
        copula (our codec, a normal distribution of its columns), independent columns
small   iris, wine, breast cancer, diabetes, with their labels: W1 to test rows and coverage as in ForestDiffusion's
        protocol (min-max, one-hot halved, L1), seconds of fit and of one sample. Peers: ForestDiffusion's flow with
        --duplicates and --times (its defaults are 100 and 50), the copula, independent columns
impute  20 % of the cells of adult and breast cancer missing at random: energy distance of completed to true rows,
        area under the curve after training on completed rows, coverage of 90 % intervals of 39 draws. Peers:
        IterativeImputer, KNNImputer
given   one, three and six columns fixed to held-out values: C2ST of whole rows beside that of rows drawn freely, and
        the cost; with --protocol-file also C2ST-XGB against as many training rows
round   the tables of --data: round trip of the codec; dtypes, ranges, levels and gap rates of as many drawn rows
protocol the published protocol of TabSyn, TabDiff and TabPC (adult_raw, default, shoppers with their _test files under
        --data; --protocol-file is the module that measures; --seeds fits a table) beside their figures
end     adult: fit, as many rows as the table has, report

Peers: pip install POT, and ForestDiffusion or (with numpy < 2.2 and pandas < 2.3) arfpy. All are given one thread and
the same rows; none validates on test rows.
"""

import argparse
import importlib
import importlib.util
import time
import warnings

import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist
from sklearn import datasets
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import OrdinalEncoder

from sklearn_si.metrics import c2st, energy_distance, marginal_distances, pair_trends, train_on_synthetic
from sklearn_si.metrics._encoder import TableEncoder
from sklearn_si.tables import InterpolantImputer, TableCodec, TableReport, TableSynthesizer

TARGETS = {"adult": "income_over_50k"}


class Independent:
    """Each column drawn on its own."""

    def fit(self, frame):
        self.frame = frame
        return self

    def sample(self, n, rng):
        return pd.DataFrame({c: self.frame[c].to_numpy()[rng.integers(len(self.frame), size=n)] for c in self.frame})


class Copula:
    """A normal distribution of the columns of the codec: correlated normal scores."""

    def fit(self, frame):
        self.codec = TableCodec(random_state=0).fit(frame)
        self.covariance = np.corrcoef(self.codec.transform(frame), rowvar=False)
        return self

    def sample(self, n, rng):
        rows = rng.multivariate_normal(np.zeros(len(self.covariance)), self.covariance, n, check_valid="ignore")
        return self.codec.inverse_transform(rows)


class Arf:
    """Adversarial random forests (arfpy); gaps of text are a level."""

    def __init__(self, trees):
        self.trees = trees

    def fit(self, frame):
        arf = importlib.import_module("arfpy.arf")
        frame = frame.copy()
        self.texts = [c for c in frame if frame[c].dtype.kind not in "iuf"]
        for column in frame:
            if column in self.texts:
                frame[column] = frame[column].astype(object).where(frame[column].notna(), "missing").astype("category")
        self.columns, self.dtypes = list(frame), frame.dtypes
        self.model = arf.arf(x=frame, num_trees=self.trees, verbose=False, random_state=0)
        self.model.forde()
        return self

    def sample(self, n, rng):
        np.random.seed(int(rng.integers(2**31)))  # noqa: NPY002 (it has no seed of its own)
        rows = self.model.forge(n=n)[self.columns]
        for column in self.columns:
            if column in self.texts:
                rows[column] = rows[column].astype(object).replace("missing", np.nan)
            elif self.dtypes[column].kind == "i":
                rows[column] = rows[column].round().astype("int64")
        return rows


class Forest:
    """ForestDiffusion's flow, with a model for each label where there are labels."""

    def __init__(self, duplicates, times):
        self.duplicates, self.times = duplicates, times

    def fit(self, frame):
        module = importlib.import_module("ForestDiffusion")
        values = frame.to_numpy(dtype=np.float64)
        self.names, self.labelled = list(frame), frame.columns[-1] == "label"
        X, y = (values[:, :-1], values[:, -1]) if self.labelled else (values, None)
        self.model = module.ForestDiffusionModel(
            X, label_y=y, n_t=self.times, duplicate_K=self.duplicates, diffusion_type="flow", n_jobs=1, seed=0
        )
        return self

    def sample(self, n, rng):
        np.random.seed(int(rng.integers(2**31)))  # noqa: NPY002
        rows = pd.DataFrame(self.model.generate(batch_size=n), columns=self.names)
        return rows.astype({"label": int}) if self.labelled else rows


class Ours:
    """TableSynthesizer."""

    def fit(self, frame):
        self.model = TableSynthesizer(random_state=0).fit(frame)
        return self

    def sample(self, n, rng):
        return self.model.sample(n, random_state=int(rng.integers(2**31)))


def timed(call):
    began = time.perf_counter()
    return call(), time.perf_counter() - began


def show(title, rows):
    """A line for each method: medians over the splits, and the spread of the first figure."""
    for name, figures in rows.items():
        names = list(figures[0])
        values = {key: np.array([f[key] for f in figures], dtype=float) for key in names}
        text = "  ".join(f"{key} {np.median(v):.4f} ({np.ptp(v):.3f})" for key, v in values.items())
        print(f"{title:<14} {name:<22} {text}", flush=True)


def large(args):
    for name in args.tables:
        frame, rows = pd.read_csv(f"{args.data}/{name}.csv.gz"), {}
        for split in range(args.splits):
            train, test = (f.reset_index(drop=True) for f in train_test_split(frame, test_size=0.2, random_state=split))
            rng = np.random.default_rng(split)
            makers = {
                "ours": Ours,
                "arfpy": lambda: Arf(args.trees),
                "Gaussian copula": Copula,
                "independent": Independent,
            }
            for method in args.methods or makers:
                maker = makers[method]
                model, fit_seconds = timed(lambda maker=maker, train=train: maker().fit(train))
                made, seconds = timed(lambda model=model, train=train, rng=rng: model.sample(len(train), rng))
                rows.setdefault(method, []).append(_likeness(name, made, train, test, fit_seconds, seconds))
            rows.setdefault("training rows", []).append(_likeness(name, train, train, test, 0, 0))
        show(name, rows)


def _likeness(name, made, train, test, fit_seconds, seconds):
    figures = {
        "C2ST": c2st(test, made),
        "marginals": np.mean(list(marginal_distances(test, made).values())),
        "pairs": pair_trends(test, made).sum() / (test.shape[1] * (test.shape[1] - 1)),
    }
    if name in TARGETS:
        result = train_on_synthetic(made, test, target=TARGETS[name], train=train)
        figures |= {"AUC": result.synthetic, "AUC of real rows": result.real}
    return {**figures, "fit s": fit_seconds, "sample s": seconds}


def small_tables():
    for name in ("iris", "wine", "breast_cancer", "diabetes"):
        data = getattr(datasets, f"load_{name}")(as_frame=True, **({"scaled": False} if name == "diabetes" else {}))
        last = "progression" if name == "diabetes" else "label"
        yield name, data.data.assign(**{last: data.target})


def small(args):
    makers = {
        "ours": Ours, "ForestDiffusion": lambda: Forest(args.duplicates, args.times), "Gaussian copula": Copula,
        "independent": Independent,
    }  # fmt: skip
    totals = {}
    for name, frame in small_tables():
        rows = {}
        for split in range(args.splits):
            labels = frame.get("label")
            train, test = train_test_split(frame, test_size=0.2, random_state=split, stratify=labels)
            train, test = train.reset_index(drop=True), test.reset_index(drop=True)
            for method, maker in makers.items():
                model, fit_seconds = timed(lambda maker=maker, train=train: maker().fit(train))
                rng, seconds, figures = np.random.default_rng(split), [], []
                for _ in range(args.draws):
                    made, spent = timed(lambda model=model, train=train, rng=rng: model.sample(len(train), rng))
                    seconds.append(spent)
                    figures.append(_protocol(train, test, made))
                mean = {key: np.mean([f[key] for f in figures]) for key in figures[0]}
                rows.setdefault(method, []).append({**mean, "fit s": fit_seconds, "sample s": np.median(seconds)})
            rows.setdefault("training rows", []).append(_protocol(train, test, train))
        show(name, rows)
        for method, figures in rows.items():
            totals.setdefault(method, []).extend(figures)
    for method, figures in totals.items():
        text = "  ".join(f"{key} {np.mean([f[key] for f in figures]):.4f}" for key in figures[0])
        print(f"{'mean':<14} {method:<22} {text}", flush=True)


def _protocol(train, test, made):
    """W1 and coverage of ForestDiffusion's protocol: scales and levels of the training rows, L1 distances."""
    ot = importlib.import_module("ot")
    categorical = {c: str for c in train if c == "label"}
    encoder = TableEncoder(train.astype(categorical))
    a, b, c = (encoder.for_distances(t.astype(categorical)) for t in (train, test, made))
    distances = {"W1 train": cdist(a, c, "cityblock"), "W1 test": cdist(b, c, "cityblock")}
    figures = {key: ot.emd2([], [], d) for key, d in distances.items()}
    for key, rows, near in (("coverage train", a, distances["W1 train"]), ("coverage test", b, distances["W1 test"])):
        figures[key] = _coverage(rows, near, cdist(b if rows is a else a, rows, "cityblock").T)
    return figures


def _coverage(rows, to_made, to_real):
    """Share of rows whose ball holds a made row, with the least k for which 95 % hold a real row of the other part."""
    within = np.sort(cdist(rows, rows, "cityblock"), axis=1)
    for k in range(1, len(rows)):
        if (to_real.min(1) <= within[:, k]).mean() >= 0.95:
            break
    return float((to_made.min(1) <= within[:, k]).mean())


def impute(args):
    for name, frame, target in _complete_tables(args.data):
        rows = {}
        for split in range(args.splits):
            train, test = train_test_split(frame, test_size=0.2, random_state=split)
            train, test = train.reset_index(drop=True), test.reset_index(drop=True)
            rng = np.random.default_rng(split)
            holes = rng.uniform(size=train.shape) < 0.2
            gapped = train.mask(holes)
            for method, complete in _imputers().items():
                (filled, draws), seconds = timed(lambda complete=complete, gapped=gapped: complete(gapped))
                figures = {
                    "energy": _energy(train, filled, rng), "AUC": _auc(filled, test, target),
                    "AUC of true rows": _auc(train, test, target), "seconds": seconds,
                }  # fmt: skip
                if draws is not None:
                    figures["coverage of 90 %"] = _interval_coverage(train, draws, holes, rng)
                else:
                    figures["coverage of 90 %"] = np.nan
                rows.setdefault(method, []).append(figures)
        show(name, rows)


def _complete_tables(path):
    adult = pd.read_csv(f"{path}/adult.csv.gz").dropna().sample(6000, random_state=0).reset_index(drop=True)
    yield "adult", adult, "income_over_50k"
    data = datasets.load_breast_cancer(as_frame=True)
    yield "breast_cancer", data.data.assign(label=np.where(data.target, "b", "m")), "label"


def _imputers():
    def ours(frame):
        imputer = InterpolantImputer(random_state=0).fit(frame)
        draws = imputer.synthesizer_.impute(frame, n_draws=39, random_state=1)
        return draws[0], draws

    def averaged(frame):
        return InterpolantImputer(average=15, random_state=0).fit_transform(frame), None

    def codes_by(imputer):
        def complete(frame):
            texts = [c for c in frame if frame[c].dtype.kind not in "iuf"]
            encoder = OrdinalEncoder(encoded_missing_value=np.nan).fit(frame[texts])
            numbers = frame.copy()
            numbers[texts] = encoder.transform(frame[texts])
            numbers = numbers.astype(np.float64)
            scale = numbers.std()
            filled = pd.DataFrame(imputer.fit_transform(numbers / scale) * scale.to_numpy(), columns=frame.columns)
            for k, column in enumerate(texts):
                levels = encoder.categories_[k]
                levels = levels[: len(levels) - int(pd.isna(levels[-1]))]
                filled[column] = levels[filled[column].round().clip(0, len(levels) - 1).astype(int)]
            return filled, None

        return complete

    return {
        "ours (a draw)": ours,
        "ours (mean of 15)": averaged,
        "IterativeImputer": codes_by(IterativeImputer(random_state=0)),
        "... with draws": codes_by(IterativeImputer(sample_posterior=True, random_state=0)),
        "KNNImputer": codes_by(KNNImputer()),
    }


def _energy(true, filled, rng):
    encoder = TableEncoder(true)
    some = rng.permutation(len(true))[:3000]
    rows = [encoder.for_distances(t.iloc[some].reset_index(drop=True)) for t in (true, filled)]
    return energy_distance(*rows, standardize=False)


def _auc(train, test, target):
    encoder = TableEncoder(test)
    j = encoder.names.index(target)
    a, b = encoder.for_trees(train), encoder.for_trees(test)
    trees = HistGradientBoostingClassifier(categorical_features=np.delete(~encoder.is_number, j), random_state=0)
    trees.fit(np.delete(a, j, axis=1), a[:, j])
    return roc_auc_score(b[:, j], trees.predict_proba(np.delete(b, j, axis=1))[:, 1])


def _interval_coverage(true, draws, holes, rng):
    """Share of missing numbers whose rank among 39 draws, ties at random, is neither of the two lowest or highest."""
    inside = []
    for j, column in enumerate(true):
        if true[column].dtype.kind in "iuf":
            rows = np.flatnonzero(holes[:, j])
            drawn = np.stack([d[column].to_numpy()[rows] for d in draws]).astype(np.float64)
            truth = true[column].to_numpy()[rows]
            below, equal = (drawn < truth).sum(0), (drawn == truth).sum(0)
            rank = below + rng.integers(equal + 1)
            inside.append((rank >= 2) & (rank <= 37))
    return float(np.concatenate(inside).mean())


def given(args):
    for name in args.tables:
        frame, rows = pd.read_csv(f"{args.data}/{name}.csv.gz"), {}
        for split in range(args.splits):
            train, test = (f.reset_index(drop=True) for f in train_test_split(frame, test_size=0.2, random_state=split))
            rng = np.random.default_rng(split)
            model, detected = TableSynthesizer(random_state=0).fit(train), _detection(args, train)
            half = len(test) // 2
            fixed, others = test.iloc[:half].dropna().reset_index(drop=True), test.iloc[half:].reset_index(drop=True)
            free, free_seconds = timed(lambda model=model, fixed=fixed: model.sample(len(fixed), random_state=1))
            rows.setdefault("nothing given", []).append(
                {"C2ST": c2st(others, free), **detected(free), "seconds over those of a free draw": 1.0}
            )
            for n in (1, 3, 6):
                columns = list(rng.permutation(list(frame))[:n])
                drawn, seconds = timed(
                    lambda model=model, fixed=fixed, columns=columns: model.sample(given=fixed[columns], random_state=1)
                )
                rows.setdefault(f"{n} given", []).append(
                    {
                        "C2ST": c2st(others, drawn),
                        **detected(drawn),
                        "seconds over those of a free draw": seconds / free_seconds,
                    }
                )
            rows.setdefault("held-out rows", []).append(
                {"C2ST": c2st(others, fixed), **detected(fixed), "seconds over those of a free draw": 0}
            )
        show(name, rows)


def round_trip(args):
    for name in ("adult", "diamonds", "titanic", "penguins"):
        frame = pd.read_csv(f"{args.data}/{name}.csv.gz")
        codec = TableCodec(random_state=0).fit(frame)
        pd.testing.assert_frame_equal(codec.inverse_transform(codec.transform(frame)), frame)
        made = TableSynthesizer(random_state=0, max_iter=args.steps or "auto").fit(frame).sample(len(frame))
        assert (made.dtypes == frame.dtypes).all()
        gaps = (made.isna().mean() - frame.isna().mean()).abs().max()
        inside, levels, known = True, 0, 0
        for column in frame:
            if frame[column].dtype.kind in "iuf":
                inside &= bool(made[column].dropna().between(frame[column].min(), frame[column].max()).all())
            else:
                there, drawn = set(frame[column].dropna()), set(made[column].dropna())
                inside &= drawn <= there
                levels, known = levels + len(there), known + len(drawn)
        print(
            f"{name:<10} round trip exact, dtypes equal, ranges and levels kept: {inside}, "
            f"{known} of {levels} levels drawn, gap rates differ by {gaps:.4f} at most",
            flush=True,
        )


def end(args):
    frame = pd.read_csv(f"{args.data}/adult.csv.gz")
    train, test = (f.reset_index(drop=True) for f in train_test_split(frame, test_size=0.2, random_state=0))
    model, fit_seconds = timed(lambda: TableSynthesizer(random_state=0).fit(train))
    made, seconds = timed(lambda: model.sample(len(frame)))
    report, report_seconds = timed(lambda: TableReport(train, made, test, target="income_over_50k", model=model))
    print(report)
    total = fit_seconds + seconds + report_seconds
    print(
        f"fit {fit_seconds:.0f} s, {len(frame)} rows {seconds:.1f} s, report {report_seconds:.0f} s, all {total:.0f} s"
    )


# Categorical columns and the target of the tables of the protocol.
PROTOCOL_TABLES = {
    "adult_raw": (
        ["workclass", "education", "marital.status", "occupation", "relationship", "race", "sex", "native.country"],
        "income",
    ),
    "default": (
        ["SEX", "EDUCATION", "MARRIAGE", "PAY_0", "PAY_2", "PAY_3", "PAY_4", "PAY_5", "PAY_6"],
        "default payment next month",
    ),
    "shoppers": (
        ["Month", "OperatingSystems", "Browser", "Region", "TrafficType", "VisitorType", "Weekend"],
        "Revenue",
    ),
}
# Shape error, Trend error, C2ST-XGB and MLE as published (TabPC, arXiv 2603.23016: means of five models).
PUBLISHED = {
    "adult_raw": {"TabSyn": (0.79, 2.05, 0.794, 0.910), "TabDiff": (0.68, 1.54, 0.841, 0.913),
                  "TabPC": (0.58, 1.44, 0.855, 0.916)},
    "default": {"TabSyn": (1.32, 2.88, 0.402, 0.759), "TabDiff": (1.16, 2.74, 0.591, 0.763),
                "TabPC": (0.54, 5.04, 0.262, 0.744)},
    "shoppers": {"TabSyn": (1.48, 2.29, 0.655, 0.914), "TabDiff": (1.49, 1.91, 0.736, 0.917),
                 "TabPC": (0.90, 1.78, 0.894, 0.897)},
}  # fmt: skip


def protocol_module(path):
    """The module that measures by the published protocol."""
    spec = importlib.util.spec_from_file_location("table_protocol", path)
    measure = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(measure)
    return measure


def _detection(args, train):
    """C2ST-XGB of tables against as many training rows; rare words count as one, which its encoder asks for."""
    if args.protocol_file is None:
        return lambda made: {}
    measure = protocol_module(args.protocol_file)
    words = [c for c in train if train[c].dtype.kind not in "iuf"]
    numbers = [c for c in train if c not in words]

    def prepared(table, real):
        table, real = table.copy(), real[words].fillna("missing").astype(str)
        table[numbers] = table[numbers].astype(np.float32).astype(float)
        for c in words:
            cells, rows = table[c].fillna("missing").astype(str), real[c].value_counts()
            table[c] = cells.where(cells.map(rows).fillna(0) >= 10, "other")
        return table[numbers + words]

    def detected(made):
        real = train.sample(len(made), random_state=1).reset_index(drop=True)
        return {"C2ST-XGB": measure.detection(prepared(real, real), prepared(made, real), numbers, words)[0]}

    return detected


def protocol(args):
    measure = protocol_module(args.protocol_file)
    names = ("Shape err", "Trend err", "C2ST-XGB", "MLE")
    for name in [n for n in args.tables if n in PROTOCOL_TABLES] or PROTOCOL_TABLES:
        categorical = [*PROTOCOL_TABLES[name][0], PROTOCOL_TABLES[name][1]]
        path, rows = f"{args.data}/{name}.csv.gz", {}
        real, numbers = measure.read(path, categorical)
        test, _ = measure.read(f"{args.data}/{name}_test.csv.gz", categorical)
        for seed in range(args.seeds):
            train = pd.read_csv(path)
            model, fit_seconds = timed(lambda seed=seed, train=train: TableSynthesizer(random_state=seed).fit(train))
            drawn, seconds = timed(
                lambda seed=seed, model=model, train=train: model.sample(len(train), random_state=seed)
            )
            made = drawn.copy()
            made[numbers] = made[numbers].astype(np.float32).astype(float)
            made = made[numbers + categorical]
            shape, trend, *_ = measure.quality(real, made, numbers, categorical)
            trees, logistic = measure.detection(real, made, numbers, categorical)
            efficacy = measure.efficacy(made, test, numbers, categorical, categorical[-1])
            figures = dict(zip(names, (shape, trend, trees, efficacy), strict=True))
            figures |= {"C2ST-LR": logistic, "fit s": fit_seconds, "sample s": seconds}
            rows.setdefault("ours", []).append(figures)
        for method, figures in PUBLISHED[name].items():
            rows[method] = [dict(zip(names, figures, strict=True))]
        show(name, rows)


PARTS = {
    "protocol": protocol,
    "round": round_trip,
    "large": large,
    "small": small,
    "impute": impute,
    "given": given,
    "end": end,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=PARTS)
    parser.add_argument("--data", help="folder with adult.csv.gz and diamonds.csv.gz")
    parser.add_argument("--tables", nargs="+", default=["adult", "diamonds"])
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--draws", type=int, default=5, help="samples of each fit of small")
    parser.add_argument("--methods", nargs="+", help="of large; all of them unless given")
    parser.add_argument("--steps", type=int, help="of round; the default is that of the estimator")
    parser.add_argument("--trees", type=int, default=30, help="of arfpy")
    parser.add_argument("--duplicates", type=int, default=10, help="of ForestDiffusion")
    parser.add_argument("--times", type=int, default=20, help="of ForestDiffusion")
    parser.add_argument("--protocol-file", help="of protocol: the module that measures, table_protocol.py")
    parser.add_argument("--seeds", type=int, default=1, help="fits of a table in protocol")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    for part in args.parts:
        print(f"\n{part}", flush=True)
        PARTS[part](args)


if __name__ == "__main__":
    main()
