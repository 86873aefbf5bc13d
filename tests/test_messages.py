"""Every error says what to do about it."""

from __future__ import annotations

import ast
import errno
import inspect
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import chronoprep
from chronoprep import checkpoint, errors
from chronoprep.config import UMT5Settings, VLMSettings
from chronoprep.errors import ChronoprepError, ConfigError
from chronoprep.umt5 import find_encoder
from chronoprep.vlm import resolve

SOURCE = Path(chronoprep.__file__).parent
KINDS = {
    name
    for name, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, ChronoprepError)
}
# Those without a remedy, by file and how they begin, and why.
WITHOUT = {
    ("video.py", "not JPEG"): "a reason why a file is encoded and not copied: nothing to mend",
    ("video.py", "EXIF orientation"): "as above",
    ("video.py", "cut off"): "as above",
    ("video.py", "unusual colours"): "as above",
    ("video.py", "odd sides"): "as above",
    ("video.py", "path.name}: does not decode to the two"): "as above",
    ("labels/labeller.py", "task.source}: {outcome.value.answer"): "the answer's error has its own",
}


def errors_without_a_remedy(file: Path) -> list[tuple[str, str]]:
    """The calls that make an error without a hint: file, and how the message begins."""
    found = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        called = node.func if isinstance(node, ast.Call) else None
        if not isinstance(called, ast.Name) or called.id not in KINDS:
            continue
        assert isinstance(node, ast.Call)
        if not any(word.arg == "hint" for word in node.keywords):
            message = ast.unparse(node.args[0]).removeprefix("f").strip("'\"{") if node.args else ""
            found.append((file.relative_to(SOURCE).as_posix(), message))
    return found


def test_every_error_has_a_remedy_or_a_reason_why_none() -> None:
    found = [
        error for file in sorted(SOURCE.rglob("*.py")) for error in errors_without_a_remedy(file)
    ]
    known = {
        (file, message): (name, begin)
        for file, message in found
        for name, begin in WITHOUT
        if name == file and message.startswith(begin)
    }
    assert [error for error in found if error not in known] == []
    assert set(known.values()) == set(WITHOUT), "an exception that is none any more"


def hint_of(error: ChronoprepError) -> str:
    assert error.hint is not None
    return error.hint


@pytest.mark.parametrize("name", ["model-Q4_K_M.gguf", "there/model.gguf", "model.safetensors"])
def test_a_file_is_no_model(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    if "there" not in name:
        file.write_bytes(b"GGUF")
    with pytest.raises(ConfigError, match="one file, and not a model folder") as caught:
        resolve(VLMSettings(model=str(file)))
    assert "--endpoint" in hint_of(caught.value)


@pytest.mark.parametrize("suffix", [".safetensors", ".gguf"])
def test_an_encoder_for_another_program_is_named_as_such(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"umt5_xxl_fp16{suffix}"
    save_file({"shared.weight": torch.zeros(4, 4, dtype=torch.float16)}, file)
    with pytest.raises(ConfigError, match="for other programs") as caught:
        find_encoder(UMT5Settings(model=str(file)))
    assert "Wan-AI/Wan2.1-T2V-1.3B" in hint_of(caught.value)


def test_an_encoder_in_fp8_is_refused(tmp_path: Path, tiny_umt5: Path) -> None:
    for file in tiny_umt5.iterdir():
        (tmp_path / file.name).symlink_to(file)
    weights = tmp_path / "model.safetensors"
    weights.unlink()
    save_file({"shared.weight": torch.zeros(4, 4).to(torch.float8_e4m3fn)}, weights)
    with pytest.raises(ConfigError, match="fp8 with scales"):
        find_encoder(UMT5Settings(model=str(tmp_path)))


def test_a_full_cache_is_no_unreachable_hub() -> None:
    why, hint = checkpoint._refusal(OSError(errno.ENOSPC, "No space left on device"), None)
    assert "No space left on device" in why
    assert "HF_HOME" in hint


def test_failures_are_listed_by_cause(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from chronoprep.cli.render import of_summaries, show
    from chronoprep.workflows import Summary

    summary = Summary("labels")
    for number in range(20):
        summary.fail(
            f"p{number:02}", f"{tmp_path}/p{number:02}.png: the image is damaged: 'x{number}'"
        )
    summary.fail("q", "HTTP 400: too long")
    answer = of_summaries([summary.finish()])
    show(answer, as_json=False)
    shown = [line.strip() for line in capfd.readouterr().out.splitlines()]
    assert answer.failed
    assert shown[-3] == "labels failed: 21"
    assert shown[-2].startswith("p00, p01, p02, … (20 of this cause): ")
    assert shown[-1] == "q: HTTP 400: too long"
