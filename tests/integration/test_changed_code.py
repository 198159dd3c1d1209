"""Whatever of the code changes while a run is under way is refused by name, and nothing is mixed."""

from __future__ import annotations

import functools
import importlib
import json
import logging
import os
import re
import sys

import pytest

from batchrunner import BatchRunner
from batchrunner.capability import legacy_hash
from batchrunner.checkpoint import Checkpoint, RunRecord
from batchrunner.checkpoint.documents import lines_of
from batchrunner.errors import CapabilityImportError, InvalidSpecError, SpecChangedError
from batchrunner.spec.fingerprint import legacy_code_field
from batchrunner.storage import open_storage
from batchrunner.testing import memory  # noqa: F401 - makes memory:// known
from builders import a_source, a_spec, rows, rows_out, write_jsonl

CAPABILITY = """
from mypkg.helper import clean
def f(rows):
    return [{**row, "text": clean(row["text"])} for row in rows]
"""
HELPER = """
from . import deeper
def clean(text):
    return deeper.strip(text)
def unused():
    return 1
"""
DEEPER = "def strip(text):\n    return text.strip()\n"


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A finished run of two shards, by a capability with a helper that has one itself."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name, text in {
        "__init__": "",
        "cap": CAPABILITY,
        "helper": HELPER,
        "deeper": DEEPER,
    }.items():
        write(tmp_path, name, text)
    a_source(tmp_path / "in", shards=2)
    assert BatchRunner(spec_of(tmp_path)).run().ok
    write_jsonl(tmp_path / "in/later.jsonl", rows(100, 2))
    yield tmp_path
    forget_modules()


def write(folder, name, text):
    path = folder / f"mypkg/{name}.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def write_for_the_next_process(folder, name, text):
    """Write a module, and have the next run import all of them anew."""
    write(folder, name, text)
    forget_modules()


def spec_of(folder, **capability):
    return a_spec(folder, capability={"target": "mypkg.cap:f", **capability})


def refusal(folder, spec=None, *, capability=None):
    """Return what the run is refused with; it wrote nothing."""
    old = rows_out(folder / "out")
    with pytest.raises(SpecChangedError) as refused:
        BatchRunner(spec or spec_of(folder), capability=capability).run()
    assert old == rows_out(folder / "out")
    return str(refused.value)


def test_a_helper_that_changed_is_named_with_the_function(job):
    """Half of the rows of each version would be the output of no version."""
    write(
        job, "helper", HELPER.replace("strip(text)", "strip(text).upper()").replace("unused", "new")
    )

    message = refusal(job)

    assert "capability.code: mypkg/helper.py: clean changed, added new, removed unused" in message
    assert "cap.py" not in message


def test_a_helper_of_a_helper_that_changed_is_named(job):
    """However far away it is."""
    write(job, "deeper", DEEPER + "K = 1\n")

    assert "capability.code: mypkg/deeper.py: added K" in refusal(job)


def test_a_helper_that_was_tidied_up_goes_on(job):
    """Comments and layout decide nothing."""
    write(job, "deeper", "# why\ndef strip( text ):\n\n    return (text.strip())\n")

    assert BatchRunner(spec_of(job)).run().ok
    assert len(rows_out(job / "out")) == 10


def test_changed_code_that_is_accepted_is_recorded(job):
    """The next run needs no flag, and notices the next change."""
    write_for_the_next_process(job, "deeper", DEEPER + "K = 1\n")
    assert BatchRunner(spec_of(job)).run(accept_changes=True).ok

    assert BatchRunner(spec_of(job)).run().ok
    write_for_the_next_process(job, "deeper", DEEPER + "K = 2\n")
    assert "mypkg/deeper.py: K changed" in refusal(job)


def test_a_retry_takes_a_helper_that_changed_for_the_mended_one(job):
    """The bug is where it is; weights, on the other hand, are not mended."""
    write_for_the_next_process(job, "deeper", DEEPER + "K = 1\n")
    assert BatchRunner(spec_of(job)).retry().ok

    (job / "w.bin").write_bytes(b"1")
    with pytest.raises(SpecChangedError, match=r"capability\.files: .*w\.bin: added"):
        BatchRunner(spec_of(job, files=["w.bin"])).retry()


