"""Objects in a bucket, looked at past batchrunner."""

from __future__ import annotations

import contextlib
import copy
import json
from typing import Any

from botocore.config import Config
from botocore.session import get_session

from batchrunner.storage.s3 import calls as s3_calls


def prove_anew() -> None:
    """Have the next run test its buckets, as in a new process: one process tests a bucket once."""
    for connection in s3_calls._connections.values():
        connection.proven.clear()


class Bucket:
    """What is below one prefix of a bucket."""

    def __init__(self, server: Any, prefix: str) -> None:
        self._server, self._prefix = server, prefix
        self._client = get_session().create_client(
            "s3",
            endpoint_url=server.endpoint,
            aws_access_key_id=server.key,
            aws_secret_access_key=server.secret,
            region_name="us-east-1",
            config=Config(retries={"total_max_attempts": 3}),
        )

    def beside(self, prefix: str) -> Bucket:
        """Another prefix, over the same connection."""
        other = copy.copy(self)
        other._prefix = prefix
        return other

    @property
    def uri(self) -> str:
        return f"s3://{self._server.bucket}/{self._prefix}"

    @property
    def storage_options(self) -> dict[str, Any]:
        return self._server.storage_options

    def close(self) -> None:
        self._client.close()

    def put(self, key: str, data: bytes) -> None:
        self._client.put_object(Bucket=self._server.bucket, Key=f"{self._prefix}/{key}", Body=data)

    def put_rows(self, key: str, rows: list[dict]) -> None:
        self.put(key, "".join(json.dumps(row) + "\n" for row in rows).encode())

    def copy_folder(self, old: str, new: str) -> None:
        """Make folder *new* hold what *old* does, metadata included, and nothing else."""
        bucket, prefix = self._server.bucket, self._prefix
        for key in self.listed(f"{new}/"):
            self.delete(key)
        for key in self.listed(f"{old}/"):
            source = {"Bucket": bucket, "Key": f"{prefix}/{key}"}
            target = f"{prefix}/{new}/{key.removeprefix(f'{old}/')}"
            self._client.copy_object(Bucket=bucket, Key=target, CopySource=source)

    def delete(self, key: str) -> None:
        self._client.delete_object(Bucket=self._server.bucket, Key=f"{self._prefix}/{key}")

    def get(self, key: str) -> bytes:
        answer = self._client.get_object(Bucket=self._server.bucket, Key=f"{self._prefix}/{key}")
        with contextlib.closing(answer["Body"]) as body:
            return body.read()

    def listed(self, below: str = "") -> dict[str, tuple[str, Any]]:
        """ETag and time of each object whose key begins with *below*."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._server.bucket, Prefix=f"{self._prefix}/{below}"
        )
        found = [entry for page in pages for entry in page.get("Contents", [])]
        cut = len(self._prefix) + 1
        return {entry["Key"][cut:]: (entry["ETag"], entry["LastModified"]) for entry in found}

    def begin_upload(self, key: str) -> None:
        """Begin a multipart upload, and leave it."""
        self._client.create_multipart_upload(
            Bucket=self._server.bucket, Key=f"{self._prefix}/{key}"
        )

    def uploads(self) -> int:
        """Unfinished multipart uploads."""
        answer = self._client.list_multipart_uploads(
            Bucket=self._server.bucket, Prefix=self._prefix
        )
        return len(answer.get("Uploads", []))

    def rows_out(self) -> list[dict]:
        """All rows of the parts, in part order."""
        parts = sorted(key for key in self.listed("out/part-"))
        return [json.loads(line) for part in parts for line in self.get(part).splitlines()]

    def sentinels(self) -> dict[str, dict]:
        """Each sentinel, by the key of its part."""
        keys = self.listed("out/_checkpoint/sentinels/")
        found = [json.loads(self.get(key)) for key in keys]
        return {f"out/{sentinel['part']}": sentinel for sentinel in found}
