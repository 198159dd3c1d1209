"""Processors of `ray.data.llm`, and a real server that they ask."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

URL = "BATCHRUNNER_TEST_ASK_URL"
POISON = 107


def over_http():
    """What a user writes, with Ray's own configuration."""
    from ray.data.llm import HttpRequestProcessorConfig, build_processor

    config = HttpRequestProcessorConfig(url=os.environ[URL], batch_size=16, concurrency=(1, 2))
    return build_processor(
        config,
        preprocess=lambda row: {"payload": {"id": row["id"], "text": row["text"]}},
        postprocess=lambda row: {**answered(row), "said": row["http_response"]["said"]},
    )


def answered(row):
    return {name: value for name, value in row.items() if name not in {"payload", "http_response"}}


def that_goes_on():
    """An engine that reports its errors in the row, as vLLM's does with `should_continue_on_error`."""
    from ray.data.llm import Processor, ProcessorConfig
    from ray.llm._internal.batch.stages.base import StatefulStage, StatefulStageUDF

    class Engine(StatefulStageUDF):
        async def udf(self, rows):
            for row in reversed(rows):
                is_poison = row["id"] == POISON
                yield {
                    self.IDX_IN_BATCH_COLUMN: row[self.IDX_IN_BATCH_COLUMN],
                    "said": None if is_poison else row["text"] * 2,
                    "__inference_error__": "ValueError: too long" if is_poison else "",
                }

    stage = StatefulStage(fn=Engine, map_batches_kwargs={"max_concurrency": 4, "num_cpus": 0.1})
    return Processor(
        ProcessorConfig(batch_size=16),
        [stage],
        postprocess=lambda row: {"id": row["id"], "text": row["text"], "said": row["said"]},
        preprocess_map_kwargs={"num_cpus": 0.1},
        postprocess_map_kwargs={"num_cpus": 0.1},
    )


class _Service(ThreadingHTTPServer):
    """Says each text twice; of the poison row, that it cannot, in another type than JSON."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked = []

    def handle_error(self, request, client_address):
        """Keep quiet: the other side may have been killed."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(asked["id"])
        is_poison = asked["id"] == POISON
        body = b"no" if is_poison else json.dumps({"said": asked["text"] * 2}).encode()
        self.send_response(500 if is_poison else 200)
        self.send_header("Content-Type", "text/plain" if is_poison else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Keep quiet."""


@contextmanager
def service():
    """Run the server; `asked` has the ids that it was asked for."""
    with _Service() as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server, f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()
