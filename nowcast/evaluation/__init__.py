"""Forecasters and records to scores with intervals."""