@pytest.mark.parametrize(
    "files", ["weights/w1.bin", "weights/*.bin", "weights", "{cwd}/weights/**"]
)
def test_other_weights_are_other_code(job, files):
    """Beside a version, too: they are named because they decide."""
    (job / "weights").mkdir()
    (job / "weights/w1.bin").write_bytes(b"1")
    (job / "weights/w2.bin").write_bytes(b"2")
    spec = spec_of(job, version="1", files=[files.format(cwd=job)])
    assert BatchRunner(spec).run(accept_changes=True).ok
    write_jsonl(job / "in/more.jsonl", rows(200, 2))

    os.utime(job / "weights/w1.bin", (1, 1))
    assert BatchRunner(spec).run().ok
    (job / "weights/w1.bin").write_bytes(b"3")

    message = refusal(job, spec)
    assert f"capability.files: {job}/weights/w1.bin: changed" in message
    assert "w2.bin" not in message


def test_weights_in_a_bucket_count_by_what_the_store_says(job):
    """Reading gigabytes from there would cost minutes at every start."""
    store = open_storage("memory://weights")
    store.put("model/w.bin", b"1")
    spec = spec_of(job, files=["memory://weights/model"])
    assert BatchRunner(spec).run(accept_changes=True).ok

    store.put("model/w.bin", b"2")

    assert "capability.files: memory://weights/model/w.bin: changed" in refusal(job, spec)


def test_a_folder_of_weights_is_read_through_links_and_each_file_once(job):
    """As a model cache has it: links to blobs, and now and then a link upwards."""
    (job / "blobs").mkdir()
    (job / "blobs/1").write_bytes(b"1")
    (job / "weights/__pycache__").mkdir(parents=True)
    (job / "weights/__pycache__/x.pyc").write_bytes(b"1")
    (job / "weights/w.bin").symlink_to(job / "blobs/1")
    (job / "weights/up").symlink_to(job / "weights")
    os.mkfifo(job / "weights/pipe")

    fields = BatchRunner(spec_of(job, files=["weights"])).decisive_fields()

    assert [f'capability.files."{job}/weights/w.bin"'] == [p for p in fields if "files" in p]
    (job / "blobs/1").unlink()
    with pytest.raises(InvalidSpecError, match=r"weights/w\.bin cannot be read"):
        BatchRunner(spec_of(job, files=["weights"])).plan()


@pytest.mark.parametrize("files", ["nowhere.bin", "*.nothing", "memory://nowhere/x", "empty"])
def test_weights_that_are_not_there_are_refused_by_name(job, files):
    """A misspelt name would guard nothing."""
    (job / "empty").mkdir()

    with pytest.raises(InvalidSpecError, match=re.escape(files)):
        BatchRunner(spec_of(job, files=[files])).plan()


def test_what_loads_the_inputs_is_code(job):
    """Another loader, another model under the same name."""
    write(job, "load", "def load(name):\n    return name\n")
    inputs = {"models": "mypkg.load:load"}
    capability = {"target": "mypkg.cap:f", "mode": "run", "inputs": inputs}
    spec = a_spec(job, capability=capability, analytics_store=str(job / "store"))

    fields = BatchRunner(spec).decisive_fields()

    assert 'capability.code."mypkg/load.py"' in fields


EDITOR = """
from pathlib import Path
def edit():
    path = Path(__file__).with_name("helper.py")
    path.write_text(path.read_text().replace("strip(text)", "strip(text).upper()"))
"""
EDITED_AT_IMPORT = "from mypkg.editor import edit\nedit()\n" + CAPABILITY
EDITED_AT_WORK = """
import os
from pathlib import Path
from mypkg.editor import edit
from mypkg.helper import clean
def f(rows):
    mark = Path(__file__).with_name("mark")
    if not mark.exists() and any(mark.parents[1].glob("later/_checkpoint/sentinels/*")):
        mark.touch()
        edit()
        os._exit(1)
    return [{**row, "text": clean(row["text"])} for row in rows]
"""
ENDS = "helper.py: clean changed.*run the same line again"


def a_job_that_is_edited(folder, how):
    """Have the capability edit its own helper, in place of a user who does so meanwhile."""
    write(folder, "editor", EDITOR)
    write_for_the_next_process(folder, "cap", how)


def forget_modules():
    for name in [name for name in sys.modules if name.partition(".")[0] in ("mypkg", "libnine")]:
        del sys.modules[name]


def test_code_that_changes_before_it_is_imported_ends_the_run(job):
    """The record would name the code of before, and the rows be of the new one."""
    a_job_that_is_edited(job, EDITED_AT_IMPORT)

    with pytest.raises(CapabilityImportError, match=ENDS):
        BatchRunner(spec_of(job)).run(accept_changes=True)

    assert len(rows_out(job / "out")) == 8


@pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.ray)])
def test_a_worker_that_starts_later_with_other_code_commits_nothing(job, engine, request):
    """Also where the worker of before had the code that counts, and committed by it."""
    if engine == "ray":
        request.getfixturevalue("local_ray")
    a_job_that_is_edited(job, EDITED_AT_WORK)
    a_source(job / "more", shards=48)  # 32 parts are committed together, however fast they are
    errors = {"batch_timeout": "60s"} if engine == "local" else {}
    spec = a_spec(
        job,
        capability={"target": "mypkg.cap:f"},
        source=str(job / "more"),
        sink=str(job / "later"),
        execution={"engine": engine, "concurrency": 1},
        errors=errors,
    )

    with pytest.raises(CapabilityImportError, match=ENDS):
        BatchRunner(spec).run()
    committed = rows_out(job / "later")
    assert committed
    assert not any(row["text"].isupper() for row in committed)

    with pytest.raises(SpecChangedError, match=r"helper\.py: clean changed"):
        BatchRunner(spec).run()
    assert BatchRunner(spec).run(accept_changes=True).ok


def test_code_that_this_process_imported_before_it_changed_is_not_run(job):
    """A notebook, or a worker of Ray's from the run before: the file is new, what runs is not."""
    write(job, "deeper", DEEPER + "K = 1\n")
    with pytest.raises(CapabilityImportError, match=r"deeper\.py: added K.*in a new process"):
        BatchRunner(spec_of(job)).run(accept_changes=True)

    importlib.reload(sys.modules["mypkg.deeper"])
    assert BatchRunner(spec_of(job)).run(accept_changes=True).ok


PLUGGED = """
import sys, importlib
from pathlib import Path
sys.path.append(str(Path(__file__).with_name("plugins")))
found = [importlib.import_module(path.stem) for path in Path(sys.path[-1]).glob("plug_*.py")]
def f(rows):
    return rows
"""


@pytest.fixture
def plugged(job, monkeypatch):
    """A job whose capability looks for plug-ins when it is imported."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    (job / "plugins").mkdir()
    (job / "plugins/plug_one.py").write_text("K = 1\n")
    (job / "plugging.py").write_text(PLUGGED)
    yield job
    for name in ("plug_one", "plugging"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.ray)])
def test_dynamic_imports_are_warned_of_once(plugged, engine, caplog, request):
    """A change of them is not detected, so the run must warn."""
    if engine == "ray":
        request.getfixturevalue("local_ray")
    spec = a_spec(plugged, capability={"target": "plugging:f"}, execution={"engine": engine})
    BatchRunner(spec).run(accept_changes=True)

    (warning,) = [r.getMessage() for r in caplog.records if "not detected" in r.getMessage()]
    assert f"plug_one ({plugged}/plugins/plug_one.py)" in warning
    assert "capability.files" in warning
    assert "plugging" not in warning.replace(str(plugged), "")


@pytest.mark.parametrize("way", [{"files": ["plugins/*.py"]}, {"version": "1"}])
def test_a_user_who_followed_the_warning_gets_none(plugged, way, caplog):
    """The files are compared, or the version stands in for them."""
    assert (
        BatchRunner(a_spec(plugged, capability={"target": "plugging:f", **way}))
        .run(accept_changes=True)
        .ok
    )

    assert not [r for r in caplog.records if "not detected" in r.getMessage()]


def test_a_version_stands_in_for_code_that_changes_meanwhile(job):
    """The user who gives a version takes responsibility for all code that has it."""
    a_job_that_is_edited(job, EDITED_AT_IMPORT)

    assert BatchRunner(spec_of(job, version="1")).run(accept_changes=True).ok


SCRIPT = """
import functools
K = {k}
class Scorer:
    def __init__(self, k):
        self.k = k
    def __call__(self, rows):
        return [dict(row, k=self.k) for row in rows]
def closing_over(k):
    def inner(rows):
        return [dict(row, k=k) for row in rows]
    return inner
def a_global(rows):
    return [dict(row, k=K) for row in rows]
def a_default(rows, k=K):
    return [dict(row, k=k) for row in rows]
