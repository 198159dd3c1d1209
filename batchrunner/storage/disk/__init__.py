"""Bytes on a disk."""
