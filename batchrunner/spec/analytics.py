"""Where completed runs are recorded."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from batchrunner.spec.fields import OneUri, StorageOptions
from batchrunner.spec.section import Section


class AnalyticsStoreConfig(Section):
    """An analytics store. Short form: the URI."""

    stands_for = "uri"

    backend: Literal["parquet"] = Field(
        default="parquet", description="How the tables are kept: as Parquet files."
    )
    uri: OneUri = Field(
        description="The store's folder; a local path or s3://. A relative path starts at the "
        "current directory of whoever configures, not of the workers."
    )
    storage_options: StorageOptions = Field(
        default_factory=dict,
        description="Options of the store, in fsspec's words: key, secret, endpoint_url, anon, ...",
    )

    @field_validator("uri")
    @classmethod
    def _no_fragment(cls, uri: str) -> str:
        if "#" in uri:
            raise ValueError('must not hold "#": what follows it is the address of one run')
        return uri
