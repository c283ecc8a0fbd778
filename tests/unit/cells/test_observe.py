"""What a cell does to files, the environment and the process, as the observer sees it."""

from __future__ import annotations

import glob
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from durable_nb.cells import Observed, Observer, Places

Watch = Callable[..., Observed]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "a.txt").write_text("a")
    (folder / "sub").mkdir()
    (folder / "sub" / "b.txt").write_text("b")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def watch(project: Path) -> Iterator[Watch]:
    """Runs a cell's source as a cell, and gives what was observed."""
    opened: list[str] = []

    def run(source: str, *, names: dict[str, Any] | None = None, filename: str = "<cell>", **hooks: Any) -> Observed:
        observer = Observer(Places(project, ignored=[project / ".durable"]), **hooks)
        observer.install()
        namespace = {
            "__name__": "__main__",
            "os": os,
            "Path": Path,
            "glob": glob,
            "project": str(project),
            **(names or {}),
        }
        code = compile(source, filename, "exec")
        observer.begin()
        try:
            exec(code, namespace)
        finally:
            observed = observer.end()
        return observed

    yield run
    assert opened == []


def keys(project: Path, paths: Any) -> set[str]:
    return {os.path.relpath(path, project) for path in paths}


@pytest.mark.parametrize(
    "source",
    [
        "open('a.txt').close()",
        "open(project + '/a.txt', 'rb').close()",
        "Path('a.txt').read_text()",
        "os.close(os.open('a.txt', os.O_RDONLY))",
        "import io; io.open('sub/../a.txt').close()",
        "open('./a.txt').close()",
        "os.path.getsize('a.txt')",
        "os.stat('a.txt').st_mtime",
        "Path('a.txt').stat()",
    ],
)
def test_a_file_that_is_read_is_seen(source: str, watch: Watch, project: Path) -> None:
    observed = watch(source)
    assert keys(project, observed.read) == {"a.txt"}
    assert not observed.missing


@pytest.mark.parametrize(
    ("source", "written"),
    [
        ("open('new.txt', 'w').close()", {"new.txt"}),
        ("open('a.txt', 'a').close()", {"a.txt"}),
        ("open('a.txt', 'r+').close()", {"a.txt"}),
        ("open('new.txt', 'x').close()", {"new.txt"}),
        ("os.close(os.open('new.txt', os.O_WRONLY | os.O_CREAT))", {"new.txt"}),
        ("os.remove('a.txt')", {"a.txt"}),
        ("Path('a.txt').unlink()", {"a.txt"}),
        ("os.rename('a.txt', 'c.txt')", {"a.txt", "c.txt"}),
        ("Path('a.txt').replace('c.txt')", {"a.txt", "c.txt"}),
        ("os.mkdir('d')", {"d"}),
        ("os.symlink('a.txt', 'l.txt')", {"l.txt"}),
        ("os.truncate('a.txt', 0)", {"a.txt"}),
        ("import shutil; shutil.move('a.txt', 'c.txt')", {"a.txt", "c.txt"}),
    ],
)
def test_a_change_of_a_file_is_seen(source: str, written: set[str], watch: Watch, project: Path) -> None:
    assert keys(project, watch(source).written) == written


@pytest.mark.parametrize("source", ["open('a.txt', 'a').close()", "open('a.txt', 'r+').close()"])
def test_appending_and_updating_read_what_was_there(source: str, watch: Watch, project: Path) -> None:
    assert keys(project, watch(source).read) == {"a.txt"}


@pytest.mark.parametrize(
    "source",
    [
        "open('new.txt', 'w').close(); Path('new.txt').read_text()",
        "open('a.txt', 'w').close(); Path('a.txt').read_text()",
        "open('t.tmp', 'w').close(); os.replace('t.tmp', 'a.txt'); Path('a.txt').read_text()",
        "open('new.txt', 'w').close(); os.path.exists('new.txt')",
        "Path('new.txt').touch(); Path('new.txt').read_text()",
        "os.mkdir('d'); os.path.isdir('d')",
    ],
)
def test_what_the_cell_wrote_itself_is_no_input(source: str, watch: Watch) -> None:
    observed = watch(source)
    assert not observed.read
    assert not observed.missing
    assert not observed.present


