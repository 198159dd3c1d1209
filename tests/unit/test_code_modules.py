"""The code of a capability is what its module imports of the user's own, found without running it."""

from __future__ import annotations

import shutil
import sys
import zipfile

import pytest

from batchrunner.capability import code_of
from batchrunner.driver.packages import versions_of
from batchrunner.errors import CapabilityImportError

PLUG = """
from importlib import import_module
import_module("." + "b", __name__)
import_module("..a", package=__package__)
import_module(f"{__name__}.b")
"""
RAISES = "raise AssertionError('this was run')\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder that is imported from; its modules raise when they are run."""
    monkeypatch.syspath_prepend(tmp_path / "code")
    return tmp_path / "code"


def write(folder, files):
    """Write modules, by their place less its suffix."""
    for name, text in files.items():
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n" + RAISES)


def places(target="cap:f"):
    return sorted(code_of([target]).modules)


@pytest.mark.parametrize(
    ("imports", "counted"),
    [
        ("import pkg.a", ["pkg/a.py"]),
        ("import pkg.a as x", ["pkg/a.py"]),
        ("from pkg import a", ["pkg/a.py"]),
        ("from pkg.a import thing", ["pkg/a.py"]),
        ("from pkg.sub import *", ["pkg/b.py", "pkg/sub/__init__.py", "pkg/sub/exported.py"]),
        ("def f():\n    from pkg import a", ["pkg/a.py"]),
        ("if False:\n    import pkg.a", ["pkg/a.py"]),
        ("try:\n    import nowhere\nexcept ImportError:\n    import pkg.a", ["pkg/a.py"]),
        ("import importlib\nx = importlib.import_module('pkg.a')", ["pkg/a.py"]),
        ("from importlib import import_module\nimport_module('pkg.a')", ["pkg/a.py"]),
        ("x = __import__('pkg.a')", ["pkg/a.py"]),
        ("import importlib as i\nx = i.import_module(name='pkg.a')", ["pkg/a.py"]),
        ("from importlib import import_module as load\nload('pkg.a')", ["pkg/a.py"]),
        ("import importlib\nload = importlib.import_module\nload('pkg.a')", ["pkg/a.py"]),
        ("import importlib\nimportlib.import_module('.a', 'pkg')", ["pkg/a.py"]),
        ("import importlib\nimportlib.import_module('..a', package='pkg.sub')", ["pkg/a.py"]),
        ("import importlib\nimportlib.import_module('pkg' + '.' + 'a')", ["pkg/a.py"]),
        ("import pkg.plug", ["pkg/a.py", "pkg/plug/__init__.py", "pkg/plug/b.py"]),
        ("import pkg.sub.deep", ["pkg/a.py", "pkg/b.py", "pkg/sub/__init__.py", "pkg/sub/deep.py"]),
        ("import pkg", []),
        ("import spread.inner", ["spread/inner.py"]),
        ("from spread.wide import deep", ["spread/wide/deep.py"]),
        ("import json, numpy, nowhere, batchrunner.spec", []),
    ],
)
def test_an_import_of_the_users_own_counts(folder, imports, counted):
    """However it is written, and wherever it stands."""
    write(folder, {"cap": f"{imports}\ndef f(rows): return rows"})
    write(folder, {"pkg/__init__": "", "pkg/a": "thing = 1", "pkg/b": "", "pkg/sub/exported": ""})
    write(folder, {"pkg/sub/__init__": "from .. import b\n__all__ = ['exported']"})
    write(
        folder,
        {"pkg/sub/deep": "from ..a import thing", "spread/inner": "", "spread/wide/deep": ""},
    )
    write(folder, {"pkg/plug/__init__": PLUG, "pkg/plug/b": ""})

    expected = ["cap.py", *counted]
    if any(place.startswith("pkg/") for place in counted) or imports == "import pkg":
        expected.append("pkg/__init__.py")
    assert sorted(expected) == places()


def test_imports_are_followed_through_any_number_of_modules(folder):
    """A helper's helper decides as much; a circle ends."""
    write(folder, {"cap": "import m0", **{f"m{n}": f"import m{n + 1}" for n in range(2000)}})
    write(folder, {"m2000": "import cap"})

    assert len(places()) == 2002


