"""`make bench`: Millrace beside the bare limit of the same machine. Run as `python -m bench`."""
