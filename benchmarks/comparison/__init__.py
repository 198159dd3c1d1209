"""The same small job by batchrunner and by what else one would use for it: `python -m benchmarks.comparison`.

Speed is not the question here, but what is in the output after a bad row, a kill, a new file, other
code. Each run is a real process; what it computed is counted by the function that is mapped, and
what it wrote is compared with the source row by row.
"""
