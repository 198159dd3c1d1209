"""Capabilities to use as they are, or to copy: each is a class of at most a page."""
