"""The sections of a spec that say which code, which rows, and where the output and records go."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from batchrunner.errors import InvalidSpecError
from batchrunner.formats.format_options import SCHEMA
from batchrunner.formats.registry import FileKind, file_kind, format_named, is_target
from batchrunner.spec.columns import column_texts
from batchrunner.spec.diagnosis import LACKS_CODE
from batchrunner.spec.fields import (
    Columns,
    Count,
    Duration,
    Files,
    Format,
    Kwargs,
    OneUri,
    Size,
    StorageOptions,
    Target,
    Uris,
    UsagePath,
)
from batchrunner.spec.section import ADDED, NEUTRAL, ORDERED, Section
from batchrunner.spec.stages import Stages, check_names

_BESIDE_STAGES = (
    *("mode", "inputs", "fn_kwargs", "fn_constructor_kwargs", "version", "files", "one_to_one"),
)
"""Fields that each stage has for itself."""


class CapabilitySpec(Section):
    """The code that is mapped over the rows. Short form: the target alone, or a list of stages."""

    stands_for = "target"
    stands_for_a_list = "stages"

    target: Target | None = Field(
        default=None,
        description='What to import: "package.module:attribute", a function or a class.',
    )
    stages: Annotated[Stages | None, ADDED] = Field(
        default=None,
        description="In place of a target, stages that the rows go through one after the other, each with "
        "its own workers, size of batch and resources. They work at the same time.",
    )
    mode: Literal["batch", "row", "run"] = Field(
        default="batch",
        description="What the capability is called with: a `batch` of rows, or one `row`. With "
        "`run`, each row names the inputs of one capability run, which is recorded in the "
        "`analytics_store`.",
    )
    inputs: dict[Literal["datasets", "models", "metrics", "config"], Target] = Field(
        default_factory=dict,
        description="For mode `run`: what loads the inputs that a row names, such as "
        '{datasets: "evals.data:load"}. Called with the value in the row, once per worker.',
    )
    fn_kwargs: Kwargs = Field(default_factory=dict, description="Keyword arguments of every call.")
    fn_constructor_kwargs: Kwargs = Field(
        default_factory=dict,
        description="Keyword arguments of the class, which is built once per worker.",
    )
    version: str | None = Field(
        default=None,
        description="Stands in for the hash of the code: the output is taken to be the same as "
        "long as the version is.",
    )
    # Neutral, since not the names decide: the fingerprint has digests of the content besides.
    files: Annotated[Files | None, NEUTRAL] = Field(
        default=None,
        description="Files that the capability reads, such as weights, and whose content decides "
        "the output: paths, folders or globs, local or s3://. A change of one is a change of the "
        "code, also beside a `version`. On s3:// with the options of the source.",
    )
    deterministic: Annotated[bool, NEUTRAL] = Field(
        default=False,
        description="The same row always gives the same rows, whatever stands in its batch: "
        "`verify --replay` may hold the output against another run of it.",
    )
    usage: Annotated[UsagePath | None, NEUTRAL] = Field(
        default=None,
        description="Where an answer says what it used, such as tokens: the dotted path of a mapping of numbers, "
        "such as `response.body.usage`. By default `usage`, if the source has no such column.",
    )
    one_to_one: Annotated[bool, NEUTRAL] = Field(
        default=False,
        description="Each row gives exactly one row, and they come in the same order. A batch may then "
        "hold rows of several shards, of those that its worker was handed together, so that small shards "
        "fill it, too. A batch for which another number of rows comes back has failed. Their number is "
        "checked; their order is taken on trust: `verify --key` sees a row in the place of another.",
    )

    @model_validator(mode="after")
    def _one_code(self) -> Self:
        if self.target is None and self.stages is None:
            raise PydanticCustomError(LACKS_CODE, 'the key "target" is missing')
        if self.target is not None and self.stages is not None:
            raise ValueError("must have exactly one of target, stages")
        if self.stages is not None:
            fields = type(self).model_fields
            usual = {
                name: fields[name].get_default(call_default_factory=True) for name in _BESIDE_STAGES
            }
            if beside := [name for name in usual if getattr(self, name) != usual[name]]:
                raise ValueError(f"must have no {beside[0]} beside stages: give it to a stage")
            check_names(self.stages)
        return self

    @property
    def code(self) -> str:
        """The target, or those of the stages, for people to read."""
        return ", ".join(self.own_targets)

    @property
    def own_targets(self) -> tuple[str, ...]:
        """The target, or those of the stages in their order."""
        return (self.target,) if self.target else tuple(one.code for one in self.stages or ())

    @property
    def targets(self) -> tuple[str, ...]:
        """All that is imported: `own_targets`, and what loads the inputs."""
        return (*self.own_targets, *self.inputs.values())

    @property
    def unversioned(self) -> tuple[str, ...]:
        """Those of `own_targets` whose code counts: no version stands in for it."""
        if self.stages is None:
            return self.own_targets if self.version is None else ()
        return tuple(stage.code for stage in self.stages if stage.version is None)

    @property
    def all_files(self) -> tuple[str, ...]:
        """The files that the capability, or a stage of it, reads."""
        return (*(self.files or ()), *(f for stage in self.stages or () for f in stage.files or ()))


USUAL_SECONDS = 60.0
"""About how long a shard may take: what a kill costs, and how often progress moves."""


class ShardSpec(Section):
    """How the source is cut into shards, by exactly one measure.

    Files that are smaller share a shard, up to that measure, in the order of the source.
    """

    rows: Count | None = Field(default=None, description="Rows of a shard.")
    bytes: Annotated[Size, Field(ge=4096)] | None = Field(
        default=None, description='Bytes of a shard, such as "64MiB"; at least 4096.'
    )
    row_groups: Count | None = Field(
        default=None, description="Row groups of a shard; Parquet only."
    )
    files: Count | None = Field(
        default=None,
        description="Whole files of a shard, at most; 1 is a shard, and a part, a file.",
    )
    # Neutral: it decides how much of the output one part has, and only where shards turn out slow.
    seconds: Annotated[Duration | None, NEUTRAL] = Field(
        default=None,
        description='About how long the calls for a shard may take, such as 60 or "5m". Files are cut '
        "by size, as by default; a shard that would take more than twice as long ends early, and the "
        "rest of it becomes new shards.",
    )

    @model_validator(mode="after")
    def _one_measure(self) -> Self:
        if sum(value is not None for _, value in self) != 1:
            raise ValueError("must have exactly one of rows, bytes, row_groups, files, seconds")
        return self


class SourceSpec(Section):
    """Where the rows come from. Short form: the URI, or a list of URIs."""

    stands_for = "uri"

    uri: Uris = Field(
        description="A file, a folder or a glob, or a list of them; a local path or s3://. "
        "Relative paths start at the current directory."
    )
    format: Format | None = Field(
        default=None,
        description="Format of the files: jsonl, parquet, json, csv, tsv, text, arrow, tar, files (a row "
        'a file), one that is registered, or "package.module:Class" of one. By default, by the ending '
        "of their names.",
    )
    format_options: Kwargs = Field(
        default_factory=dict,
        description="Options of the `format`, which has to be given: for csv and tsv, `delimiter`, "
        "`quote`, `names` and `nulls`; of another, the keyword arguments of its class.",
    )
    schema_: Annotated[dict[str, str] | None, BeforeValidator(column_texts), ORDERED] = Field(
        default=None,
        alias="schema",
        description="Types of columns that files do not record, in the words of the sink's schema; "
        "columns that are not named are strings. For csv and tsv, with `format`.",
    )
    columns: Columns | None = Field(default=None, description="Columns to read; by default, all.")
    partitioning: Annotated[Literal["hive", "none"], ADDED] = Field(
        default="hive",
        description="With `hive`, folders such as `date=2026-01-01/` are columns of the rows below "
        "them, as text. With `none` they are only names.",
    )
    limit: Count | None = Field(
        default=None, description="Read the first rows only, at most this many."
    )
    shard: ShardSpec | None = Field(
        default=None,
        description="How to cut the source; by default, by size, and by time where shards turn out "
        "slow: `{seconds: 60}`.",
    )
    storage_options: StorageOptions = Field(
        default_factory=dict,
        description="Options of the store, in fsspec's words: key, secret, endpoint_url, anon, ...",
    )

    @model_validator(mode="after")
    def _options_fit_the_format(self) -> Self:
        if not self.options:
            return self
        if self.format is None:
            raise ValueError("must have a format, as its schema or format_options depend on it")
        if not is_target(self.format):  # the user's code is imported to run, not here
            try:
                format_named(self.format, self.options)
            except InvalidSpecError as error:
                raise ValueError(f"does not fit its format: {error}") from error
        return self

    @property
    def options(self) -> str:
        """The options of the format, the schema among them, as JSON; "" for none."""
        types = {} if self.schema_ is None else {SCHEMA: self.schema_}
        options = {**self.format_options, **types}
        return json.dumps(options) if options else ""

    def kind_of(self, name: str) -> FileKind | None:
        """Return the kind of the source file *name*; None if neither name nor spec says it."""
        return file_kind(name, format=self.format, options=self.options)

    @property
    def seconds(self) -> float | None:
        """How long the calls for a shard may take before it ends early; None if no time ends it."""
        return USUAL_SECONDS if self.shard is None else self.shard.seconds

    @property
    def uris(self) -> tuple[str, ...]:
        """`uri` as a tuple, whichever way it was given."""
        return (self.uri,) if isinstance(self.uri, str) else self.uri


class SinkSpec(Section):
    """Where the parts go. Short form: the URI."""

    stands_for = "uri"

    uri: OneUri = Field(description="The folder to write into; a local path or s3://.")
    format: Format | None = Field(
        default=None,
        description="Format of the parts, likewise: jsonl, parquet, csv, tsv, text, tar, files (rows name "
        "files), or another; by default, the source's, but Parquet for files, tar and arrow, and jsonl "
        "for json.",
    )
    compression: Literal["none", "gz", "zst", "snappy", "zstd", "gzip"] | None = Field(
        default=None,
        description="For parquet: none, snappy, zstd or gzip. For jsonl, csv, tsv, text and tar: none, gz "
        "or zst.",
    )
    schema_: Annotated[dict[str, str] | None, BeforeValidator(column_texts), ORDERED] = Field(
        default=None,
        alias="schema",  # `schema` itself is a method of pydantic's BaseModel
        description="Columns of the parts, in order, and their types as Arrow prints them, such as "
        "`int64`, `timestamp[us, tz=UTC]` or `list<struct<role: string, content: string>>`. A "
        "mapping is a struct, a list of one type is a list. In Python, also a `pyarrow.Schema` or a "
        "pydantic model class. For parquet, csv and tsv.",
    )
    storage_options: StorageOptions = Field(
        default_factory=dict, description="Options of the store, as in the source."
    )

    @field_validator("compression", "schema_")
    @classmethod
    def _fits_the_format(cls, value: Any, info: ValidationInfo) -> Any:
        parts = info.data.get("format")
        # The format is code of the user's, which is imported to run, not here.
        return value if parts and is_target(parts) else checked_for_format(value, parts)


def checked_for_format(value: Any, sink_format: str | None) -> Any:
    """Return *value*, a compression or schema, if *sink_format* takes it, or is None: undecided.

    Raises:
        ValueError: The format does not take it.
    """
    if sink_format is None or value is None:
        return value
    parts = format_named(sink_format).of_parts
    if isinstance(value, str) and value not in parts.compressions:
        names = ", ".join(parts.compressions)
        raise ValueError(f"the format {sink_format} takes these compressions only: {names}")
    if isinstance(value, dict) and not parts.keeps_schema:
        raise ValueError("a schema needs the format parquet, csv or tsv")
    return value


class AnalyticsStoreConfig(Section):
    """An analytics store. Short form: the URI."""

    stands_for = "uri"

    backend: Literal["parquet"] = Field(
        default="parquet", description="How the tables are kept: as Parquet files."
    )
    uri: OneUri = Field(
        description="The store's folder; a local path or s3://. A relative path starts at the "
        "current directory of the process that configures it, not of the workers."
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
