"""The version of the package, here so that files can state it without an import of the whole package."""

__version__ = "0.1.0"
