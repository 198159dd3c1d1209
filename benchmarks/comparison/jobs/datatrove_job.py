"""For datatrove: a reader, a step of our own, a writer."""

from __future__ import annotations

from datatrove.data import DocumentsPipeline
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter
from work import length


class AddLength(PipelineStep):
    name = "length"

    def run(  # as datatrove calls each step
        self,
        data: DocumentsPipeline,
        rank: int = 0,  # noqa: ARG002
        world_size: int = 1,  # noqa: ARG002
    ) -> DocumentsPipeline:
        for document in data:
            document.metadata["n"] = length(document.id, document.text)
            document.id = str(document.id)  # as a Document has it; a number 0 is not written
            yield document


def main() -> None:
    LocalPipelineExecutor(
        pipeline=[
            JsonlReader("in"),
            AddLength(),
            JsonlWriter(
                "out",
                output_filename="${rank}.jsonl",
                compression=None,
                expand_metadata=True,
            ),
        ],
        tasks=50,
        workers=2,
        logging_dir="logs",
    ).run()


if __name__ == "__main__":
    main()
