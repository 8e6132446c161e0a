"""Rendering what is asked of a picture, and waiting for it."""
