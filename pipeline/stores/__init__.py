"""What a process knows of the stores: which are ours, which are silent, what was read, what is said of them."""
