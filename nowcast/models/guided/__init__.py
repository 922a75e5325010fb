"""The network that corrects guidance: log-odds that need no training, at eight rain rates for every cell and lead time."""
