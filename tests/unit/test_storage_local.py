import errno
import io
import multiprocessing
import os
import shutil
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from batchrunner.errors import (
    ObjectChangedError,
    ObjectNotFoundError,
    StorageError,
    UnsafeStorageError,
)
from batchrunner.storage.disk.storage import LocalStorage
from batchrunner.testing.storage_contract import INTENT, entry_of, keys, publish, staged


@pytest.fixture
def storage(tmp_path):
    return LocalStorage(str(tmp_path / "root"))


@pytest.fixture
def root(storage):
    return Path(storage.uri)


def staging(root):
    """What lies in the staging folder."""
    return sorted(path.suffix for path in (root / ".staging").glob("*"))


# What is on the disk


def test_published_files_get_the_mode_that_the_umask_gives(storage, root):
    """The team reads the parts; only the owner sees what is not published."""
    before = os.umask(0o027)
    try:
        publish(storage, {"a/part": b"1"})
        storage.put_if_absent({"a/sentinel": b"1"})
        storage.put("lease", b"1")
    finally:
        os.umask(before)

    modes = {stat.S_IMODE((root / key).stat().st_mode) for key in keys(storage, recursive=True)}
    assert modes == {0o640}
    assert stat.S_IMODE((root / ".staging").stat().st_mode) == 0o700


def test_nothing_is_left_in_staging_but_notes(storage, root):
    """A finished run leaves parts, not scraps."""
    publish(storage, {"won": b"1"})
    publish(storage, {"won": b"2"})
    storage.put("record", b"1")
    storage.put_if_absent({"record": b"2", "other": b"3"})
    storage.stage().discard()
    assert staging(root) == [".intents"]

    storage.remove_intents(["won"])
    assert staging(root) == []


def test_reading_creates_nothing(storage, root):
    """`status` on a run that never started must not make its folders."""
    assert keys(storage) == []
    assert storage.head("a") is None
    assert storage.intents("a") == ()
    storage.remove_intents(["a"])
    storage.delete(["a"])
    storage.clean()

    assert not root.exists()


def test_a_sweep_takes_what_dead_writers_staged(storage, root):
    """Their bytes have no name that anybody knows."""
    dead = storage.stage()
    dead.file.write(b"half")

    LocalStorage(storage.uri).clean()

    assert staging(root) == []
    dead.discard()


def test_bytes_cleaned_away_are_not_published(storage, root):
    """The zombie learns that it was taken for dead."""
    one = staged(storage, b"1")
    LocalStorage(storage.uri).clean()

    with pytest.raises(ObjectNotFoundError, match="cleaned"):
        storage.publish({"key": (one, INTENT)})

    assert keys(storage) == []


