"""Faster computation of ConvLSTM layers, with the same results. It need not be read to understand or change a model."""
