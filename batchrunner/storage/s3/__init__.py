"""Objects in a bucket, over s3fs."""
