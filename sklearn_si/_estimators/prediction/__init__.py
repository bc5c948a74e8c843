"""Prediction as a distribution: a regressor and a classifier around flows."""
