"""The house rules of the design: which way imports may point, names that would break others, and what an import costs."""

import ast
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

LEVELS = (
    ("errors", "records"),
    ("files", "progress", "config"),
    ("taxonomy",),
    ("ingest",),
    ("profiles",),
    ("segments",),
    ("reports",),
    ("tagging",),
    ("training", "runners"),
    ("cli",),
    ("__main__",),
)
"""Rooms from the ground up: a room may import what stands on a lower level, itself, and (on one level) only files, progress and config each other."""
LEVEL = {room: n for n, rooms in enumerate(LEVELS) for room in rooms}
TORCH_FREE = ("errors", "records", "files", "progress", "config", "taxonomy", "ingest", "profiles", "segments")
HEAVY = {"torch", "transformers", "accelerate", "datasets", "evaluate", "pyspark"}


def modules(root: Path) -> list[Path]:
    """Every file of the library."""
    return sorted((root / "src" / "penchant").rglob("*.py"))


def room_of(path: Path, root: Path) -> str:
    """The first part of a module's name below the package."""
    return path.relative_to(root / "src" / "penchant").parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Full names of the modules a file imports, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            found |= {f"{node.module}.{each.name}" for each in node.names} if node.module == "penchant" else {node.module}
    return found


def wrong_arrows(room: str, names: set[str]) -> list[str]:
    """Imports of a room that point up or sideways."""
    targets = {name.split(".")[1] for name in names if name.startswith("penchant.")} - {room, "__version__"}
    together = set(LEVELS[1])
    return sorted(each for each in targets if LEVEL[each] >= LEVEL[room] and not {each, room} <= together)


def test_every_room_has_its_level(root: Path) -> None:
    assert {room_of(path, root) for path in modules(root)} - {"__init__"} == set(LEVEL)


def test_imports_point_one_way(root: Path) -> None:
    wrong = {
        str(path): arrows
        for path in modules(root)
        if room_of(path, root) != "__init__" and (arrows := wrong_arrows(room_of(path, root), imported(path)))
    }
    assert wrong == {}


def test_the_walk_sees_a_wrong_arrow(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("from penchant import taxonomy\ndef f():\n    from penchant.training.loop import train\n")
    assert wrong_arrows("profiles", imported(tmp_path / "bad.py")) == ["training"]
    assert wrong_arrows("runners", {"penchant.training.loop"}) == ["training"]


def test_rooms_below_tagging_need_no_torch(root: Path) -> None:
    heavy = {
        str(path): found
        for path in modules(root)
        if room_of(path, root) in TORCH_FREE and (found := {name.split(".")[0] for name in imported(path)} & HEAVY)
    }
    assert heavy == {}


@pytest.mark.parametrize("folder", ["train", "infer"])
def test_programs_shadow_no_module(root: Path, folder: str) -> None:
    taken = set(sys.stdlib_module_names) | set(packages_distributions())
    names = {path.stem for path in (root / folder).iterdir() if path.suffix == ".py" or path.is_dir()} - {"__main__", "__pycache__"}
    assert names & taken == set()


@pytest.mark.parametrize("path", ["train/__main__.py", "infer/__main__.py", "src/penchant/__main__.py"])
def test_main_modules_define_nothing(root: Path, path: str) -> None:
    tree = ast.parse((root / path).read_text(encoding="utf-8"))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)]


@pytest.mark.parametrize("module", ["penchant", "penchant.cli"])
def test_importing_loads_neither_torch_nor_spark(module: str) -> None:
    code = (
        f"import sys, {module}; print(sorted({{'torch', 'pyspark', 'transformers', 'duckdb', 'pandas', 'matplotlib'}} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
