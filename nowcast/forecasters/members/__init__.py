"""Ensemble members: rain that might fall, drawn from a forecaster's own probabilities; the page is README.md."""
