"""Where the cells of a file are: coordinates, map projection, cell sizes."""