ways = {{
    "closure.k": closing_over(K),
    "global.K": a_global,
    "partial.k": functools.partial(a_default, k=K),
    "instance.k": Scorer(K),
    "global.K in a lambda": lambda rows: [dict(row, k=K) for row in rows],
    "default.k": a_default,
}}
"""
WAYS = ["closure.k", "global.K", "partial.k", "instance.k", "global.K in a lambda", "default.k"]


@pytest.mark.parametrize("way", WAYS)
def test_another_value_in_an_object_is_refused_with_both(tmp_path, way):
    """Two runs of one script, with K = 1 and K = 2."""

    def capability(k):
        namespace = {"__name__": "a_script"}
        exec(SCRIPT.format(k=k), namespace)  # noqa: S102 - another process of the user's
        return namespace["ways"][way]

    a_source(tmp_path / "in", shards=2)
    spec = a_spec(tmp_path, capability=None)
    assert BatchRunner(spec, capability=capability(1)).run().ok
    write_jsonl(tmp_path / "in/later.jsonl", rows(100, 2))
    message = refusal(tmp_path, spec, capability=capability(2))

    assert f"capability.code.{way.partition(' ')[0]}: 1 -> 2" in message
    assert BatchRunner(spec, capability=capability(1)).run().ok


def test_a_setting_that_is_set_from_outside_is_refused_with_both(job):
    """A script sets it, of a module or of a class, and then runs the batch."""
    write(job, "settings", "K = 1\n")
    write(job, "uses", "from . import settings\ndef f(rows):\n    return rows[:settings.K]\n")
    uses = importlib.import_module("mypkg.uses")

    class Takes:
        most = 1

        def __call__(self, rows):
            return uses.f(rows)[: self.most]

    spec = a_spec(job, capability=None, sink=str(job / "later"))
    assert BatchRunner(spec, capability=Takes).run().ok
    write_jsonl(job / "in/most.jsonl", rows(300, 2))
    uses.settings.K = Takes.most = 2

    message = refusal(job, spec, capability=Takes)

    assert "capability.code.class.most: 1 -> 2" in message
    assert "uses.f.global.settings.K: 1 -> 2" in message


def test_a_version_stands_in_for_an_object(tmp_path):
    """For one that has another random id each time, say."""
    a_source(tmp_path / "in")
    spec = a_spec(tmp_path, capability={"target": "in:memory", "version": "1"})
    for k in (1, 2):
        write_jsonl(tmp_path / f"in/later-{k}.jsonl", rows(100 * k, 2))
        kept = functools.partial(lambda rows, k: rows if k else [], k=k)
        assert BatchRunner(spec, capability=kept).run().ok


def test_a_secret_in_a_closure_is_not_shown(tmp_path):
    """The refusal goes to a log, and the record to a store."""

    def capability(api_key):
        return lambda rows: rows if api_key else []

    a_source(tmp_path / "in")
    spec = a_spec(tmp_path, capability=None)
    BatchRunner(spec, capability=capability("canary-1")).run()

    message = refusal(tmp_path, spec, capability=capability("canary-2"))

    assert "capability.code.closure.api_key: changed" in message
    assert "canary" not in message + (tmp_path / "out/_checkpoint/run.json").read_text()


def test_what_an_object_does_to_itself_is_no_change(tmp_path):
    """A cache that a run filled in this process; another value is one still."""
    seen = []

    def capability(k, rows):
        seen.extend(row["id"] for row in rows)
        return rows

    a_source(tmp_path / "in")
    spec = a_spec(tmp_path, capability=None)
    same, other = functools.partial(capability, 1), functools.partial(capability, 2)
    assert BatchRunner(spec, capability=same).run().ok
    write_jsonl(tmp_path / "in/later.jsonl", rows(100, 2))

    assert BatchRunner(spec, capability=same).run().ok
    assert BatchRunner(spec, capability=same).run().ok
    assert len(seen) == 14
    assert "capability.code.partial.0: 1 -> 2" in refusal(tmp_path, spec, capability=other)


def test_what_others_do_to_an_object_after_its_work_is_a_change(tmp_path):
    """A notebook, in which one sets an attribute between two runs."""

    class Scorer:
        def __init__(self):
            self.k, self.calls = 1, 0

        def __call__(self, rows):
            self.calls += 1
            return rows

    a_source(tmp_path / "in")
    spec, scorer = a_spec(tmp_path, capability=None), Scorer()
    assert BatchRunner(spec, capability=scorer).run().ok
    write_jsonl(tmp_path / "in/later.jsonl", rows(100, 2))

    scorer.k = 2

    assert "capability.code.instance.k: 1 -> 2" in refusal(tmp_path, spec, capability=scorer)


def test_opaque_values_are_warned_of_once(tmp_path, caplog):
    """A lock, a client: the run goes on, and the user may add a version."""

    def capability(rows, out=sys.stderr):
        return rows if out else []

    a_source(tmp_path / "in")
    runner = BatchRunner(a_spec(tmp_path, capability=None), capability=capability)
    for do in (runner.plan, runner.run):
        caplog.clear()
        do()
        (warning,) = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
        assert "capability.code.default.out" in warning
        assert "Give capability.version, or name the files" in warning


def with_legacy_hash(folder, code):
    """Make the record of the run in *folder* one of the format before, with *code* as its hash."""
    path = folder / "out/_checkpoint/run.json"
    record = RunRecord.from_bytes(path.read_bytes(), key="run.json")
    kept = {p: v for p, v in record.decisive.items() if not p.startswith("capability.code")}
    decisive = {**kept, **legacy_code_field(code)}
    fields = {name: getattr(record, name) for name in RunRecord.__dataclass_fields__}
    path.write_bytes(RunRecord(**{**fields, "decisive": decisive}).to_bytes())


def test_a_run_with_a_legacy_hash_is_resumed_by_the_same_code(job):
    """Its checkpoint knows the hash of one module; the next accepted change stores one hash per module."""
    with_legacy_hash(job, legacy_hash.hash_of_target("mypkg.cap:f"))
    assert BatchRunner(spec_of(job)).run().ok
    assert not (job / "out/_checkpoint/changes").exists()

    write_for_the_next_process(job, "cap", CAPABILITY + "K = 1\n")
    assert "capability.code: changed" in refusal(job)
    assert BatchRunner(spec_of(job)).run(accept_changes=True).ok
    write_for_the_next_process(job, "deeper", DEEPER + "K = 1\n")
    assert "mypkg/deeper.py: added K" in refusal(job)


def test_a_run_with_a_legacy_hash_accepts_changed_code_on_retry(job):
    """`retry` accepts changed code, since that is the fix."""
    with_legacy_hash(job, "of another capability")

    assert BatchRunner(spec_of(job)).retry().ok


def test_an_object_with_a_legacy_hash_is_resumed(tmp_path):
    """An object that is handed over has a legacy hash of its own."""

    def capability(rows):
        return rows

    a_source(tmp_path / "in")
    spec = a_spec(tmp_path, capability=None)
    BatchRunner(spec, capability=capability).run()
    with_legacy_hash(tmp_path, legacy_hash.hash_of_object(capability))
    write_jsonl(tmp_path / "in/later.jsonl", rows(100, 2))

    assert BatchRunner(spec, capability=capability).run().ok


def install(folder, version):
    """Install the package libnine, which has the module of the same name."""
    site = folder / "site-packages"
    for old in site.glob("*.dist-info/METADATA"):
        old.unlink()
        old.parent.rmdir()
    (site / f"libnine-{version}.dist-info").mkdir(parents=True)
    text = f"Metadata-Version: 2.1\nName: libnine\nVersion: {version}\n"
    (site / f"libnine-{version}.dist-info/METADATA").write_text(text)
    (site / "libnine.py").write_text("x = 1\n")


def warnings_of_versions(caplog):
    return [r.getMessage() for r in caplog.records if "other versions" in r.getMessage()]


def test_another_version_of_a_package_is_warned_of(job, monkeypatch, caplog):
    """It is not refused: on a new machine, none can be put back."""
    monkeypatch.syspath_prepend(job / "site-packages")
    install(job, "1.0")
    write_for_the_next_process(job, "deeper", "import libnine\n" + DEEPER)
    assert BatchRunner(spec_of(job)).run(accept_changes=True).ok
    assert [] == warnings_of_versions(caplog)

    write_jsonl(job / "in/more.jsonl", rows(200, 2))
    install(job, "2.0")
    assert BatchRunner(spec_of(job)).run().ok
    (warning,) = warnings_of_versions(caplog)
    assert "libnine 1.0 -> 2.0" in warning
    assert "python" not in warning

    caplog.clear()
    write_jsonl(job / "in/most.jsonl", rows(300, 2))
    assert BatchRunner(spec_of(job)).run().ok
    assert [] == warnings_of_versions(caplog)


def test_the_versions_are_kept_in_the_session_log(job):
    """A year later, a user asks what made these rows."""
    checkpoint = Checkpoint(open_storage(str(job / "out/_checkpoint")))
    (key,) = [e.key for e in checkpoint.storage.list("sessions") if e.key.endswith(".jsonl")]

    (found,) = [
        event["versions"]
        for event in map(json.loads, lines_of(checkpoint.storage, key))
        if event["action"] == "packages_found"
    ]

    assert "python" in found
