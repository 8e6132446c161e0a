"""Reading assets and deleting them."""
