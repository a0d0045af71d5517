"""Imports point downwards: door, rooms, utils."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {
    "utils": {"utils"},
    "dataset": {"dataset", "utils"},
    "models": {"models", "utils"},
    "objectives": {"objectives", "utils"},
    "evaluation": {"evaluation", "utils"},
    "figures": {"figures", "utils"},
    "training": {"training", "dataset", "models", "knowledge_distiller", "utils"},
}
OURS = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_what_stands_below_it(room):
    for path in (ROOT / room).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            above = {name.split(".")[0] for name in names} & OURS - MAY_IMPORT[room]
            assert not above, f"{path.relative_to(ROOT)}, line {node.lineno} imports {above}"
