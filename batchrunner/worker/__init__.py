"""The far side of a run: reads, maps, writes and commits shards, wherever it is started. No Ray."""
