"""The driver side of the work: hands shards to workers and takes their receipts."""
