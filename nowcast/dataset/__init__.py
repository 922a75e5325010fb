"""Records to batches: windows, splits, packed frames, batches."""