def test_a_listing_shows_files_wherever_they_are_and_nothing_else(storage, root, tmp_path):
    """Sources are other people's folders: links, pipes, nested sinks."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "linked").write_text("123")
    storage.put("a/file", b"1")
    publish(LocalStorage(f"{root}/nested"), {"part": b"1"})
    (root / "a/link").symlink_to(outside / "linked")
    (root / "a/dangling").symlink_to(outside / "nowhere")
    (root / "a/folder").symlink_to(outside)
    (root / "a/up").symlink_to(root)
    os.mkfifo(root / "a/pipe")

    assert keys(storage, recursive=True) == ["a/file", "a/link", "nested/part"]
    assert entry_of(storage, "a/link").size == 3


def test_a_root_may_be_a_link(storage, root, tmp_path):
    """/data is often one."""
    storage.put("a", b"1")
    (tmp_path / "link").symlink_to(root)

    assert keys(LocalStorage(str(tmp_path / "link"))) == ["a"]


def test_a_pipe_is_not_waited_for(storage, root):
    """Opening one blocks until somebody writes, which is never."""
    storage.put("a", b"1")
    os.mkfifo(root / "pipe")

    with pytest.raises(ObjectNotFoundError, match="regular"):
        storage.get("pipe")


# Notes


def test_notes_are_found_and_dropped_by_others(storage, root):
    """The worker died after its publish; the driver adopts the part."""
    publish(storage, {"a": b"1", "b": b"2"})
    driver = LocalStorage(storage.uri)
    assert driver.intents("a") == driver.intents("b") == (INTENT,)

    driver.remove_intents(["b"])
    assert driver.intents("a") == (INTENT,)
    driver.remove_intents(["a", "b", "c"])

    assert staging(root) == []


def test_notes_of_attempts_that_died_before_they_published_are_told_apart_by_the_caller(
    storage, monkeypatch
):
    """A disk cannot know which of two intents belongs to the file."""
    dies = staged(storage, b"1")
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", _crash)
        with pytest.raises(KeyboardInterrupt):
            storage.publish({"a": (dies, b"first")})
    publish(storage, {"a": b"2"}, intent=b"second")

    assert set(storage.intents("a")) == {b"first", b"second"}


def _crash(*_):
    raise KeyboardInterrupt


# Reading


def test_an_open_file_can_be_opened_by_its_name(storage, root):
    """Pyarrow reads it without Python in between."""
    storage.put("a", b"1")

    with storage.open(entry_of(storage, "a")) as file:
        assert isinstance(file, io.FileIO)
        assert file.name == str(root / "a")


def test_a_file_that_changed_since_it_was_listed_is_not_even_opened(storage):
    """Those who read it by its name would not hear of it before they are done."""
    storage.put("a", b"old")
    entry = entry_of(storage, "a")
    storage.put("a", b"new")

    with pytest.raises(ObjectChangedError, match="/a: "):
        storage.open(entry)


@pytest.mark.parametrize("change", ["replaced", "rewritten", "grown", "rewritten, removed"])
def test_a_change_is_noticed_at_the_end_and_when_the_file_is_closed(storage, root, change):
    """Also for those who read it by its name."""

    def change_it():
        if change == "replaced":
            storage.put("a", b"new")
        else:
            with (root / "a").open("ab" if change == "grown" else "r+b") as other:
                other.write(b"new")
        if "removed" in change:
            (root / "a").unlink()

    storage.put("a", b"old")
    file = storage.open(entry_of(storage, "a"))
    change_it()
    with pytest.raises(ObjectChangedError):
        file.read()
    with pytest.raises(ObjectChangedError):
        file.close()

    assert file.closed


def test_a_file_removed_while_it_is_read_is_read_to_its_end(storage):
    """All its bytes are still those that were listed."""
    storage.put("a", b"old")
    with storage.open(entry_of(storage, "a")) as file:
        storage.delete(["a"])
        assert file.read() == b"old"


# Things in the way


def test_a_link_planted_at_a_staged_name_is_not_followed(storage, root, tmp_path, monkeypatch):
    """Whoever can guess the name must not get us to write elsewhere."""
    storage.put("a", b"1")
    victim = tmp_path / "victim"
    victim.write_text("precious")
    monkeypatch.setattr(os, "urandom", bytes)
    (root / f".staging/{bytes(12).hex()}.tmp").symlink_to(victim)

    with pytest.raises(StorageError, match=r"\.tmp"):
        storage.put("b", b"2")

    assert victim.read_text() == "precious"


def test_a_staging_folder_that_is_a_link_is_refused(storage, root, tmp_path):
    """It may lead to another disk, or to another owner."""
    root.mkdir()
    (root / ".staging").symlink_to(tmp_path)

    with pytest.raises(StorageError, match="is a file or a link"):
        storage.put("a", b"1")


def test_a_link_at_the_target_of_a_put_is_replaced_not_followed(storage, root, tmp_path):
    """The victim keeps its bytes."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    root.mkdir()
    (root / "a").symlink_to(victim)
    (root / "b").symlink_to(tmp_path / "nowhere")

    storage.put("a", b"1")
    assert storage.put_if_absent({"b": b"2"}) == frozenset()
    assert publish(storage, {"b": b"2"}) == frozenset()

    assert victim.read_text() == "precious"
    assert (storage.get("a"), (tmp_path / "nowhere").exists()) == (b"1", False)


def test_a_file_where_a_folder_is_needed_is_named(storage):
    """Nothing is removed to make room."""
    storage.put("a", b"1")

    with pytest.raises(StorageError, match="/a: a folder is needed"):
        storage.put("a/b", b"2")
    assert storage.head("a/b") is None
    with pytest.raises(ObjectNotFoundError):
        storage.get("a/b")


