"""A capability that raises when it is imported."""

raise RuntimeError("broken")


def f(rows):
    return rows
