"""What the papers' methods read from a cache, and how their models are made, trained and asked."""
