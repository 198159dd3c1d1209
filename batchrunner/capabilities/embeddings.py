"""Embeddings by sentence-transformers. `pip install 'batchrunner[sentence-transformers]'`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from batchrunner.capabilities.batches import column_of, kept
from batchrunner.capabilities.devices import best_device, loading, note_device
from batchrunner.capabilities.extras import extra
from batchrunner.capabilities.files import local_copy


class SentenceEmbedder:
    """Embeds the texts of a column; for `batch_format: numpy` and `one_to_one: true`.

    The column that it makes has a list of float32 for each row, all of one length. Keyword arguments of each
    call go to `encode`: give them as `fn_kwargs`, such as `{prompt_name: query}`. The model gets a whole
    batch at once: `execution.batch_size` is the only one, unless `fn_kwargs` has one.
    """

    def __init__(
        self,
        model: str,
        *,
        column: str = "text",
        output: str = "embedding",
        keep: Sequence[str] | None = None,
        normalize: bool = False,
        **options: Any,
    ) -> None:
        """Load *model* onto a GPU if there is one, and embed a text, so that no row waits for that.

        Args:
            model: A name in the hub, a folder, or s3://….
            column: The texts.
            output: The name of the column of embeddings.
            keep: The columns of the source that are returned, too; by default all.
            normalize: Whether each embedding gets the length 1.
            options: For `SentenceTransformer`: revision, device, truncate_dim, model_kwargs and others.

        Raises:
            CapabilityImportError: The library is not installed, or memory does not hold the model.
        """
        with extra("sentence-transformers"):
            import sentence_transformers
        self._column, self._output, self._keep = column, output, keep
        self._normalize = normalize
        options.setdefault("device", best_device())
        with loading(model):
            self._model = sentence_transformers.SentenceTransformer(local_copy(model), **options)
            self._encoded(["a"])
        note_device(model, str(self._model.device))

    def __call__(self, batch: dict[str, Any], **encode: Any) -> dict[str, Any]:
        """Return the columns of *batch* and the embeddings of its texts.

        Raises:
            TypeError: The batch is no dict of columns.
            ValueError: There is no such column, or it has something else than texts.
        """
        texts = list(column_of(batch, self._column))
        if wrong := {type(text).__name__ for text in texts if not isinstance(text, str)}:
            raise ValueError(
                f"column {self._column!r} has {', '.join(sorted(wrong))} among its texts"
            )
        vectors = self._encoded(texts, **encode)
        return kept(batch, self._keep) | {self._output: vectors}

    def _encoded(self, texts: Sequence[str], **encode: Any) -> Any:
        always = {"normalize_embeddings": self._normalize, "show_progress_bar": False}
        vectors = self._model.encode(list(texts), **{"batch_size": len(texts), **always, **encode})
        return vectors.astype("float32", copy=False)
