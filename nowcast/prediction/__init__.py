"""Make forecasts from records and write forecast files."""
