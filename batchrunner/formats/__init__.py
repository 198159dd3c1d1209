"""How rows stand in files: JSON lines and Parquet, each as a source and as a sink."""
