"""The grids of `python -m experiments.run`: one table each."""
