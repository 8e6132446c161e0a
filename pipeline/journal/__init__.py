"""The catalogue: what a database made anew must be told, kept beside the bytes. See docs/recovery.md."""
