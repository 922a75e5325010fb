"""`nowcast plan`: a config from a look at the records and this machine."""
