"""What happened, as it is written down beside the bytes, and a database made anew from it."""
