"""Evidence: grids of trainings, their result cards, and the statistics of paired differences."""
