"""The network that corrects guidance: log-odds of an untrained model, at eight rain rates for every cell and lead time."""
