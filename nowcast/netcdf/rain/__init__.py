"""What the numbers of a file mean: which variable is rain, its units, its packing, what is missing."""
