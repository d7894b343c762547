"""Floor 2: from the cache to trained weights and logits."""
