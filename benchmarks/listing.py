"""What a no-op run cannot do without. Imports next to nothing: its whole process is timed."""

import os


def count(folders):
    """Return how many files the *folders* hold, having asked for the size of each."""
    return len([entry.stat().st_size for folder in folders for entry in os.scandir(folder)])
