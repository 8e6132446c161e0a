"""Which stores hold which bytes, and how to get at them."""
