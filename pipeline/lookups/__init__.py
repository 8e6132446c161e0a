"""What is asked of PostgreSQL again and again, kept for a moment."""
