"""A client of Millrace over HTTP. It imports nothing of the rest, so it can be used without it."""
