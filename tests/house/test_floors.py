"""The house rules that a machine can check."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLOOR = {"prm_kit": 0, "labeling": 1, "rl": 1, "pipelines": 2}


def modules():
    found = {}
    for package in FLOOR:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            found[name] = path
    return found


def imports(name, path, known):
    """Modules of ours that `path` names in an import statement, function bodies included."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {n for n in names if n in known and n != name}


@pytest.fixture(scope="module")
def edges():
    known = modules()
    return {name: imports(name, path, known) for name, path in known.items()}


def test_imports_only_point_down(edges):
    upward = [
        (a, b)
        for a, targets in edges.items()
        for b in targets
        if a.split(".")[0] != b.split(".")[0] and FLOOR[b.split(".")[0]] >= FLOOR[a.split(".")[0]]
    ]
    assert upward == []


def test_no_two_modules_import_each_other(edges):
    def reachable(start):
        seen, todo = set(), [start]
        while todo:
            for target in edges[todo.pop()] - seen:
                seen.add(target)
                todo.append(target)
        return seen

    assert [name for name in edges if name in reachable(name)] == []


def test_no_function_is_over_eighty_lines():
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in modules().values()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno - node.lineno >= 80
    ]
    assert long == []


def test_no_junk_drawer_modules():
    drawers = {"utils", "util", "common", "types", "core", "helpers", "misc"}
    assert [name for name in modules() if name.rsplit(".", 1)[-1] in drawers] == []


@pytest.mark.parametrize(
    "module", ["prm_kit", "prm_kit.records", "prm_kit.score", "prm_kit.settings", "pipelines.cli", "labeling.rules"]
)
def test_light_rooms_load_no_heavy_library(module):
    code = (
        f"import sys, {module}; "
        "print([m for m in ('torch', 'transformers', 'datasets', 'sklearn', 'polars') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"
