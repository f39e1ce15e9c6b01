"""The wheel as a stranger gets it: built, installed outside the checkout, run in an empty folder."""

import csv
import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
Run = Callable[..., subprocess.CompletedProcess[str]]


def call(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs a command that knows nothing of the checkout; fails with what it said."""
    environ = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    ran = subprocess.run([str(c) for c in command], cwd=cwd, env=environ, capture_output=True, text=True, timeout=280)
    assert ran.returncode == 0, f"{command}\n{ran.stdout}\n{ran.stderr}"
    return ran


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel; its builder is fetched by pip unless it is here."""
    folder = tmp_path_factory.mktemp("wheel")
    here = ["--no-build-isolation"] if find_spec("hatchling") else []
    call(sys.executable, "-m", "pip", "wheel", "-q", ROOT, "--no-deps", *here, "-w", folder, cwd=folder)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`bin` of an environment with the wheel and, by reference, what the present one has of other packages."""
    venv = tmp_path_factory.mktemp("elsewhere") / "venv"
    call(sys.executable, "-m", "venv", "--without-pip", venv, cwd=venv.parent)
    python = venv / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python]
    call(*pip, "install", "-q", "--no-deps", "--no-index", "--no-compile", wheel, cwd=venv.parent)
    # After the installation, which must not take the present environment's streamlstm for the one to replace. A path
    # that a .pth file adds is searched last, and the .pth files in it, such as that of the checkout, are not read.
    own = call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=venv).stdout.strip()
    others = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    Path(own, "others.pth").write_text("".join(f"{path}\n" for path in others))
    return venv / "bin"


def test_contents(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    presets = {path.name for path in (ROOT / "configs").glob("*.yaml")}
    assert {f"streamlstm/configs/{name}" for name in presets} <= names
    recordings = {path.name for path in (ROOT / "streamlstm" / "recordings").iterdir() if path.is_file()}
    assert "LICENSE.txt" in recordings
    assert {f"streamlstm/recordings/{name}" for name in recordings} <= names
    assert [name for name in names if name.endswith(".dist-info/licenses/LICENSE")]
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "streamlstm").rglob("*.py")}
    assert modules <= names
    assert not [name for name in names if name.startswith(("tests/", "bench/", "configs/"))]
    assert wheel.stat().st_size < 2_000_000


def test_demo_in_an_empty_folder(installed: Path, tmp_path: Path):
    where = "import streamlstm; print(streamlstm.__file__)"
    assert Path(call(installed / "python", "-c", where, cwd=tmp_path).stdout.strip()).is_relative_to(installed.parent)
    ran = call(installed / "streamlstm", "demo", cwd=tmp_path)
    assert "Warning" not in ran.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["streamlstm-demo"]
    folder = tmp_path / "streamlstm-demo"
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "flags.csv", "episodes.csv", "report.html"}
    assert (folder / "report.html").stat().st_size > 100_000
    lines = ran.stdout.splitlines()
    assert "found: 2" in lines
    assert "missed: 0" in lines
    with (ROOT / "streamlstm" / "recordings" / "labels.csv").open() as file:
        windows = [(row["start"], row["end"]) for row in csv.DictReader(file)]
    with (folder / "episodes.csv").open() as file:
        episodes = [(row["opened"], row["closed"]) for row in csv.DictReader(file)]
    assert len(windows) == 2
    for window in windows:
        begin, end = (datetime.fromisoformat(f"{text}Z") for text in window)
        assert any(
            datetime.fromisoformat(opened) <= end and datetime.fromisoformat(closed) >= begin
            for opened, closed in episodes
        ), window


def test_presets_and_schema(installed: Path, tmp_path: Path):
    shown = call(installed / "streamlstm", "config", "show", "univariate", cwd=tmp_path).stdout
    assert "hidden_size: 16" in shown
    schema = call(installed / "python", "-m", "streamlstm", "config", "schema", cwd=tmp_path).stdout
    assert "threshold" in json.loads(schema)["properties"]
