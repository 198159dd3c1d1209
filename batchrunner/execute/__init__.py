"""The engines: each hands shards to workers and yields their receipts."""
