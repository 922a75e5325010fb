"""Times: the variables that hold them, how they are decoded, and the regular raster of the frames of a radar."""
