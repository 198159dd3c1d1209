"""The driver side of a run: what is to do, and doing it in order."""
