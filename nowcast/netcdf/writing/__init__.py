"""Write records and the members of ensembles, and make the files for all that is written as CF NetCDF."""
