"""One file per container. Each has `look(header, limits) -> Described`, which checks no limits but stops early where
counting on could take long. Adding a format: one file here, one line in `SIGNATURES` and `CONTAINERS` of
`imaging/probe.py`."""
