"""Links from the HTML picture of an estimator to its page of documentation, where that is published."""

import functools
import importlib.metadata
import itertools
from typing import ClassVar

from sklearn.base import BaseEstimator


@functools.cache
def documentation_url() -> str:
    """The address that the package gives for its documentation; empty where it gives none."""
    try:
        urls = importlib.metadata.metadata("sklearn-si").get_all("Project-URL") or []
    except importlib.metadata.PackageNotFoundError:  # a source tree that was not installed
        return ""
    named = dict(url.split(", ", 1) for url in urls)
    return named.get("Documentation", "").rstrip("/")


class LinkedEstimator(BaseEstimator):
    """An estimator whose picture links its page here, and never a page of scikit-learn that does not exist."""

    _doc_link_module = "sklearn_si"
    # the module whose page lists the class, where it is another than the public part of the one that defines it
    _documented_in: ClassVar[str] = ""

    def _doc_link_url_param_generator(self):
        public = itertools.takewhile(lambda part: not part.startswith("_"), type(self).__module__.split("."))
        return {"page": f"{self._documented_in or '.'.join(public)}.{type(self).__name__}"}

    @property
    def _doc_link_template(self):
        return f"{documentation_url()}/generated/{{page}}.html"

    def _get_doc_link(self):
        return super()._get_doc_link() if documentation_url() else ""
