"""A second, closer look at the best hits."""
