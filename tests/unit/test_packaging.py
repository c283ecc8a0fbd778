"""What `pip install .` brings: the package, the kernelspec as a data file, the command."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    out = tmp_path_factory.mktemp("wheel")
    argv = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(argv, check=True, capture_output=True, text=True)
    (built,) = out.glob("*.whl")
    return zipfile.ZipFile(built)


def read(wheel: zipfile.ZipFile, end: str) -> str:
    (name,) = [each for each in wheel.namelist() if each.endswith(end)]
    return wheel.read(name).decode()


def test_the_wheel_installs_the_kernelspec_as_a_data_file(wheel: zipfile.ZipFile) -> None:
    spec = json.loads(read(wheel, ".data/data/share/jupyter/kernels/durable_nb/kernel.json"))
    assert spec["display_name"] == "Python 3 (durable)"
    assert spec["env"] == {"PYTHONHASHSEED": "0"}
    # "python" stands for the interpreter of the environment: jupyter_client puts its own there.
    assert spec["argv"] == ["python", "-m", "durable_nb.notebook", "-f", "{connection_file}"]


def test_the_wheel_installs_the_command_and_the_licence(wheel: zipfile.ZipFile) -> None:
    assert "durable-nb = durable_nb.cli:main" in read(wheel, "entry_points.txt")
    assert read(wheel, "licenses/LICENSE").startswith("BSD 3-Clause")


def test_the_wheel_holds_types_and_sql_and_no_tests(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    assert "durable_nb/py.typed" in names
    assert any(name.endswith("migrations/0001_initial.sql") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "demo/", "notebooks/"))]


@pytest.mark.parametrize(
    ("source", "place"),
    [
        ("share/kernels/durable_nb", "kernels/durable_nb"),
        ("durable_nb/widgets/labextension", "labextensions/durable_nb"),
    ],
)
def test_data_files_in_this_environment_are_those_in_the_tree(source: str, place: str) -> None:
    """An install that is older than its data files would test yesterday's kernel and yesterday's badge."""
    files = [path for path in (ROOT / source).rglob("*") if path.is_file()]
    assert files
    for path in files:
        installed = Path(sys.prefix) / "share" / "jupyter" / place / path.relative_to(ROOT / source)
        assert installed.read_bytes() == path.read_bytes(), f"{path}: install the package again"
