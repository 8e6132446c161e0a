"""Bytes: their replicas, their garbage, and what moves, repairs and counts them."""
