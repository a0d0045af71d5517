"""Imports point downwards: entry script, packages, utils."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {
    "utils": {"utils"},
    "dataset": {"dataset", "utils"},
    "models": {"models", "utils"},
    "stored": {"stored", "dataset", "models", "utils"},
    "objectives": {"objectives", "utils"},
    "tasks": {"tasks", "dataset", "evaluation", "models", "utils"},
    "evaluation": {"evaluation", "dataset", "models", "utils"},
    "figures": {"figures", "dataset", "models", "objectives", "old_names", "teachers", "training", "utils"},
    "training": {"training", "dataset", "models", "stored", "tasks", "teachers", "knowledge_distiller", "utils"},
    "export": {"export", "dataset", "models", "old_names", "tasks", "training", "utils"},
    "teachers.py": {"dataset", "models", "stored", "utils"},
    "terms.py": {"dataset", "models", "objectives", "teachers", "utils"},
    "knowledge_distiller.py": {"dataset", "models", "objectives", "teachers", "terms", "utils"},
    "old_names.py": {"utils"},
    "recipe.py": {
        *("dataset", "knowledge_distiller", "models", "objectives", "old_names", "tasks", "teachers", "training"),
        "utils",
    },
    "stored_teachers.py": {
        *("dataset", "models", "recipe", "stored", "tasks", "teachers", "terms", "training", "utils"),
    },
    "networks.py": {
        *("dataset", "knowledge_distiller", "models", "recipe", "stored_teachers", "tasks", "teachers", "terms"),
        *("training", "utils"),
    },
    "students.py": {"models", "recipe", "utils"},
    "procedure.py": {"models", "networks", "old_names", "recipe", "students", "training", "utils"},
    "reporting.py": {"dataset", "figures", "recipe", "training", "utils"},
    "evaluate.py": {"dataset", "figures", "networks", "recipe", "training", "utils"},
}
OURS = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}


def imported(path):
    """(line, first part of the name) of every import."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        yield from ((node.lineno, name.split(".")[0]) for name in names)


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_what_stands_below_it(package):
    files = [ROOT / package] if package.endswith(".py") else list((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        for line, name in imported(path):
            assert name not in OURS - MAY_IMPORT[package], f"{path.relative_to(ROOT)}, line {line} imports {name}"


def test_only_configs_import_configs_and_nothing_imports_the_entry_script():
    configs = {"imagenet_train_cfg", "configs"}
    script = "train_with_distillation"
    assert configs | {script} <= OURS
    for folder in (ROOT, *(ROOT / name for name in OURS - {"configs", "tests"} if (ROOT / name).is_dir())):
        for path in folder.glob("*.py") if folder == ROOT else folder.rglob("*.py"):
            table = {"configs"} if folder.name == "benchmarks" else set()  # they measure methods, and read their table
            for line, name in imported(path):
                assert name not in (configs - table) | {script}, f"{path.relative_to(ROOT)}, line {line} imports {name}"
    for path in (ROOT / "configs").glob("*.py"):
        assert "train_with_distillation" not in {name for _, name in imported(path)}, path.name


def test_json_in_files_is_read_by_one_function():
    for package in MAY_IMPORT:
        files = [ROOT / package] if package.endswith(".py") else (ROOT / package).rglob("*.py")
        for path in files:
            found = re.search(r"json\.loads\([^()]*\.read_", path.read_text())
            assert not found or path.name == "coco.py", f"{path.relative_to(ROOT)}: utils.files.parsed reads it"
