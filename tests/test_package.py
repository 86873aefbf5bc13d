"""The package as its metadata describes it."""

from __future__ import annotations

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

from chronoprep.config import tomllib

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "chronoprep"
# Not installed where the tests run: their distributions bear the names of their modules.
OPTIONAL = {"vllm", "flash_attn", "torchvision"}


def imported() -> set[str]:
    """Top-level names of all modules that the package imports from others."""
    names: set[str] = set()
    for file in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names.update(alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names.add(str(node.module).split(".")[0])
    return names - set(sys.stdlib_module_names) - {"chronoprep", "__future__"}


def test_every_import_is_a_declared_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    declared = {
        re.split(r"[\s<>=!~;\[]", requirement)[0].lower().replace("_", "-")
        for group in [project["dependencies"], *project["optional-dependencies"].values()]
        for requirement in group
    }
    homes = packages_distributions()
    for name in sorted(imported() - OPTIONAL - {"tomli"}):
        distributions = {home.lower().replace("_", "-") for home in homes.get(name, [name])}
        assert distributions & declared, f"{name} of {distributions} is not declared"
