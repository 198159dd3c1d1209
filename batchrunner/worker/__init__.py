"""The workers of a run: read, map, write and commit shards, on any engine. Imports no Ray."""
