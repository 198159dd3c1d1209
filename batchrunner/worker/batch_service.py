"""Answers batches in a process of their own: the far side of `isolation`, run by `call_process`."""

from __future__ import annotations

from multiprocessing.connection import Connection
from typing import Any

from batchrunner.user_code import blamed, stage_of
from batchrunner.worker.capability_loading import direct_caller
from batchrunner.worker.gate import NO_GATE
from batchrunner.worker.lost_calls import RowsFailedError
from batchrunner.worker.metering import MeteredGate
from batchrunner.worker.row_service import Message, sent_error
from batchrunner.worker.usage import beyond
from batchrunner.worker.work import Work


class BatchService:
    """Calls a capability of mode `batch` or `run`, or one of stages, with each `SentBatch` of the owner."""

    def __init__(self, work: Work, *, message: Message) -> None:
        """Build the capability of *work*.

        Raises:
            CapabilityImportError: As `direct_caller`.
        """
        self._meter, self._message = MeteredGate.of(work.spec, NO_GATE), message
        self._caller = direct_caller(work, work.schema(), meter=self._meter)
        self._attempt = 0

    def serve(self, inbox: Connection[Any, Any], outbox: Connection[Any, Any]) -> None:
        """Answer until the owner closes the pipe: with the output or what was raised, and what the calls used."""
        while True:
            try:
                batch = inbox.recv()
            except EOFError:
                return
            before = self._meter.used
            answer = self._answer(batch)
            outbox.send((answer, beyond(self._meter.used, before)))

    def _answer(self, batch: Any) -> Any:
        if batch.attempt != self._attempt:
            self._attempt = batch.attempt
            self._caller.renew()
        try:
            return self._caller.submit(batch)()
        except RowsFailedError as error:
            errors = {index: self._sent(one) for index, one in error.errors.items()}
            return RowsFailedError(errors, error.has_answers, error.usage)
        except Exception as error:  # noqa: BLE001 - the user's code may raise anything
            return self._sent(error)

    def _sent(self, error: Exception) -> Exception:
        made, stage = sent_error(error, self._message), stage_of(error)
        return blamed(made, stage) if stage else made
