"""From the first byte of an upload to its asset: accepted, ingested, swept for, and what became of it."""