def test_comments_and_layout_do_not_count_and_a_statement_does(folder):
    """Reformatting a helper resumes the run; changing it is refused."""
    write(folder, {"cap": "import helper", "helper": "def g(x):\n    return x\nK = 1"})
    before = code_of(["cap:f"]).modules
    write(folder, {"helper": "# why\ndef g( x ):\n\n    return (x)  # so\n\n\nK=1"})
    assert before == code_of(["cap:f"]).modules

    write(folder, {"helper": "def g(x):\n    return x + 1\nK = 1"})
    assert before != code_of(["cap:f"]).modules


def test_the_order_of_statements_counts(folder):
    """Of two that assign, the second one wins, also where each is what it was."""
    write(folder, {"cap": "if 1:\n    K = 1\nK = 2"})
    before = code_of(["cap:f"]).modules
    write(folder, {"cap": "K = 2\nif 1:\n    K = 1"})

    assert before != code_of(["cap:f"]).modules


def test_a_folder_that_was_moved_has_the_same_code(folder, tmp_path, monkeypatch):
    """Another machine has it elsewhere."""
    write(folder, {"cap": "from pkg import a", "pkg/__init__": "", "pkg/a": "x = 1"})
    before = code_of(["cap:f"]).modules
    shutil.move(folder, tmp_path / "elsewhere")
    monkeypatch.syspath_prepend(tmp_path / "elsewhere")

    assert before == code_of(["cap:f"]).modules


def test_an_installed_package_is_its_version_unless_the_target_is_in_it(folder, monkeypatch):
    """Reading all of numpy would cost too much; an installed capability is still read."""
    site = folder / "lib" / "site-packages"
    monkeypatch.syspath_prepend(site)
    write(folder, {"cap": "import lib1.inner"})
    write(
        site,
        {
            "lib1/__init__": "",
            "lib1/inner": "from lib1 import other\nimport lib2",
            "lib1/other": "",
        },
    )
    write(site, {"lib2": ""})

    mine = code_of(["cap:f"])
    theirs = code_of(["lib1.inner:f"])

    assert (sorted(mine.modules), mine.installed) == (["cap.py"], {"lib1"})
    assert sorted(theirs.modules) == ["lib1/__init__.py", "lib1/inner.py", "lib1/other.py"]
    assert theirs.installed == {"lib1", "lib2"}


def test_a_module_that_is_no_python_counts_byte_by_byte(folder):
    """A compiled extension beside the capability, or a file of another Python."""
    write(folder, {"cap": "import old, fast"})
    (folder / "old.py").write_text("print 'of Python 2'\n")
    extension = folder / "fast.abi3.so"
    extension.write_bytes(b"\x7fELF 1")
    before = code_of(["cap:f"]).modules
    extension.write_bytes(b"\x7fELF 2")

    after = code_of(["cap:f"]).modules

    assert ["cap.py", "fast.abi3.so", "old.py"] == sorted(before)
    assert {"fast.abi3.so"} == {place for place in before if before[place] != after[place]}


def test_a_module_in_an_archive_counts(folder, tmp_path, monkeypatch):
    """It is imported like any other, and may be changed like any other."""
    write(folder, {"cap": "import zipped"})
    monkeypatch.syspath_prepend(tmp_path / "lib.zip")
    found = []
    for k in (1, 1, 2):
        with zipfile.ZipFile(tmp_path / "lib.zip", "w") as archive:
            archive.writestr("zipped.py", f"K = {k}\n")
        found.append(code_of(["cap:f"]).modules)

    assert found[0].keys() == {"cap.py", "zipped.py"}
    assert found[0] == found[1] != found[2]


def test_a_target_that_cannot_be_read_is_refused_by_name(folder):
    """It would fail in every worker."""
    write(folder, {"cap": "def f(:"})

    with pytest.raises(CapabilityImportError, match=r"'cap'.*cap\.py: invalid syntax"):
        code_of(["cap:f"])
    with pytest.raises(CapabilityImportError, match="no_such_package"):
        code_of(["no_such_package.module:f"])


def test_nothing_is_imported(folder):
    """Planning runs no code of the user's, who may load a model at the top."""
    write(folder, {"cap": "import pkg.a", "pkg/__init__": "", "pkg/a": ""})

    assert places() == ["cap.py", "pkg/__init__.py", "pkg/a.py"]
    assert not {"cap", "pkg", "pkg.a"} & set(sys.modules)


def test_versions_are_those_of_the_packages_that_hold_the_modules():
    """`import yaml` is of PyYAML; what is not installed has no version."""
    found = versions_of(["yaml", "numpy", "nowhere"])

    assert found.keys() == {"PyYAML", "numpy", "python"}
    assert all(version[0].isdigit() for version in found.values())
