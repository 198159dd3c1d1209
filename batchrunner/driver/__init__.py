"""The driver of a run: plans, hands out shards to workers, and declares the output complete."""
