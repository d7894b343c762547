"""Recipes: one TOML file per method, data set and task, every number in one place."""
