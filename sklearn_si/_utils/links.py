"""Links from the HTML picture of an estimator to its page of documentation, where that is published."""

import functools
import importlib
import importlib.metadata

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

    def _doc_link_url_param_generator(self):
        name, package = type(self).__name__, importlib.import_module("sklearn_si")
        public = [part for part in type(self).__module__.split(".") if not part.startswith("_")]
        return {"page": f"{'sklearn_si' if name in package.__all__ else '.'.join(public)}.{name}"}

    @property
    def _doc_link_template(self):
        return f"{documentation_url()}/generated/{{page}}.html"

    def _get_doc_link(self):
        return super()._get_doc_link() if documentation_url() else ""
