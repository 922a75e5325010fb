"""Ensemble members, drawn from the probabilities of a forecaster; described in README.md."""
