"""The documentation: generated pages are fresh, links lead somewhere, commands run."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.main import get_command

from chronoprep.cli.app import application
from chronoprep.dataset import Dataset, Review
from conftest import EXAMPLES, Result

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "examples/README.md"])

_FENCE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site make them."""
    heads = re.findall(r"(?m)^#+ (.+)$", page.read_text("utf-8"))
    return {re.sub(r"[^\w -]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    text = _FENCE.sub("", page.read_text("utf-8"))
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    for link in links:
        name, _, anchor = link.partition("#")
        if link.startswith(("https://", "http://", "mailto:")):
            continue
        target = (page.parent / name) if name else page
        assert target.exists(), f"{link}: no such file"
        if anchor:
            assert anchor in anchors(target), f"{link}: no such heading"


def test_generated_pages_are_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "tools")
    monkeypatch.delitem(sys.modules, "reference", raising=False)
    import reference

    assert not reference.stale(), "`make reference` writes them anew"


# Not run to their end here: they serve a page, need a package or a network, or have tests of their
# own. Their words are read as the program would read them.
ONLY_READ = re.compile(
    r"chronoprep (review|doctor)\b|--engine ray|--backend vllm|(hf|s3|gs)://| /shared/"
)
# What docs call models and servers that no test machine has.
STAND_INS = {
    r"--model (?!shapes)\S+": "",
    r"--(?:vlm-)?endpoint (\S+)": "--endpoint {endpoint} --model painter",
}


def commands(page: Path) -> list[str]:
    """The lines of a page's `sh` blocks."""
    blocks = re.findall(r"(?ms)^```sh\n(.*?)^```", page.read_text("utf-8"))
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line.split("  #")[0].strip() for line in lines if line.strip()]


WITH_COMMANDS = [
    page for page in PAGES if any(line.startswith("chronoprep ") for line in commands(page))
]


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda page: page.stem)
def test_every_command_runs(
    page: Path,
    run: Callable[..., Result],
    tmp_path: Path,
    tiny: Callable[[str], Path],
    tiny_umt5: Path,
    fault_server: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In order, in one folder that holds what the docs speak of; large models have stand-ins."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    shutil.copytree(EXAMPLES, tmp_path / "my-pairs", ignore=shutil.ignore_patterns("*.json"))
    for side, name in (("input", "before.jpg"), ("output", "after.jpg")):
        shutil.copy(EXAMPLES / side / "cat_party_hat.jpg", tmp_path / name)
    for name in ("portraits", "landscapes"):
        shutil.copytree(EXAMPLES, tmp_path / name)
    Path("photo.jpg").write_bytes(Path("before.jpg").read_bytes())
    Path("wishes.csv").write_text("image,prompt\nphoto.jpg,Add a hat\n")
    Path("table-of-s3-urls.csv").write_text("source,target\nbefore.jpg,after.jpg\n")
    lines = commands(page)
    for name in ("my-dataset", "example-dataset"):
        if any(f" {name}" in line for line in lines):
            assert run("prepare", EXAMPLES, "--dataset", name).code == 0
            data = Dataset(Path(name))
            images = data.journal.state("cat_party_hat").images
            data.append([Review(key="cat_party_hat", verdict="accept", images=images)])
    endpoint = fault_server() if any("--endpoint" in line for line in lines) else ""
    monkeypatch.setenv("CHRONOPREP_VLM_MODEL", str(tiny("qwen3_vl")))
    monkeypatch.setenv("CHRONOPREP_VLM_MAX_NEW_TOKENS", "8")
    monkeypatch.setenv("CHRONOPREP_LABELS_GUARD", "false")
    monkeypatch.setenv("CHRONOPREP_UMT5_MODEL", str(tiny_umt5))
    for line in lines:
        if not line.startswith("chronoprep "):
            continue
        only_read = ONLY_READ.search(line) is not None
        for pattern, stand_in in STAND_INS.items():
            line = re.sub(pattern, stand_in.format(endpoint=endpoint), line)
        words = shlex.split(line.split(" > ")[0])[1:]
        if only_read:
            command = get_command(application()).commands[words[0]]  # type: ignore[attr-defined]
            command.make_context(words[0], words[1:])
        else:
            result = run(*words)
            # What a stand-in writes is nonsense, as `check` may find.
            most = int(words[0] == "check")
            assert result.code <= most, f"{line}\n{result.stdout}{result.stderr}"


def test_every_other_command_of_the_docs_is_there() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for page in PAGES:
        for line in commands(page):
            program, _, rest = line.partition(" ")
            if program == "make":
                assert f"\n{rest.split()[0]}:" in makefile, line
            elif program == "python" and not rest.startswith("-"):
                assert (ROOT / rest.split()[0]).is_file(), line
