"""Verification of a run's output against its checkpoint and its source, and repair of damage."""

from batchrunner.verify.checks import Checks
from batchrunner.verify.findings import Finding, FindingKind, Verification
from batchrunner.verify.repairing import Repair, repair
from batchrunner.verify.verifying import verify

__all__ = ["Checks", "Finding", "FindingKind", "Repair", "Verification", "repair", "verify"]
