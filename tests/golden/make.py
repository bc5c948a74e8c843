"""Write the saved models that later versions must keep loading, with the log-densities that they gave.

python tests/golden/make.py    # from the root of the checkout, when the format of files changes
"""

import pathlib
import sys

import numpy as np

import sklearn_si

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "persistence"))

from test_persistence import FRAME, MODELS, X0  # noqa: E402 - after the path

for name, rows in (("flow", X0[:5]), ("table", FRAME.head(5))):
    model = MODELS[name]()
    sklearn_si.save(model, HERE / f"{name}_format1.si")
    np.save(HERE / f"{name}_format1.npy", model.score_samples(rows))
