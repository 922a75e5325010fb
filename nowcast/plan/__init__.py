"""Choose a complete config from the records and the speed of this machine, for `nowcast plan`."""
