"""The videos that rows come from: which may be read, and whether they are still the same."""
