"""Find and load the user's code, and hash everything in it that decides the output."""

from batchrunner.capability.code import Code, code_of
from batchrunner.capability.target import check_target, is_plain_function, load_target

__all__ = ["Code", "check_target", "code_of", "is_plain_function", "load_target"]
