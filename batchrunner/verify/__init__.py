"""The output of a run held against its records and its source, and damage set aside."""

from batchrunner.verify.checks import Checks
from batchrunner.verify.findings import Finding, FindingKind, Verification
from batchrunner.verify.repairing import Repair, repair
from batchrunner.verify.verifying import verify

__all__ = ["Checks", "Finding", "FindingKind", "Repair", "Verification", "repair", "verify"]