def test_reading_before_writing_keeps_the_version_from_before(watch: Watch, project: Path) -> None:
    def version_of(path: str) -> str:
        return Path(path).read_text()

    observed = watch("n = Path('a.txt').read_text(); Path('a.txt').write_text(n + '!')", version_of=version_of)
    assert keys(project, observed.read) == keys(project, observed.written) == {"a.txt"}
    assert observed.before == {str(project / "a.txt"): "a"}
    assert (project / "a.txt").read_text() == "a!"


@pytest.mark.parametrize(
    "source",
    [
        "os.path.exists('nope')",
        "os.path.isfile('nope')",
        "Path('nope').exists()",
        "Path('nope').is_file()",
        "os.access('nope', os.R_OK)",
        "try:\n  os.stat('nope')\nexcept OSError: pass",
        "try:\n  open('nope')\nexcept OSError: pass",
        "os.path.lexists('nope')",
    ],
)
def test_a_missing_file_is_seen(source: str, watch: Watch, project: Path) -> None:
    assert keys(project, watch(source).missing) == {"nope"}


@pytest.mark.parametrize(
    ("source", "kind"),
    [("os.path.exists('a.txt')", "file"), ("Path('a.txt').is_file()", "file"), ("os.path.isdir('sub')", "dir")],
)
def test_asking_whether_a_file_is_there_does_not_read_it(source: str, kind: str, watch: Watch) -> None:
    observed = watch(source)
    assert list(observed.present.values()) == [kind]
    assert not observed.read


@pytest.mark.parametrize(
    ("source", "listed"),
    [
        ("os.listdir()", {"."}),
        ("os.listdir('sub')", {"sub"}),
        ("list(os.scandir('sub'))", {"sub"}),
        ("glob.glob('sub/*.txt')", {"sub"}),
        ("list(Path('sub').iterdir())", {"sub"}),
        ("sorted(Path('.').rglob('*.txt'))", {".", "sub"}),
        ("list(os.walk('.'))", {".", "sub"}),
    ],
)
def test_a_listing_is_seen(source: str, listed: set[str], watch: Watch, project: Path) -> None:
    assert keys(project, watch(source).listings) == listed


@pytest.mark.parametrize(
    "source",
    [
        "import json.tool",
        "import http.cookiejar",
        "open(os.devnull).close()",
        "open('/proc/self/status').close()",
        "open(os.__file__).close()",
        "import numpy.testing",
        "open('.durable/x', 'w').close()",
        "os.path.exists('/usr/lib/nothing')",
    ],
)
def test_the_system_the_library_and_the_store_are_no_inputs(source: str, watch: Watch, project: Path) -> None:
    (project / ".durable").mkdir()
    observed = watch(source)
    seen = [observed.read, observed.written, observed.missing, observed.listings, observed.present]
    assert not any(seen)


