"""Our code, broken on purpose: a sweep that does not notice proves nothing."""

from __future__ import annotations

import os
from dataclasses import replace

import pyarrow as pa

from batchrunner.checkpoint import Checkpoint, Sentinel, bundles
from batchrunner.checkpoint import commit as committing
from batchrunner.driver import opening
from batchrunner.driver.session import Session
from batchrunner.formats import conform, schemas
from batchrunner.storage.disk import durability, staging
from batchrunner.storage.disk import storage as local
from batchrunner.storage.disk.storage import LocalStorage
from batchrunner.worker import committer


def apply(name: str) -> None:
    """Break this process."""
    if name:
        globals()[name]()


def sentinel_first() -> None:
    def commit(finished, *, sink, checkpoint, refused=None):
        counting = checkpoint.publish({f.stem: f.sentinel for f in finished})
        sink.publish({f.sentinel.part: (f.staged, f.sentinel.to_bytes()) for f in finished})
        return counting

    committer.commit = commit


def no_fsync() -> None:
    durability._sync_each = lambda files: None
    staging.sync_folder = lambda path: None
    durability.sync_folder = lambda path: None


def publish_overwrites() -> None:
    def link(source, target):
        os.replace(source, target)
        return True

    local._link = link


def forget_notes_early() -> None:
    real = committing.Storage

    def commit(finished, *, sink, checkpoint, refused=None):
        won = sink.publish({f.sentinel.part: (f.staged, f.sentinel.to_bytes()) for f in finished})
        sink.remove_intents([f.sentinel.part for f in finished])
        return checkpoint.publish({f.stem: f.sentinel for f in finished if f.sentinel.part in won})

    committer.commit = commit
    assert real


def intents_forget_the_end() -> None:
    real = Sentinel.to_intent

    def to_intent(self):
        return real(replace(self, slices=0, slice_rows=0, slice_total=0))

    Sentinel.to_intent = to_intent


def dead_letters_last() -> None:
    def commit(finished, *, sink, checkpoint, refused=None):
        sink.publish({f.sentinel.part: (f.staged, f.sentinel.to_bytes()) for f in finished})
        counting = checkpoint.publish({f.stem: f.sentinel for f in finished})
        checkpoint.publish_dead_letters(
            {f.sentinel.errors: f.dead_letters for f in finished if f.dead_letters}
        )
        return counting

    committer.commit = commit


def grows_only_in_memory() -> None:
    real = Checkpoint.add_generation

    def add_generation(self, generation, *, number):
        if number == 0:
            real(self, generation, number=number)

    Checkpoint.add_generation = add_generation


def trusts_any_sentinel() -> None:
    Sentinel.is_of = lambda self, stem, *, run_uid: True


def never_looks_at_the_lease() -> None:
    Session.check = lambda self: None


def casts_types() -> None:
    """As Arrow does by itself."""

    def shaped(array, want, path, *, lenient):
        return array.cast(want)

    schemas.grown_type = lambda kind, own, path: own if pa.types.is_null(kind) else kind
    conform._shaped = shaped


def deletes_by_name() -> None:
    LocalStorage.delete_exactly = lambda self, entries: self.delete([one.key for one in entries])


def files_before_the_part() -> None:
    """The files of an attempt that may not win."""
    real = committing._committed

    def committed(finished, sink, checkpoint, refused):
        for one in finished:
            one.bundle.lines.seek(0)
            lines = list(bundles._placed(bundles._listed(one.bundle.lines)))
            data = bundles._Data(one.sentinel, lambda one=one: one.bundle.data)
            sink.put_if_absent({piece.file.path: data.of(piece) for piece in lines})
            one.bundle.lines.seek(0)
        return real(finished, sink, checkpoint, refused)

    committing._committed = committed
    committing.publish_files = lambda *_, **__: None


def sentinel_before_its_files() -> None:
    real = committing.publish_files

    def publish_files(sentinel, *, sink, checkpoint, bundle=None):
        checkpoint.publish({sentinel.part.partition(".")[0]: sentinel})
        real(sentinel, sink=sink, checkpoint=checkpoint, bundle=bundle)

    committing.publish_files = publish_files


def adopts_without_files() -> None:
    committing.adopt = committing.claim
    opening.adopt = committing.claim
