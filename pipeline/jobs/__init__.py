"""Long work, over whole stores: what runs it, and one file for each kind."""
