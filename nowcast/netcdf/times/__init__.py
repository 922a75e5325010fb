"""Times: which variable holds them, what its numbers mean, and the even raster that frames of a radar are on."""
