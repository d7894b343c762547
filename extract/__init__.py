"""Floor 2: videos go in once through frozen models and come out as cache shards."""
