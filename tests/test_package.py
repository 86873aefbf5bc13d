"""The package as its metadata describes it."""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Callable
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import chronoprep
from chronoprep.config.sources import tomllib
from conftest import Result

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


@pytest.mark.skipif(sys.version_info < (3, 11), reason="3.10 can't tell whose every module is")
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


def test_every_public_name_is_documented_and_typed() -> None:
    for name in chronoprep.__all__:
        thing = getattr(chronoprep, name)
        assert inspect.getdoc(thing), name
        if inspect.isfunction(thing):
            assert re.search(r"(?m)^Raises:", inspect.getdoc(thing) or ""), name
    assert 12 <= len(chronoprep.__all__) <= 20
    assert (SOURCE / "py.typed").is_file()
    page = (ROOT / "docs" / "python.md").read_text("utf-8")
    assert [name for name in chronoprep.__all__ if f"`{name}`" not in page] == []


def test_the_tutorial_labels_filters_and_exports(run: Callable[..., Result]) -> None:
    assert run("synth", 6, "--output", "pairs").code == 0
    script = ROOT / "examples" / "tutorial.py"
    assert len([line for line in script.read_text("utf-8").splitlines() if line.strip()]) <= 30
    subprocess.run([sys.executable, str(script), "pairs", "data"], check=True)
    rows = [json.loads(line) for line in Path("data/train.jsonl").read_text("utf-8").splitlines()]
    assert 3 <= len(rows) <= 6
    truth = map(json.loads, Path("pairs/truth.jsonl").read_text("utf-8").splitlines())
    captions = {row["caption"] for row in truth}
    assert sum(row["edit"] in captions for row in rows) >= len(rows) - 1
    assert all(Path(row["source"]).is_file() and Path(row["target"]).is_file() for row in rows)


@pytest.mark.slow
def test_wheel_and_sdist_work_in_a_clean_environment(tmp_path: Path) -> None:
    """Nothing of the repository is at hand there; what the package depends on is borrowed."""
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet"]
    subprocess.run([*install, "hatchling"], check=True)
    build = [str(python), "-m", "hatchling", "build", "-d", str(tmp_path / "dist")]
    subprocess.run(build, check=True, cwd=ROOT)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    (sdist,) = (tmp_path / "dist").glob("*.tar.gz")
    subprocess.run([*install, "--no-deps", str(wheel)], check=True)
    # Named by PYTHONPATH, a folder's .pth files do not count: the editable install is out of sight.
    borrowed = os.environ | {"PYTHONPATH": sysconfig.get_path("purelib")}

    def clean(*words: str, cwd: Path) -> str:
        command = [str(python), *words]
        done = subprocess.run(command, cwd=cwd, env=borrowed, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    where = clean("-c", "import chronoprep; print(chronoprep.__file__)", cwd=tmp_path)
    assert where.startswith(str(tmp_path / "venv"))
    clean("-m", "chronoprep", "synth", "2", "--output", "pairs", cwd=tmp_path)
    words = ("prepare", "pairs", "--dataset", "data", "--model", "shapes")
    clean("-m", "chronoprep", *words, cwd=tmp_path)
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = (path for path in tmp_path.glob("chronoprep-*") if path.is_dir())
    clean("-m", "pytest", "--collect-only", cwd=unpacked)
    clean("-m", "pytest", "tests/test_options.py", "tests/test_docs.py", "-k", "not runs",
          cwd=unpacked)  # fmt: skip
