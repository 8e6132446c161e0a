"""What is wrong here, and what to do."""
