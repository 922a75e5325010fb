"""The ConvLSTM engine: faster ways to the same values. It need not be read to change a model."""