def test_a_folder_that_is_removed_under_us_is_made_again(storage, root):
    """Somebody tidied up between two shards."""
    publish(storage, {"a/b/part-0": b"1"})
    shutil.rmtree(root)

    publish(storage, {"a/b/part-1": b"2"})

    assert keys(storage, recursive=True) == ["a/b/part-1"]


# Disks that say no


@pytest.mark.parametrize("code", [errno.EPERM, errno.EXDEV, errno.EOPNOTSUPP])
def test_a_file_system_without_hard_links_is_refused(storage, monkeypatch, code):
    """FAT, some FUSE and SMB: there a second writer could win."""

    def link(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", link)
    for act in (storage.check_conditional_writes, lambda: publish(storage, {"a": b"1"})):
        with pytest.raises(UnsafeStorageError, match="hard links"):
            act()

    assert keys(storage) == []


def test_a_file_system_whose_links_replace_is_refused(storage, monkeypatch):
    """The probe looks at what happens, not at what is said."""
    monkeypatch.setattr(os, "link", os.replace)

    with pytest.raises(UnsafeStorageError, match="second writer"):
        storage.check_conditional_writes()


def test_a_link_that_was_made_but_reported_as_taken_is_ours(storage, monkeypatch):
    """NFS repeats a call whose answer it lost."""
    link = os.link

    def link_and_lie(*arguments):
        link(*arguments)
        raise FileExistsError(errno.EEXIST, "")

    monkeypatch.setattr(os, "link", link_and_lie)

    assert publish(storage, {"a": b"1"}) == {"a"}


WRITES = {
    "put": lambda storage: storage.put("a", b"1"),
    "put_if_absent": lambda storage: storage.put_if_absent({"a": b"1", "b": b"2"}),
    "publish": lambda storage: publish(storage, {"a": b"1", "b": b"2"}),
    "a large batch": lambda storage: publish(storage, dict.fromkeys("abcdefghijkl", b"1")),
}


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("write", WRITES)
def test_what_cannot_be_made_durable_is_not_published(storage, root, monkeypatch, write, code):
    """And never synced again: the kernel would say that all is well."""
    storage.put("there", b"1")
    failed = []

    def fsync(fd):
        assert stat.S_ISREG(os.fstat(fd).st_mode), "published without the bytes"
        assert os.fstat(fd).st_ino not in failed
        failed.append(os.fstat(fd).st_ino)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StorageError, match=str(root)):
        WRITES[write](storage)

    assert failed
    assert keys(storage) == ["there"]
    assert staging(root) == []


