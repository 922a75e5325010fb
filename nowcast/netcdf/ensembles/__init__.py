"""Ensembles in forecast files."""
