"""A database made anew from the catalogue and the stores. See docs/recovery.md."""
