"""Output damaged in every way: what `verify` must find."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from batchrunner.checkpoint import Sentinel
from batchrunner.storage.json_documents import sealed
from builders import read_part

Damage = Callable[[Path], None]
"""Does something to the folder of a sink."""


def part(out: Path, number: int = 1) -> Path:
    return sorted(out.glob("part-*"))[number]


def sentinel(out: Path, number: int = 1) -> Path:
    return out / f"_checkpoint/sentinels/part-{number:05d}.json"


def fields_of(path: Path) -> dict:
    return {key: value for key, value in json.loads(path.read_bytes()).items() if key != "check"}


def dead_letters(out: Path) -> Path:
    return next((out / "_checkpoint/errors").iterdir())


def cut(out: Path) -> None:
    os.truncate(part(out), part(out).stat().st_size - 1)


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def delete(out: Path) -> None:
    part(out).unlink()


def grow(out: Path) -> None:
    with part(out).open("ab") as file:
        file.write(b"{}\n")


def swap(out: Path) -> None:
    one, other = part(out, 0), part(out, 1)
    one.rename(out / "x")
    other.rename(one)
    (out / "x").rename(other)


def another_shards(out: Path) -> None:
    shutil.copy(part(out, 0), part(out, 1))


def copied(out: Path) -> None:
    one = part(out)
    shutil.copy(one, out / one.name.replace("00001", "00009"))


def copied_by_hand(out: Path) -> None:
    one = part(out)
    shutil.copy(one, out / f"copy of {one.name}")


def copied_into_a_folder(out: Path) -> None:
    one = part(out)
    (out / "old").mkdir()
    shutil.copy(one, out / "old" / one.name)


def a_huge_sentinel(out: Path) -> None:
    os.truncate(sentinel(out), (64 << 20) + 1)  # it takes no room on the disk


def stranger(out: Path) -> None:
    one = part(out)
    (out / one.name.replace("00001", "00042")).write_bytes(b"something else")


def edited(field: str) -> Damage:
    """A field of a sentinel changed by a user who does not know of its checksum."""

    def edit(out: Path) -> None:
        path = sentinel(out)
        fields = json.loads(path.read_bytes())
        fields[field] = _other(fields[field])
        path.write_text(json.dumps(fields, separators=(",", ":")))

    return edit


def _other(value: Any) -> Any:
    if isinstance(value, dict):
        return {**value, "cost": 1}
    return f"{value}0" if isinstance(value, str) else value + 1


def forged(**changes: object) -> Damage:
    """Fields changed by a user who does: then the data shows it."""

    def forge(out: Path) -> None:
        path = sentinel(out)
        fields = {**fields_of(path), **changes}
        path.write_bytes(sealed(json.dumps(fields, separators=(",", ":")).encode()))

    return forge


def another_sentinel(out: Path) -> None:
    shutil.copy(sentinel(out, 0), sentinel(out, 1))


def torn_sentinel(out: Path) -> None:
    os.truncate(sentinel(out), 40)


def empty_sentinel(out: Path) -> None:
    sentinel(out).write_bytes(b"")


def deleted_sentinel(out: Path) -> None:
    sentinel(out).unlink()


def stray_sentinel(out: Path) -> None:
    shutil.copy(sentinel(out), sentinel(out, 77))


def without_dead_letters(out: Path) -> None:
    dead_letters(out).unlink()


def short_dead_letters(out: Path) -> None:
    lines = dead_letters(out).read_bytes().splitlines(keepends=True)
    dead_letters(out).write_bytes(b"".join(lines[:-1]))


def cut_dead_letters(out: Path) -> None:
    os.truncate(dead_letters(out), dead_letters(out).stat().st_size - 1)


def torn_dead_letters(out: Path) -> None:
    flip(dead_letters(out), 3)


def without_manifest(out: Path) -> None:
    (out / "_manifest.json").unlink()


def torn_manifest(out: Path) -> None:
    os.truncate(out / "_manifest.json", 100)


def manifest_edits(out: Path) -> Iterator[tuple[str, dict]]:
    """Each value of the manifest, changed, by where it stands."""
    text = (out / "_manifest.json").read_text()
    for key, value in json.loads(text).items():
        if key != "parts":
            yield key, {**json.loads(text), key: other(value)}
    for key, value in json.loads(text)["parts"][0].items():
        changed = json.loads(text)
        changed["parts"][0][key] = other(value)
        yield f"parts.{key}", changed
    for name, parts in {
        "one part less": json.loads(text)["parts"][1:],
        "a part twice": [json.loads(text)["parts"][0], *json.loads(text)["parts"]],
        "another order": json.loads(text)["parts"][::-1],
    }.items():
        yield name, {**json.loads(text), "parts": parts}


def other(value: object) -> object:
    return f"{value}0" if isinstance(value, str) else int(str(value)) + 1


ALL: dict[str, tuple[Damage, set[str]]] = {
    "truncated by a byte": (cut, {"size"}),
    "grown": (grow, {"size"}),
    "deleted": (delete, {"missing"}),
    "swapped": (swap, {"size", "checksum"}),
    "another shard's part": (another_shards, {"size", "checksum"}),
    "copied": (copied, {"duplicate"}),
    "copied by hand": (copied_by_hand, {"duplicate"}),
    "copied into a folder": (copied_into_a_folder, {"duplicate"}),
    "a stranger": (stranger, {"orphan"}),
    "torn sentinel": (torn_sentinel, {"sentinel"}),
    "empty sentinel": (empty_sentinel, {"sentinel"}),
    "huge sentinel": (a_huge_sentinel, {"sentinel"}),
    "another shard's sentinel": (another_sentinel, {"sentinel"}),
    "sentinel gone": (deleted_sentinel, {"unadopted", "success"}),
    "sentinel of no shard": (stray_sentinel, {"orphan"}),
    "forged rows_in": (forged(rows_in=99), {"rows_in", "manifest"}),
    "forged rows_out": (forged(rows_out=99), {"rows_out", "manifest"}),
    "forged rows_failed": (forged(rows_failed=2), {"dead_letters", "manifest"}),
    "forged bytes": (forged(bytes=99), {"size", "manifest"}),
    "forged sha256": (forged(sha256="0" * 64), {"checksum", "manifest"}),
    "forged run_uid": (forged(run_uid="another"), {"sentinel"}),
    "forged part": (forged(part="part-00002.jsonl"), {"sentinel", "manifest"}),
    "forged shard": (forged(shard=2), {"sentinel"}),
    "forged errors": (forged(errors="nothing.jsonl"), {"dead_letters"}),
    "nonsense": (forged(rows_in=-1), {"sentinel", "manifest"}),
    "dead letters gone": (without_dead_letters, {"dead_letters"}),
    "dead letters short": (short_dead_letters, {"dead_letters"}),
    "dead letters cut by a byte": (cut_dead_letters, {"dead_letters"}),
    "dead letters torn": (torn_dead_letters, {"dead_letters"}),
    "manifest gone": (without_manifest, {"manifest"}),
    "manifest torn": (torn_manifest, {"manifest"}),
}


Change = Callable[[list[dict]], list[dict]]


def rewritten(out: Path, number: int, change: Change) -> None:
    """Rows of a part changed, and everything that is kept about it: bytes, counts, records agree.

    As a bug would leave it: written wrong, and recorded as it was written.
    """
    rewritten_by(out, number, lambda path: _write(path, change))


def rewritten_by(out: Path, number: int, write: Callable[[Path], int]) -> None:
    """As `rewritten`; *write* gives the part other bytes, and returns its rows."""
    path, record = part(out, number), sentinel(out, number)
    rows = write(path)
    data = path.read_bytes()
    facts = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), "rows_out": rows}
    changed = dataclasses.replace(Sentinel.from_bytes(record.read_bytes(), key=""), **facts)
    record.write_bytes(changed.to_bytes())
    _agree(out / "_manifest.json", changed)


def _write(path: Path, change: Change) -> int:
    rows = read_part(path)
    if path.suffix == ".parquet":
        schema = pq.read_schema(path)
        after = change(rows)
        pq.write_table(pa.Table.from_pylist(after, schema=schema), path)
        return len(after)
    after = change(rows)
    data = b"".join(json.dumps(row).encode() + b"\n" for row in after)
    codec = {".gz": "gzip", ".zst": "zstd"}.get(path.suffix)
    with pa.output_stream(path, compression=codec) as file:
        file.write(data)
    return len(after)


def _agree(path: Path, changed: Sentinel) -> None:
    manifest = json.loads(path.read_text())
    parts = {entry["part"]: entry for entry in manifest["parts"]}
    parts[changed.part].update(bytes=changed.bytes, sha256=changed.sha256, rows=changed.rows_out)
    manifest["bytes"] = sum(entry["bytes"] for entry in manifest["parts"])
    manifest["rows_out"] = sum(entry["rows"] for entry in manifest["parts"])
    path.write_text(json.dumps(manifest))
