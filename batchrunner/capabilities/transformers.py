"""A pipeline of Hugging Face's transformers. `pip install 'batchrunner[transformers]'`."""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from typing import Any

from batchrunner.capabilities.batches import check_rows
from batchrunner.capabilities.devices import best_device, loading, note_device
from batchrunner.capabilities.extras import extra
from batchrunner.capabilities.files import local_copy

_log = logging.getLogger(__name__)
Row = dict[str, Any]


class Pipeline:
    """Runs a pipeline, such as text-classification, on one column; for `batch_format: rows`.

    What it says of a row becomes a column. Keyword arguments of each call go to the pipeline: give them as
    `fn_kwargs`, such as `{max_new_tokens: 64}`. It gets a whole batch at once: `execution.batch_size` is the
    only one.
    """

    def __init__(
        self,
        task: str | None = None,
        *,
        column: str = "text",
        output: str = "prediction",
        keep: Sequence[str] | None = None,
        **options: Any,
    ) -> None:
        """Load the model onto a GPU if there is one, and try it with a text.

        Args:
            task: The pipeline's task; by default that of the model.
            column: What it is given: texts, or the bytes of pictures or sounds.
            output: The name of the column that it makes.
            keep: The columns of the source that are returned, too; by default all.
            options: For `transformers.pipeline`: model (a name in the hub, a folder, or s3://…), revision,
                dtype, device and others.

        Raises:
            CapabilityImportError: transformers or torch is not installed, or memory does not hold the model.
        """
        with extra("transformers"):
            import torch  # noqa: F401 - transformers would say so only later
            import transformers
        self._column, self._output, self._keep = column, output, keep
        if "device_map" not in options:
            options.setdefault("device", best_device())
        if isinstance(options.get("model"), str):
            options["model"] = local_copy(options["model"])
        name = str(options.get("model") or task)
        with loading(name):
            self._pipe = transformers.pipeline(task, **options)
        note_device(name, str(self._pipe.device))
        words = self._pipe.tokenizer
        if (
            words is not None and words.pad_token_id is None
        ):  # or texts of two lengths share no batch
            words.pad_token = words.eos_token
        self._warm_up()

    def __call__(self, rows: list[Row], **call: Any) -> list[Row]:
        """Return *rows* with what the pipeline says of each.

        Raises:
            TypeError: *rows* is no list.
            ValueError: A row lacks the column.
        """
        check_rows(rows)
        values = [self._value(row) for row in rows]
        found = self._pipe(values, **{"batch_size": len(values), **call})
        return [
            {**self._kept(row), self._output: answer}
            for row, answer in zip(rows, found, strict=True)
        ]

    def _value(self, row: Row) -> Any:
        value = row.get(self._column)
        if value is None:
            raise ValueError(
                f"no {self._column!r} in a row of {', '.join(row)}: name the column in "
                "capability.fn_constructor_kwargs.column"
            )
        if isinstance(value, bytes) and self._pipe.image_processor is not None:
            from PIL import Image

            return Image.open(io.BytesIO(value))
        return value

    def _kept(self, row: Row) -> Row:
        return row if self._keep is None else {name: row[name] for name in self._keep}

    def _warm_up(self) -> None:
        """Have what is compiled by a first call compiled now; a task that takes more than a text does it later."""
        try:
            self._pipe("a")
        except Exception as error:  # noqa: BLE001 - whatever it raises, the first batch will show
            _log.debug("not warmed up: %r", error)
