"""Shards: which ones, what they lack, how they are filled and committed."""
