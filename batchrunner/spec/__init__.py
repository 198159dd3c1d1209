"""The spec of a run: frozen values, from YAML or from Python, validated when they are created."""

from batchrunner.spec.batch_spec import BatchSpec as BatchSpec
from batchrunner.spec.execution import ErrorsSpec as ErrorsSpec
from batchrunner.spec.execution import ExecutionSpec as ExecutionSpec
from batchrunner.spec.execution import RaySpec as RaySpec
from batchrunner.spec.model import AnalyticsStoreConfig as AnalyticsStoreConfig
from batchrunner.spec.model import CapabilitySpec as CapabilitySpec
from batchrunner.spec.model import ShardSpec as ShardSpec
from batchrunner.spec.model import SinkSpec as SinkSpec
from batchrunner.spec.model import SourceSpec as SourceSpec
from batchrunner.spec.retrying import RetrySpec as RetrySpec
from batchrunner.spec.schema import spec_schema as spec_schema
from batchrunner.spec.secrets import redact_uri as redact_uri
from batchrunner.spec.secrets import redacted as redacted
from batchrunner.spec.secrets import scrubbed as scrubbed
from batchrunner.spec.stages import StageSpec as StageSpec

__all__ = [
    "AnalyticsStoreConfig",
    "BatchSpec",
    "CapabilitySpec",
    "ErrorsSpec",
    "ExecutionSpec",
    "RaySpec",
    "RetrySpec",
    "ShardSpec",
    "SinkSpec",
    "SourceSpec",
    "StageSpec",
    "redact_uri",
    "redacted",
    "scrubbed",
    "spec_schema",
]
