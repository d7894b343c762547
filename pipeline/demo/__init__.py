"""The controlled world: videos with known causes and known confounders."""
