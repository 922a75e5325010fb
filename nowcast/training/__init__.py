"""Train a network on the windows of an archive, and keep the run folder."""
