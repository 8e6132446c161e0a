"""Variants: asked for, leased, finished, lost."""
