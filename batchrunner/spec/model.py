"""The spec: what to run, over which rows, into which place, and how."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    PrivateAttr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from batchrunner.errors import InvalidSpecError
from batchrunner.spec.analytics import AnalyticsStoreConfig
from batchrunner.spec.columns import column_texts
from batchrunner.spec.execution import ErrorsSpec, ExecutionSpec, RaySpec
from batchrunner.spec.fields import (
    Columns,
    Count,
    Files,
    Format,
    Kwargs,
    Name,
    OneUri,
    Size,
    StorageOptions,
    Target,
    Uris,
)
from batchrunner.spec.loading import Written, checked, read_text
from batchrunner.spec.secrets import redacted, remember
from batchrunner.spec.section import ADDED, NEUTRAL, ORDERED, Section

_COMPRESSIONS = {
    "jsonl": ("none", "gz", "zst"),
    "parquet": ("none", "snappy", "zstd", "gzip"),
}


class CapabilitySpec(Section):
    """The code that is mapped over the rows. Short form: the target alone."""

    stands_for = "target"

    target: Target = Field(
        description='What to import: "package.module:attribute", a function or a class.'
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


class ShardSpec(Section):
    """How the source is cut into shards, by exactly one measure."""

    rows: Count | None = Field(default=None, description="Rows of a shard.")
    bytes: Annotated[Size, Field(ge=4096)] | None = Field(
        default=None, description='Bytes of a shard, such as "64MiB"; at least 4096.'
    )
    row_groups: Count | None = Field(
        default=None, description="Row groups of a shard; Parquet only."
    )
    files: Literal[1] | None = Field(default=None, description="One shard per file: 1.")

    @model_validator(mode="after")
    def _one_measure(self) -> Self:
        if sum(value is not None for _, value in self) != 1:
            raise ValueError("must have exactly one of rows, bytes, row_groups, files")
        return self


class SourceSpec(Section):
    """Where the rows come from. Short form: the URI, or a list of URIs."""

    stands_for = "uri"

    uri: Uris = Field(
        description="A file, a folder or a glob, or a list of them; a local path or s3://. "
        "Relative paths start at the current directory."
    )
    format: Format | None = Field(
        default=None, description="Format of the files; by default, told by their names."
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
        default=None, description="How to cut the source; by default, by size."
    )
    storage_options: StorageOptions = Field(
        default_factory=dict,
        description="Options of the store, in fsspec's words: key, secret, endpoint_url, anon, ...",
    )

    @property
    def uris(self) -> tuple[str, ...]:
        """`uri` as a tuple, whichever way it was given."""
        return (self.uri,) if isinstance(self.uri, str) else self.uri


class SinkSpec(Section):
    """Where the parts go. Short form: the URI."""

    stands_for = "uri"

    uri: OneUri = Field(description="The folder to write into; a local path or s3://.")
    format: Format | None = Field(
        default=None, description="Format of the parts; by default, the source's."
    )
    compression: Literal["none", "gz", "zst", "snappy", "zstd", "gzip"] | None = Field(
        default=None,
        description="For jsonl: none, gz or zst. For parquet: none, snappy, zstd or gzip.",
    )
    schema_: Annotated[dict[str, str] | None, BeforeValidator(column_texts), ORDERED] = Field(
        default=None,
        alias="schema",
        description="Columns of the parts, in order, and their types as Arrow prints them, such as "
        "`int64`, `timestamp[us, tz=UTC]` or `list<struct<role: string, content: string>>`. A "
        "mapping is a struct, a list of one type is a list. In Python, also a `pyarrow.Schema` or a "
        "pydantic model class. Parquet only.",
    )
    storage_options: StorageOptions = Field(
        default_factory=dict, description="Options of the store, as in the source."
    )

    @field_validator("compression", "schema_")
    @classmethod
    def _fits_the_format(cls, value: Any, info: ValidationInfo) -> Any:
        return _fitting(value, info.data.get("format"))


def _fitting(value: Any, sink_format: str | None) -> Any:
    if sink_format and isinstance(value, str) and value not in _COMPRESSIONS[sink_format]:
        known = ", ".join(_COMPRESSIONS[sink_format])
        raise ValueError(f"the format {sink_format} takes these compressions only: {known}")
    if sink_format == "jsonl" and isinstance(value, dict):
        raise ValueError("a schema needs the format parquet")
    return value


class BatchSpec(Section):
    """A batch run, as written in YAML or Python."""

    version: Annotated[Literal[1], NEUTRAL] = Field(
        default=1, description="Version of the spec's own format."
    )
    name: Annotated[Name, NEUTRAL] = Field(
        default="batch", description="Name of the run in reports; by default, the file's name."
    )
    capability: CapabilitySpec | None = Field(
        default=None,
        description="The code that is mapped over the rows. In Python it may be left out: "
        "BatchRunner takes the object itself.",
    )
    source: SourceSpec = Field(description="Where the rows come from.")
    sink: SinkSpec = Field(description="Where the parts go.")
    checkpoint_dir: Annotated[OneUri | None, NEUTRAL] = Field(
        default=None,
        description="Where the plan and the sentinels are; by default, `_checkpoint` in the sink.",
    )
    resume: Annotated[bool, NEUTRAL] = Field(
        default=True, description="Continue where the last session of this run ended."
    )
    execution: ExecutionSpec = Field(
        default_factory=ExecutionSpec, description="How the work is done."
    )
    errors: ErrorsSpec = Field(
        default_factory=ErrorsSpec, description="What to do about rows and shards that fail."
    )
    ray: Annotated[RaySpec, NEUTRAL] = Field(
        default_factory=RaySpec, description="Which Ray to use."
    )
    analytics_store: Annotated[AnalyticsStoreConfig | None, NEUTRAL] = Field(
        default=None, description="Where completed runs are recorded, this batch among them."
    )
    tags: Annotated[dict[str, str], NEUTRAL] = Field(
        default_factory=dict, description="Words to find the run by."
    )
    unsafe_single_writer: Annotated[bool, NEUTRAL] = Field(
        default=False,
        description="Accept a store that cannot refuse a second writer. Two drivers at once may "
        "then mix their output.",
    )

    _written: Written | None = PrivateAttr(default=None)

    @field_validator("capability", mode="before")
    @classmethod
    def _no_object(cls, value: Any) -> Any:
        if callable(value) and not isinstance(value, Section):
            message = "give the object itself to BatchRunner(spec, capability=...)"
            raise ValueError(message)  # noqa: TRY004 - pydantic collects ValueErrors only
        return value

    @field_validator("sink")
    @classmethod
    def _fits_the_source(cls, sink: SinkSpec, info: ValidationInfo) -> SinkSpec:
        source = info.data.get("source")
        if source and sink.format is None:
            _fitting(sink.compression, source.format)
            _fitting(sink.schema_, source.format)
        return sink

    @model_validator(mode="after")
    def _has_what_its_mode_needs(self) -> Self:
        mode = self.capability.mode if self.capability else "batch"
        if mode == "run" and self.analytics_store is None:
            raise ValueError("must have an analytics_store: capability.mode run records runs there")
        if mode != "run" and self.capability and self.capability.inputs:
            raise ValueError("has capability.inputs, which go with capability.mode run only")
        return self

    @classmethod
    def from_yaml(cls, path: str | os.PathLike[str]) -> Self:
        """Read a spec from the file at *path*, with the variables of this process.

        Raises:
            InvalidSpecError: It cannot be read, or with everything that is wrong with it.
        """
        return cls.from_text(read_text(path), origin=os.fspath(path))

    @classmethod
    def from_text(cls, text: str, *, origin: str, environ: Mapping[str, str] = os.environ) -> Self:
        """Read a spec from YAML.

        Args:
            text: The YAML, at most 1 MiB.
            origin: What errors call it: the file's name. Its stem is the default `name`.
            environ: Where `${VAR}` finds its value.

        Raises:
            InvalidSpecError: With everything that is wrong, each at its line and column.
        """
        spec, written = checked(cls, text, origin=origin, environ=environ)
        spec._written = written  # noqa: SLF001 - this is our own constructor
        spec.remember_secrets()
        return spec

    def remember_secrets(self) -> None:
        """Have `secrets.scrubbed` hide the secrets of this spec in this process. Idempotent."""
        # But for types: a column called `token` makes no secret of the word "string".
        remember(self.model_dump(by_alias=True, exclude={"sink": {"schema_"}}))

    @property
    def kept_text(self) -> str:
        """The text to keep with the run: as written, so that no variable's value is in it.

        Of a spec made in Python: its values as JSON. Secrets that are spelled out are `***`.
        """
        if self._written:
            return self._written.text
        text = json.dumps(self.shown(), indent=2, ensure_ascii=False, default=_kind) + "\n"
        return text.encode(errors="backslashreplace").decode()

    @property
    def from_environment(self) -> frozenset[tuple[str | int, ...]]:
        """Paths of the values that variables went into: they are not to be stored or shown."""
        return self._written.from_environment if self._written else frozenset()

    @property
    def called(self) -> CapabilitySpec:
        """How the capability is called; with the defaults where Python hands over the object."""
        return self.capability or CapabilitySpec(target="in:memory")

    @property
    def checkpoint_uri(self) -> str:
        """Absolute URI of the checkpoint."""
        return self.checkpoint_dir or f"{self.sink.uri.rstrip('/')}/_checkpoint"

    def check_parts(self, parts: str) -> None:
        """Check that *parts*, the format that the parts have, goes with the sink.

        Raises:
            InvalidSpecError: It takes no schema, or not the compression.
        """
        for name, value in (("compression", self.sink.compression), ("schema", self.sink.schema_)):
            try:
                _fitting(value, parts)
            except ValueError as error:
                what = (
                    f"{error}; the parts are {parts}: to begin a run with others, give sink.format"
                )
                raise self.refusal(("sink", name), what) from error

    def refusal(self, loc: tuple[str | int, ...], message: str) -> InvalidSpecError:
        """Return the error that *message* says of the value at *loc*: with its place in the file."""
        written = self._written or Written("", frozenset())
        return written.refusal(loc, message)

    def shown(self) -> dict[str, Any]:
        """Return the values in YAML's words, for people: secrets, at any depth, are `***`."""
        shown = dict(redacted(self.model_dump(by_alias=True)))
        shown["sink"]["schema"] = self.sink.schema_
        return shown

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with the fields of *update*, checked; the kept text names them.

        Raises:
            InvalidSpecError: They do not fit.
        """
        copy = super().model_copy(update=update, deep=deep)
        if update and self._written:
            copy._written = self._written.changed(update)  # noqa: SLF001 - of our own class
        return copy

    def __eq__(self, other: object) -> bool:
        """Compare the values: not the text they came from."""
        return type(self) is type(other) and dict(self) == dict(other)

    __hash__ = None  # type: ignore[assignment]  # it holds dicts


def _kind(value: object) -> str:
    return f"<{type(value).__name__}>"
