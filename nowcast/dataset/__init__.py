"""From records to batches: find windows, split them, pack the frames, draw and load batches."""
