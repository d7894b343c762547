"""Floor 2: from saved logits to numbers, figures and pages. Never imports torch."""
