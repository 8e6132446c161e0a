"""Uploads, and what failed."""
