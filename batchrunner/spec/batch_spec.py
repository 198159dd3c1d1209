"""`BatchSpec`: which code to run, over which rows, into which folder, and how."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PrivateAttr, ValidationInfo, field_validator, model_validator

from batchrunner.errors import InvalidSpecError
from batchrunner.formats.registry import format_named, is_target, parts_format
from batchrunner.spec.execution import ErrorsSpec, ExecutionSpec, RaySpec
from batchrunner.spec.fields import Name, OneUri
from batchrunner.spec.hooks import Hooks
from batchrunner.spec.layers import Main, Variation
from batchrunner.spec.loading import SpecText, checked
from batchrunner.spec.model import (
    AnalyticsStoreConfig,
    CapabilitySpec,
    SinkSpec,
    SourceSpec,
    checked_for_format,
)
from batchrunner.spec.origins import Origins
from batchrunner.spec.override import overrides_of
from batchrunner.spec.secrets import redacted, remember
from batchrunner.spec.section import NEUTRAL, Section
from batchrunner.spec.spec_file import read_text
from batchrunner.spec.stages import StageSpec, check_workers, usual_batch_size


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
    hooks: Annotated[Hooks, NEUTRAL] = Field(
        default_factory=dict,
        description="What to call when the run starts, commits a shard, keeps a dead letter and ends: "
        "by name, its options. `webhook`, `openlineage`, one of an installed package, or "
        '"package.module:Class" of one.',
    )
    tags: Annotated[dict[str, str], NEUTRAL] = Field(
        default_factory=dict, description="Words to find the run by."
    )
    unsafe_single_writer: Annotated[bool, NEUTRAL] = Field(
        default=False,
        description="Accept a store that cannot refuse a second writer. Two drivers at once may "
        "then mix their output.",
    )

    _text: SpecText | None = PrivateAttr(default=None)

    @field_validator("capability", mode="before")
    @classmethod
    def _no_object(cls, value: Any) -> Any:
        # pydantic would report that a function is not a mapping, which does not help.
        if callable(value) and not isinstance(value, Section):
            message = "give the object itself to BatchRunner(spec, capability=...)"
            raise ValueError(message)  # noqa: TRY004 - pydantic collects ValueErrors only
        return value

    @field_validator("sink")
    @classmethod
    def _fits_the_source(cls, sink: SinkSpec, info: ValidationInfo) -> SinkSpec:
        source = info.data.get("source")
        if source and source.format and sink.format is None and not is_target(source.format):
            parts = parts_format(source.format)
            checked_for_format(sink.compression, parts)
            checked_for_format(sink.schema_, parts)
        return sink

    @model_validator(mode="after")
    def _has_what_its_mode_needs(self) -> Self:
        mode = self.capability.mode if self.capability else "batch"
        if self.capability and self.capability.stages and self.execution.rate_limit:
            raise ValueError(
                "has execution.rate_limit: give rate_limit to the stage that it is for, in capability.stages"
            )
        if mode == "run" and self.analytics_store is None:
            raise ValueError("must have an analytics_store: capability.mode run records runs there")
        if mode != "run" and self.capability and self.capability.inputs:
            raise ValueError("has capability.inputs, which go with capability.mode run only")
        stages = self.capability.stages if self.capability else None
        if mode != "row" and not stages and self.errors.row_timeout is not None:
            raise ValueError("has errors.row_timeout, which goes with capability.mode row only")
        if mode != "row" and self.execution.journal_answers:
            raise ValueError(
                "has execution.journal_answers, which goes with capability.mode row only: an answer is kept "
                "by the place of its row"
            )
        if self.capability and self.capability.stages:
            check_workers(self.capability.stages, self.execution.concurrency)
            has_processor = any(stage.processor for stage in self.capability.stages)
            if has_processor and self.execution.engine == "local":
                raise ValueError("has a stage with a processor, which needs execution.engine: ray")
        return self

    @classmethod
    def from_yaml(
        cls,
        path: str | os.PathLike[str],
        *,
        profile: str | None = None,
        overrides: Mapping[str, Any] | Sequence[str] = (),
    ) -> Self:
        """Read a spec from the file at *path*, with the environment variables of this process.

        Args:
            path: The file, which may extend others.
            profile: Name of one of its `profiles`.
            overrides: Values by dotted path, such as `{"execution.batch_size": 64}`, which count in
                place of the file's; or, as for `--set`, texts such as "execution.batch_size=64",
                whose values are YAML and may hold `${VAR}`.

        Raises:
            InvalidSpecError: The file cannot be read, or the spec has problems: the error lists all.
        """
        given_by = "overrides" if isinstance(overrides, Mapping) else "--set"
        variation = Variation(profile or "", overrides_of(overrides), given_by)
        return cls._of(Main(read_text(path), os.fspath(path)), variation=variation)

    @classmethod
    def from_text(cls, text: str, *, origin: str, environ: Mapping[str, str] = os.environ) -> Self:
        """Read a spec from YAML.

        Args:
            text: The YAML, at most 1 MiB.
            origin: The file's name, for errors. Its stem is the default `name`.
            environ: The variables for `${VAR}`.

        Raises:
            InvalidSpecError: The spec has problems: the error lists all, with line and column.
        """
        return cls._of(Main(text, origin), environ=environ)

    @classmethod
    def _of(
        cls,
        main: Main,
        *,
        environ: Mapping[str, str] = os.environ,
        variation: Variation = Variation(),  # noqa: B008 - it is frozen
    ) -> Self:
        spec, spec_text = checked(cls, main, environ=environ, variation=variation)
        spec._text = spec_text  # noqa: SLF001 - this is our own constructor
        spec.remember_secrets()
        return spec

    def remember_secrets(self) -> None:
        """Have `secrets.scrubbed` hide the secrets of this spec in this process. Idempotent."""
        # Without the types: a column called `token` would make a secret of the word "string".
        remember(
            self.model_dump(by_alias=True, exclude={"sink": {"schema_"}, "source": {"schema_"}})
        )

    @property
    def kept_text(self) -> str:
        """The text to store with the run: as written, so that it holds no variable's value.

        For a spec made in Python, its values as JSON. Secrets that are spelled out are `***`.
        """
        if self._text:
            return self._text.text
        text = json.dumps(self.shown(), indent=2, ensure_ascii=False, default=_type_name) + "\n"
        return text.encode(errors="backslashreplace").decode()

    @property
    def from_environment(self) -> frozenset[tuple[str | int, ...]]:
        """Paths of the values that refer to variables, which must not be stored or shown."""
        return self._text.from_environment if self._text else frozenset()

    @property
    def called(self) -> CapabilitySpec:
        """The section `capability`; with its defaults if the capability was passed as an object."""
        return self.capability or CapabilitySpec(target="in:memory")

    @property
    def stages(self) -> tuple[StageSpec, ...]:
        """The stages, each with what it takes from `execution`; none if the capability has no stages."""
        stages = self.called.stages or ()
        size = usual_batch_size(stages, self.execution)
        return tuple(stage.within(self.execution, batch_size=size) for stage in stages)

    @property
    def batch_size(self) -> int:
        """Rows of a batch of the source; with stages, as many as the one with the largest batches takes."""
        sizes = [stage.batch_size or 1 for stage in self.stages]
        return max(sizes, default=self.execution.batch_size)

    @property
    def checkpoint_uri(self) -> str:
        """Absolute URI of the checkpoint."""
        return self.checkpoint_dir or f"{self.sink.uri.rstrip('/')}/_checkpoint"

    def check_parts(self, parts: str) -> None:
        """Check that the schema and compression of the sink fit *parts*, the format of the parts.

        Raises:
            InvalidSpecError: The format is read only, or takes no schema, or not that compression.
        """
        # A format that is code of the user's is imported to run, not to validate.
        if not is_target(parts) and not format_named(parts).of_parts.compressions:
            instead = format_named(parts).written_as
            what = f"the format {parts} is read, not written; use {instead}"
            raise self.refusal(("sink", "format"), what)
        for name, value in (("compression", self.sink.compression), ("schema", self.sink.schema_)):
            try:
                checked_for_format(value, parts)
            except ValueError as error:
                what = (
                    f"{error}; the parts are {parts}: to begin a run with others, give sink.format"
                )
                raise self.refusal(("sink", name), what) from error

    def check_shard(self, source_format: str) -> None:
        """Check that files of *source_format* can be cut as `source.shard` says.

        Raises:
            InvalidSpecError: It asks for row groups, which the format does not have.
        """
        shard = self.source.shard
        if shard and shard.row_groups and not format_named(source_format).has_row_groups:
            what = f"{source_format} has no row groups, only Parquet has; use rows, bytes or files"
            raise self.refusal(("source", "shard", "row_groups"), what)

    def refusal(self, loc: tuple[str | int, ...], message: str) -> InvalidSpecError:
        """Return an error: *message* for the value at *loc*, with its line if there is a text."""
        return (self._text or SpecText("", frozenset())).refusal(loc, message)

    def shown(self) -> dict[str, Any]:
        """Return the values by their names in YAML, to show: secrets, at any depth, are `***`."""
        shown = dict(redacted(self.model_dump(by_alias=True)))
        shown["sink"]["schema"], shown["source"]["schema"] = self.sink.schema_, self.source.schema_
        return shown

    @property
    def origins(self) -> Origins:
        """Where each value is from."""
        text = self._text or SpecText("", frozenset())
        return Origins(text.pages, text.places)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with the values in *update*, validated; its `kept_text` lists their names.

        Raises:
            InvalidSpecError: The new values are invalid.
        """
        copy = super().model_copy(update=update, deep=deep)
        if update and self._text:
            copy._text = self._text.changed(update)  # noqa: SLF001 - of our own class
        return copy

    def __eq__(self, other: object) -> bool:
        """Compare the values, not the text that they came from."""
        return type(self) is type(other) and dict(self) == dict(other)

    __hash__ = None  # type: ignore[assignment]  # it holds dicts


def _type_name(value: object) -> str:
    return f"<{type(value).__name__}>"
