"""Many trainings of one recipe, each a run of its own: cross-validation, and the search for a better recipe."""
