"""What there is to do: the source's shards, which of them are committed, which are not, and why."""