def test_importing_a_local_module_is_no_file_input(
    watch: Watch, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "watched_module.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(str(project))
    observed = watch("import watched_module")
    sys.modules.pop("watched_module")
    assert keys(project, [*observed.read, *observed.listings, *observed.written]) == set()


def test_a_local_module_that_reads_counts_and_a_package_that_only_looks_does_not(
    watch: Watch, project: Path, tmp_path: Path
) -> None:
    local = {"look": _function("import os\ndef look(): return os.path.exists('a.txt')", str(project / "helper.py"))}
    assert watch("look()", names=local).present
    site = next(path for path in sys.path if path.endswith("site-packages"))
    installed = {"look": _function("import os\ndef look(): return os.path.exists('a.txt')", f"{site}/p/helper.py")}
    assert not watch("look()", names=installed).present


def _function(source: str, filename: str) -> Any:
    names: dict[str, Any] = {}
    exec(compile(source, filename, "exec"), names)
    return names["look"]


def test_pandas_reads_are_seen(watch: Watch, project: Path) -> None:
    (project / "t.csv").write_text("a\n1\n")
    observed = watch("import pandas as pd\npd.read_csv('t.csv')")
    assert keys(project, observed.read) == {"t.csv"}
    assert observed.used_cwd


def test_threads_of_the_cell_are_watched(watch: Watch, project: Path) -> None:
    observed = watch(
        "import threading\nt = threading.Thread(target=lambda: open('a.txt').close())\nt.start()\nt.join()"
    )
    assert keys(project, observed.read) == {"a.txt"}


def test_a_database_is_read_and_its_change_is_noticed(watch: Watch, project: Path) -> None:
    sqlite3.connect("d.sqlite").close()
    with sqlite3.connect("d.sqlite") as connection:
        connection.execute("create table t (x)")
    connection.close()
    observed = watch(
        "import sqlite3\nc = sqlite3.connect('d.sqlite')\nc.execute('insert into t values (1)')\nc.commit()\nc.close()",
        version_of=lambda path: "before",
    )
    assert keys(project, observed.read) == keys(project, observed.written) == {"d.sqlite"}
    assert list(observed.before.values()) == ["before"]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("os.environ['DN_A']", {"DN_A": "1"}),
        ("os.environ.get('DN_A')", {"DN_A": "1"}),
        ("os.getenv('DN_A')", {"DN_A": "1"}),
        ("os.getenv('DN_NONE', 'x')", {"DN_NONE": None}),
        ("'DN_NONE' in os.environ", {"DN_NONE": None}),
        ("'DN_A' in os.environ", {"DN_A": "1"}),
        ("os.path.expandvars('$DN_A')", {}),
        ("os.environ.copy()", {}),
        ("os.environ['DN_B'] = '2'", {}),
        ("os.environ['DN_B'] = '2'; os.environ['DN_B']", {}),
        ("os.environ['DN_A']; os.environ['DN_A'] = '2'; os.environ['DN_A']", {"DN_A": "1"}),
        ("{**os.environ, 'X': '1'}", {"*": None}),
        ("[k for k in os.environ]", {"*": None}),
        ("dict(os.environ)", {"*": None}),
        ("for k, v in os.environ.items(): pass", {"*": None}),
    ],
)
def test_variables_that_are_read_are_seen(
    source: str, expected: dict[str, str | None], watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DN_A", "1")
    monkeypatch.setenv("DN_B", "1")
    monkeypatch.delenv("DN_NONE", raising=False)
    if "expandvars" in source:
        expected = {"DN_A": "1"}
    assert watch(source).env == expected


def test_variables_that_an_installed_package_reads_are_not(watch: Watch) -> None:
    site = next(path for path in sys.path if path.endswith("site-packages"))
    look = _function("import os\ndef look(): return os.getenv('HOME')", f"{site}/p/helper.py")
    assert watch("look()", names={"look": look}).env == {}


@pytest.mark.parametrize("source", ["open('a.txt').close()", "os.getcwd()", "Path.cwd()", "os.path.abspath('x')"])
def test_use_of_the_working_directory_is_seen(source: str, watch: Watch) -> None:
    assert watch(source).used_cwd


@pytest.mark.parametrize("source", ["open(project + '/a.txt').close()", "1 + 1", "os.path.exists(project)"])
def test_absolute_paths_do_not_use_the_working_directory(source: str, watch: Watch) -> None:
    assert not watch(source).used_cwd


def test_processes_and_sockets_are_noticed(watch: Watch) -> None:
    observed = watch("import subprocess, sys\nsubprocess.run([sys.executable, '-c', ''])")
    assert observed.processes
    assert observed.used_cwd
    assert not observed.sockets
    assert not watch("import subprocess, sys\nsubprocess.run([sys.executable, '-c', ''], cwd=project)").used_cwd
    observed = watch(
        "import socket\ns = socket.socket()\ns.settimeout(0)\n"
        "try:\n  s.connect(('127.0.0.1', 9))\nexcept OSError: pass\ns.close()"
    )
    assert observed.sockets


def test_the_hook_before_a_read_sees_each_path_once_and_may_bring_it_back(watch: Watch, project: Path) -> None:
    calls: list[str] = []

    def restore(path: str) -> None:
        calls.append(path)
        Path(path).write_text("restored")

    observed = watch(
        "x = Path('gone.txt').read_text(); open('gone.txt').close(); assert x == 'restored'", on_open_read=restore
    )
    assert calls == [str(project / "gone.txt")]
    assert keys(project, observed.read) == {"gone.txt"}
    assert not observed.written
    assert not observed.missing


def test_what_the_hook_raises_reaches_the_cell(watch: Watch) -> None:
    def refuse(path: str) -> None:
        raise PermissionError("not this one")

    with pytest.raises(PermissionError, match="not this one"):
        watch("open('a.txt')", on_open_read=refuse)


def test_nothing_is_seen_between_cells(watch: Watch, project: Path) -> None:
    observer = Observer(Places(project))
    observer.install()
    observer.begin()
    observer.end()
    open("a.txt").close()
    observer.begin()
    assert observer.end() == Observed(cwd=str(project))
    assert observer.end() == Observed()


def test_the_wrapped_functions_still_say_what_they_can_do(watch: Watch, project: Path) -> None:
    watch("pass")
    assert os.stat in os.supports_follow_symlinks
    assert os.stat in os.supports_fd
    assert os.access in os.supports_effective_ids
    assert os.stat("a.txt", follow_symlinks=False).st_size == 1
    with open("a.txt") as file:
        assert os.stat(file.fileno()).st_size == 1
    assert os.stat.__name__ == "stat"
    with pytest.raises(TypeError):
        os.stat()  # type: ignore[call-arg]
    with pytest.raises(KeyError):
        os.environ["DN_NOT_THERE"]
    shutil.copytree("sub", "copy")
    shutil.rmtree("copy")


@pytest.mark.parametrize("source", ["os.stat('a\\0b')", "open('a\\0b')", "os.stat(object())", "open(object())"])
def test_bad_arguments_fail_as_they_would_unwatched(source: str, watch: Watch) -> None:
    with pytest.raises((ValueError, TypeError)):
        watch(source)


def test_kernel_temporary_files_are_no_inputs(watch: Watch) -> None:
    folder = os.path.join(tempfile.gettempdir(), "ipykernel_123")
    observed = watch(f"os.path.exists({folder!r} + '/1.py')")
    assert not observed.missing


def test_forked_children_work_unwatched(watch: Watch) -> None:
    observed = (
        watch("pid = os.fork()\nif pid == 0:\n  open('a.txt').close()\n  os._exit(0)\nos.waitpid(pid, 0)")
        if threading.active_count() == 1
        else None
    )
    assert observed is None or observed.processes


def test_a_plain_subprocess_that_is_run_by_the_test_is_not_affected() -> None:
    assert (
        subprocess.run([sys.executable, "-c", "print(1)"], capture_output=True, text=True, check=True).stdout == "1\n"
    )


def test_a_removed_tree_reads_nothing_and_each_of_its_files_is_written(watch: Watch, project: Path) -> None:
    observed = watch("import shutil; shutil.rmtree('sub')")
    assert {"sub", "sub/b.txt"} <= keys(project, observed.written)
    assert not observed.read
    assert not observed.missing


def test_a_file_is_versioned_at_the_moment_it_is_read(watch: Watch, project: Path) -> None:
    def version_of(path: str) -> str:
        return Path(path).read_text()

    outside = os.open("a.txt", os.O_WRONLY | os.O_APPEND)
    observed = watch(
        "Path('a.txt').read_text(); fd = os.dup(outside); os.write(fd, b'+'); os.close(fd)",
        names={"outside": outside},
        version_of=version_of,
    )
    os.close(outside)
    assert observed.versions == {str(project / "a.txt"): "a"}
    assert (project / "a.txt").read_text() == "a+"


def test_what_a_cell_makes_in_the_temporary_folder_and_reads_back_is_no_input(
    watch: Watch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    script = "import sys; open(sys.argv[1], 'w').write('x')"
    observed = watch(
        "import subprocess, sys, tempfile\nname = tempfile.gettempdir() + '/made'\n"
        "subprocess.run([sys.executable, '-c', script, name], check=True)\nopen(name).close()",
        names={"script": script},
    )
    assert str(tmp_path / "made") not in observed.read


def test_a_path_object_that_raises_fails_in_the_users_call_only(watch: Watch) -> None:
    class Odd:
        def __fspath__(self) -> str:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        watch("os.stat(odd)", names={"odd": Odd()})
    with pytest.raises(ZeroDivisionError):
        watch("open(odd)", names={"odd": Odd()})


def test_our_own_failure_is_noted_and_the_users_call_goes_on(watch: Watch) -> None:
    def broken(path: str) -> str:
        raise RuntimeError("no version")

    observed = watch("text = Path('a.txt').read_text(); assert text == 'a'", version_of=broken)
    assert observed.trouble == ["open: RuntimeError: no version"]


def test_the_working_directory_is_the_one_from_before_the_cell(watch: Watch, project: Path) -> None:
    observed = watch("os.chdir('sub'); open('b.txt').close()")
    assert observed.cwd == str(project)
    assert observed.used_cwd
    assert keys(project, observed.read) == {"sub/b.txt"}
