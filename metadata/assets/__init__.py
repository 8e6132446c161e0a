"""Assets under their paths: recorded, found, deleted."""
