"""Who runs the loop over shards, and when it stops."""
