"""Rules of the house that check themselves: layers, compilers, sizes, docstrings, the kernels' cache."""

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from streamlstm.kernels.compiling import CACHE_DIR

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "streamlstm"
LAYERS = (
    ("errors", "types", "version"), ("config",), ("kernels", "kafka_client"), ("model",), ("state",), ("detect",), ("learn",),
    ("sources", "sinks"), ("evaluate", "report"), ("service",), ("interop",), ("cli",),
)  # fmt: skip
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
MODULES = sorted(PACKAGE.rglob("*.py"))
COMPILING = PACKAGE / "kernels" / "compiling.py"


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything imported, also inside functions and for type checkers alone."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def layer(path: Path) -> str:
    """The folder or module right under the package; the package itself may import everything."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def test_every_module_has_a_layer() -> None:
    assert {layer(path) for path in MODULES} - {"__init__", "__main__"} <= set(LEVEL)


def test_modules_import_from_above_alone() -> None:
    wrong = []
    for path in MODULES:
        level = LEVEL.get(layer(path), len(LAYERS))
        for line, name in imports(path):
            parts = name.split(".")
            if parts[0] == "streamlstm" and len(parts) > 1 and LEVEL.get(parts[1], -1) > level:
                wrong.append(f"{name_of(path)}:{line} imports {name}")
    assert wrong == []


def test_the_compiler_is_imported_by_kernels_alone() -> None:
    wrong = [
        f"{name_of(path)}:{line} imports {name}"
        for path in MODULES
        if layer(path) != "kernels"
        for line, name in imports(path)
        if name.split(".")[0] in ("numba", "llvmlite")
    ]
    assert wrong == []


def test_kafka_python_is_imported_by_its_client_alone() -> None:
    wrong = [
        f"{name_of(path)}:{line} imports {name}"
        for path in MODULES
        if layer(path) != "kafka_client"
        for line, name in imports(path)
        if name.split(".")[0] == "kafka"
    ]
    assert wrong == []


def test_every_kernel_is_compiled_through_one_module() -> None:
    wrong = []
    forbidden = {"njit", "vectorize", "guvectorize", "cfunc", "jitclass", "stencil", "generated_jit"}
    for path in MODULES:
        if path == COMPILING:
            continue
        for line, name in imports(path):
            first, last = name.split(".")[0], name.split(".")[-1]
            if first == "numba" and (last in {*forbidden, "jit"} or name == "numba"):
                wrong.append(f"{name_of(path)}:{line} imports {name}")
        for node in ast.walk(tree(path)):
            called = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
            if called in forbidden:
                wrong.append(f"{name_of(path)}:{node.lineno} uses {called}")  # type: ignore[attr-defined]
    assert wrong == []


def test_no_kernel_is_compiled_with_fast_mathematics() -> None:
    wrong = [
        f"{name_of(path)}:{node.lineno}"
        for path in MODULES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and any(keyword.arg == "fastmath" for keyword in node.keywords)
    ]
    assert wrong == []


def test_no_module_is_long() -> None:
    lengths = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert {name: length for name, length in lengths.items() if length > 400} == {}


Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@cache
def promised() -> frozenset[str]:
    """Names of the methods that a Protocol documents: its implementations need not say it again."""
    classes = [node for path in MODULES for node in tree(path).body if isinstance(node, ast.ClassDef)]
    protocols = [node for node in classes if any("Protocol" in ast.unparse(base) for base in node.bases)]
    methods = [method for node in protocols for method in node.body if isinstance(method, Definition)]
    return frozenset(method.name for method in methods if ast.get_docstring(method))


def undocumented(body: list[ast.stmt], prefix: str, known: frozenset[str]) -> Iterator[str]:
    """Public functions and classes without a docstring, also those of public classes."""
    for node in body:
        if not isinstance(node, Definition) or node.name.startswith("_"):
            continue
        setter = any(ast.unparse(decorator).endswith(".setter") for decorator in node.decorator_list)
        if not ast.get_docstring(node) and not setter and node.name not in known:
            yield f"{prefix}{node.name}"
        if isinstance(node, ast.ClassDef):
            yield from undocumented(node.body, f"{prefix}{node.name}.", known | promised())


def test_everything_public_is_documented() -> None:
    missing = []
    for path in MODULES:
        module = tree(path)
        if module.body and not ast.get_docstring(module):
            missing.append(name_of(path))
        missing += undocumented(module.body, f"{name_of(path)}: ", frozenset())
    assert missing == []


PROGRAM = """
import numpy as np
from streamlstm.detect.detector import Detector
from streamlstm.kernels import batch, keys, online
from streamlstm.kernels.cells import CELLS

detector = Detector({"model": {"hidden_size": 4}, "learning": {"learning_rows": 10, "calibrating_rows": 10}})
detector.process_batch(["a", "b"] * 50, None, np.sin(np.arange(100.0)))
for kernel in (online.score_online, keys.lookup_batch):
    print(sum(kernel.stats.cache_hits.values()), sum(kernel.stats.cache_misses.values()))
for function in (CELLS["lstm"].step, CELLS["lstm"].forward):
    print(function.compiled.cache_hits)
"""
OF_PROGRAM = ("online.score_online", "keys.lookup_batch", "tile.step_function", "lstm.forward")


@pytest.mark.timeout(280)
def test_a_second_process_finds_every_kernel_in_the_cache(tmp_path: Path) -> None:
    # A cache of its own, since tests beside this one add to theirs; what it lacks the first process compiles.
    own = tmp_path / CACHE_DIR.name
    shutil.copytree(CACHE_DIR, own, ignore=shutil.ignore_patterns("*tmp*"))
    environment = os.environ | {"STREAMLSTM_CACHE_DIR": str(tmp_path)}

    def run() -> list[str]:
        command = [sys.executable, "-c", PROGRAM]
        done = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
        return done.stdout.split()

    def files() -> list[tuple[Path, int]]:
        found = (path for path in own.rglob("*") if path.name.startswith(OF_PROGRAM))
        return sorted((path, path.stat().st_mtime_ns) for path in found)

    run()
    before = files()
    assert run() == ["1", "0", "1", "0", "1", "1"]
    assert files() == before
    assert len(before) >= len(OF_PROGRAM)
