"""A language model in vLLM's engine, for prompts and chats. `pip install 'batchrunner[vllm]'`."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from batchrunner.capabilities.devices import loading
from batchrunner.capabilities.extras import extra
from batchrunner.capabilities.files import local_copy
from batchrunner.capabilities.restarting import Restarting
from batchrunner.errors import CapabilityImportError, describe

Row = dict[str, Any]
_WORDS = ("prompt_tokens", "completion_tokens", "total_tokens")


class Engine:
    """Answers each row's prompt; for `mode: row`, with hundreds of rows in flight (`max_concurrency`).

    The engine takes a row into its running batch as soon as another one is done, whatever batch and shard they
    are of. It warms itself up when it is built. A row gets the text, why it ended (`stop` or `length`) and
    its `usage`, in OpenAI's words. Written against the interface of vLLM 0.33.
    """

    def __init__(
        self,
        model: str,
        *,
        column: str = "prompt",
        output: str = "answer",
        sampling: Mapping[str, Any] | None = None,
        template: Mapping[str, Any] | None = None,
        **engine: Any,
    ) -> None:
        """Load *model* into an engine.

        Args:
            model: A name in the hub, a folder, or s3://….
            column: Texts, which are completed; or chats, lists of messages such as `{role: user, content:
                …}`, which are answered by the model's chat template.
            output: The column of answers; with `sampling.n`, lists of them.
            sampling: Of `vllm.SamplingParams`, such as `{temperature: 0, max_tokens: 512}`; with
                `structured_outputs`, such as `{json: …}`.
            template: For the chat template, such as `{enable_thinking: false}`.
            engine: Of `vllm.AsyncEngineArgs`, such as tensor_parallel_size, dtype and max_model_len.

        Raises:
            CapabilityImportError: vllm is not installed, or the GPU is too small for the model.
        """
        with extra("vllm"):
            import vllm
            from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams
            from vllm.v1.engine.exceptions import EngineDeadError
        asked = dict(sampling or {})
        if "structured_outputs" in asked:
            asked["structured_outputs"] = StructuredOutputsParams(**asked["structured_outputs"])
        self._sampling = vllm.SamplingParams(**asked, output_kind=RequestOutputKind.FINAL_ONLY)
        self._column, self._output, self._template = column, output, dict(template or {})
        args = vllm.AsyncEngineArgs(
            **{"model": local_copy(model), "disable_log_stats": True, **engine}
        )
        self._engine: Restarting[Any] = Restarting(partial(_built, args), death=EngineDeadError)
        self._numbers = itertools.count()

    async def __call__(self, row: Row) -> Row:
        """Return *row* with the model's answer.

        Raises:
            ValueError: The row has no prompt, or one that is longer than the model's context.
            EngineDeadError: The row ended the engine.
        """
        prompt = row.get(self._column)
        if not prompt:
            raise ValueError(
                f"no {self._column!r} in a row of {', '.join(row)}: name the column in "
                "capability.fn_constructor_kwargs.column"
            )
        done = await self._engine.call(lambda engine: self._answer(engine, prompt))
        texts = [one.text for one in done.outputs]
        spent = len(done.prompt_token_ids), sum(len(one.token_ids) for one in done.outputs)
        return {
            **row,
            self._output: texts[0] if self._sampling.n == 1 else texts,
            "finish_reason": done.outputs[0].finish_reason,
            "usage": dict(zip(_WORDS, (*spent, sum(spent)), strict=True)),
        }

    async def _answer(self, engine: Any, prompt: str | Sequence[Mapping[str, Any]]) -> Any:
        asked: dict[str, Any] = {"prompt": prompt}
        if not isinstance(prompt, str):
            how = {"add_generation_prompt": True, "tokenize": True, "return_dict": False}
            tokens = engine.get_tokenizer().apply_chat_template(
                [dict(message) for message in prompt], **{**how, **self._template}
            )
            asked = {"prompt_token_ids": tokens}  # as text, it would begin with two first tokens
        number = next(self._numbers)
        [done] = [one async for one in engine.generate(asked, self._sampling, f"row-{number}")]
        return done


def _built(args: Any) -> Any:
    """Return an engine; its own process starts, whose errors are in the log only."""
    import vllm

    try:
        with loading(args.model):
            return vllm.AsyncLLMEngine.from_engine_args(args)
    except RuntimeError as error:
        raise CapabilityImportError(
            f"vLLM's engine for {args.model} did not start ({describe(error)}): `batchrunner logs` has its own "
            "words. If the GPU is too small, lower max_model_len, raise tensor_parallel_size and num_gpus, or "
            "choose a quantized model"
        ) from error