def in_a_process(code, *arguments, **options):
    """Run *code* with a `storage` on the first argument."""
    head = (
        "import errno, os, resource, sys\n"
        "from batchrunner.errors import *\n"
        "from batchrunner.storage.disk.storage import LocalStorage\n"
        "from batchrunner.storage import staging\n"
        "from batchrunner.storage.disk import durability, errors as disk_errors\n"
        "import concurrent.futures.thread, tempfile\n"
        "storage = LocalStorage(sys.argv[1])\n"
    )
    return subprocess.run(
        [sys.executable, "-c", head + textwrap.dedent(code), *map(str, arguments)],
        cwd=Path(sys.modules["batchrunner"].__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
        **options,
    ).stdout


def test_a_write_that_the_kernel_cuts_short_is_an_error(root):
    """At a limit the first write takes less than it was given, without an error."""
    said = in_a_process(
        """
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
        staged = storage.stage()
        try:
            staged.file.write(b"x" * 10_000)
        except StorageError as error:
            print(type(error).__name__, error)
        staged.discard()
        """,
        root,
    )

    assert said.startswith("StorageError")
    assert "ulimit -f" in said
    assert staging(root) == []


def test_a_folder_that_may_not_be_written_is_named(tmp_path):
    """Before anything is computed: the probe comes first."""
    said = in_a_process(
        """
        os.chmod(sys.argv[1], 0o555)
        if os.geteuid() == 0:
            os.setuid(65534)
        try:
            storage.check_conditional_writes()
        except StorageAccessError as error:
            print(error)
        """,
        tmp_path,
    )

    place, _, reason = said.partition(": ")
    assert str(tmp_path).startswith(place)
    assert reason.startswith("cannot make the")
    assert "permission denied" in reason


def test_a_full_and_a_read_only_disk_are_named_and_passed(tmp_path):
    """Nothing half-written is seen, and what was published stays."""
    script = """
        import subprocess
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", sys.argv[1]], check=True)
        storage.put("there", b"1")
        for data in (b"x" * 2_000_000, b"x" * 900_000):
            staged = storage.stage()
            try:
                staged.file.write(data)
                staged.file.close()
                print(storage.publish({"part": (staged, b"intent")}))
            except StorageError as error:
                print(error)
            staged.discard()
        subprocess.run(["mount", "-o", "remount,ro", sys.argv[1]], check=True)
        try:
            storage.put("a", b"1")
        except StorageAccessError as error:
            print(error)
        print([entry.key for entry in storage.list()])
    """
    unshared = ["unshare", "-Urm", sys.executable]
    if subprocess.run([*unshared, "-c", ""], capture_output=True, check=False).returncode:
        pytest.skip("no user namespaces here")
    head = "import sys\nfrom batchrunner.errors import *\n"
    head += "from batchrunner.storage.disk.storage import LocalStorage\n"
    head += "storage = LocalStorage(sys.argv[1])\n"
    said = subprocess.run(
        [*unshared, "-c", head + textwrap.dedent(script), str(tmp_path)],
        cwd=Path(sys.modules["batchrunner"].__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()

    assert "no space left" in said[0]
    assert said[1] == "frozenset({'part'})"
    assert "read-only" in said[2]
    assert said[3] == "['part', 'there']"


def test_a_place_where_nothing_can_be_made_is_named():
    """Not every mount takes folders, whatever its permissions say."""
    with pytest.raises(StorageError, match=r"/proc/1/no: cannot make the folder"):
        LocalStorage("/proc/1/no/where").put("a", b"1")


# Order


@pytest.fixture
def steps(root, monkeypatch):
    """What the process asks of the disk, in order, as far as order matters."""
    taken = []

    def recorded(name, what):
        real = getattr(os, name)

        def call(*arguments):
            taken.append(what(*arguments))
            return real(*arguments)

        monkeypatch.setattr(os, name, call)

    def synced(fd):
        path = Path(f"/proc/self/fd/{fd}").readlink()
        place = path.relative_to(root.parent)
        return f"sync a file in {place.parent}" if path.is_file() else f"sync {place}"

    recorded("fsync", synced)
    recorded("mkdir", lambda path, *_: f"make {Path(path).relative_to(root.parent)}")
    for name in ("link", "rename", "replace", "unlink"):
        recorded(name, lambda *_, name=name: name)
    return taken


def test_each_step_is_durable_before_the_next_one_relies_on_it(storage, steps):
    """Bytes and intents before names; otherwise a power cut leaves a name without them."""
    storage.put("a/there", b"1")
    one, other = staged(storage, b"1"), staged(storage, b"2")
    steps.clear()

    storage.publish({"a/1": (one, INTENT), "a/2": (other, INTENT)})

    assert steps == [
        *["sync a file in root/.staging"] * 3,  # two parts, and the intents on both
        "rename",  # the intents count now
        "sync root/.staging",
        *["link"] * 2,
        "sync root/a",
        *["unlink"] * 2,
    ]


def test_new_folders_are_durable_before_anything_in_them(storage, steps):
    """A power cut must not take the folder and leave the call's promise."""
    storage.put("a/b/key", b"1")

    assert steps == [
        "make root",
        "sync .",
        "make root/.staging",
        "sync a file in root/.staging",
        "make root/a",
        "sync root",
        "make root/a/b",
        "sync root/a",
        "replace",
        "sync root/a/b",
    ]


def test_the_staging_folder_is_durable_before_the_first_name_that_needs_an_intent(storage, steps):
    """Until then nothing in it has to outlive a power cut, so no sync is spent on it."""
    storage.publish({"a": (staged(storage, b"1"), INTENT)})

    assert "make root/.staging" in steps
    assert steps.index("sync root/.staging") < steps.index("sync root") < steps.index("link")


def test_folders_that_are_there_are_made_durable_together(storage, steps):
    """A resume finds them all made, and one sync of the root covers them."""
    for folder in ("a", "b", "c"):
        storage.put(f"{folder}/key", b"1")
    steps.clear()
    again = LocalStorage(storage.uri)

    for folder in ("a", "b", "c"):
        again.put(f"{folder}/key", b"2")

    assert steps.count("sync root") == 1
    assert steps.index("sync root") < steps.index("replace")


def test_a_root_that_is_removed_between_two_writes_is_made_again(storage, root, steps):
    """A storage is kept for the whole process, in which a user may clear a folder and run again."""
    storage.put("a/b/key", b"1")
    root.rename(root.parent / "elsewhere")
    steps.clear()

    storage.put("a/b/key", b"2")

    assert storage.get("a/b/key") == b"2"
    assert {"sync .", "sync root", "sync root/a"} <= set(steps)


def test_a_folder_that_another_process_made_is_made_durable_too(storage, steps):
    """It may not have come to that yet."""
    storage.put("a/b/key", b"1")
    steps.clear()

    LocalStorage(storage.uri).put("a/b/key", b"2")

    assert steps.index("sync root/a") < steps.index("replace")


CRASHES = """
    import itertools, signal

    def die_at(nth):
        calls = itertools.count(1)
        for name in ("fsync", "link", "rename", "replace", "unlink", "mkdir", "open"):
            def call(*arguments, real=getattr(os, name), **named):
                if next(calls) == nth:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*arguments, **named)
            setattr(os, name, call)

    def work():
        staged = {}
        for key in ("a/0", "a/1", "a/2"):
            one = storage.stage()
            one.file.write(key.encode() * 1000)
            one.file.close()
            staged[key] = (one, key.encode())
        storage.publish(staged)
        storage.put_if_absent({"done/0": b"0", "done/1": b"1"})
        storage.put("ledger", b"ledger")
        storage.remove_intents(staged)

    for nth in itertools.count(1):
        storage = LocalStorage(f"{sys.argv[1]}/{nth}")
        child = os.fork()
        if child == 0:
            die_at(nth)
            work()
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        seen = {entry.key: storage.get(entry.key) for entry in storage.list("a")}
        assert all(data == key.encode() * 1000 for key, data in seen.items()), seen
        if not any(storage.list("done")):
            assert all(key.encode() in storage.intents(key) for key in seen), seen
        else:
            assert len(seen) == 3
        assert {entry.size for entry in storage.list("done")} <= {1}
        storage.clean()
        work()
        assert len(list(storage.list(recursive=True))) == 6
        storage.remove_intents(["a/0", "a/1", "a/2", "and others"])
        assert not any(os.scandir(f"{storage.uri}/.staging"))
        if status == 0:
            break
    print(nth)
"""


def test_a_kill_at_any_step_leaves_whole_objects_with_their_notes(tmp_path):
    """Whatever the instant, the next run finds parts that it can adopt, or nothing."""
    points = int(in_a_process(CRASHES, tmp_path))

    assert points > 30


# Processes


def offer(place, start, rounds, answers, number):
    """One of the processes of the race below."""
    storage = LocalStorage(place)
    for turn in range(rounds):
        start.wait()
        won = storage.put_if_absent({f"key-{turn}": b"%d" % number})
        answers.put((turn, number if won else None))


def test_of_eight_processes_one_gets_the_key(storage):
    """Twenty times."""
    processes, rounds = 8, 20
    context = multiprocessing.get_context("spawn")
    start, answers = context.Barrier(processes), context.SimpleQueue()
    started = [
        context.Process(target=offer, args=(storage.uri, start, rounds, answers, number))
        for number in range(processes)
    ]
    for process in started:
        process.start()
    given = [answers.get() for _ in range(processes * rounds)]
    for process in started:
        process.join()
        process.close()

    for turn in range(rounds):
        winners = [number for at, number in given if at == turn and number is not None]
        assert [b"%d" % number for number in winners] == [storage.get(f"key-{turn}")]


def test_a_file_in_place_of_the_root_is_an_error_and_not_an_empty_listing(tmp_path):
    """Whoever reads "nothing there" makes everything anew."""
    (tmp_path / "root").touch()
    for root in ("root", "root/below"):
        with pytest.raises(StorageError, match="root"):
            list(LocalStorage(str(tmp_path / root)).list("a"))

    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/a").touch()
    assert list(LocalStorage(str(tmp_path / "folder")).list("a")) == []
