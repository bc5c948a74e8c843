"""Prediction as a distribution: a regressor around flows."""
