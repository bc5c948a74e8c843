"""Links from the HTML representation of an estimator to its documentation page, if that is published."""

import functools
import importlib.metadata
import itertools
from typing import ClassVar

from sklearn.base import BaseEstimator


@functools.cache
def documentation_url() -> str:
    """The documentation URL in the metadata of the package, or an empty string."""
    try:
        urls = importlib.metadata.metadata("sklearn-si").get_all("Project-URL") or []
    except importlib.metadata.PackageNotFoundError:  # a source tree that was not installed
        return ""
    named = dict(url.split(", ", 1) for url in urls)
    return named.get("Documentation", "").rstrip("/")


class LinkedEstimator(BaseEstimator):
    """An estimator whose HTML representation links to its page here, not to a page of scikit-learn."""

    _doc_link_module = "sklearn_si"
    # The module that documents the class, if it is not the public part of the module that defines the class.
    _documented_in: ClassVar[str] = ""

    def _doc_link_url_param_generator(self):
        public = itertools.takewhile(lambda part: not part.startswith("_"), type(self).__module__.split("."))
        return {"page": f"{self._documented_in or '.'.join(public)}.{type(self).__name__}"}

    @property
    def _doc_link_template(self):
        return f"{documentation_url()}/generated/{{page}}.html"

    def _get_doc_link(self):
        return super()._get_doc_link() if documentation_url() else ""
