"""`flicker sweep`: a grid of runs, each a result folder; what is there already is not run again."""
