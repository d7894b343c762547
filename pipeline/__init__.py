"""Floor 3: what a person types."""
