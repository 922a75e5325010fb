"""Forecaster and records to forecast files."""
