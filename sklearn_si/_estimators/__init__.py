"""The estimators: parameters, validation and documentation."""
