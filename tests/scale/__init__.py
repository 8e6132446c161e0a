"""A database of any size in which one store has nearly everything, and what every statement reads of it."""
