"""What is called like a file and is none: pipes, folders, links that lead to themselves."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from chronoprep.config import ImageSettings
from chronoprep.data import Cell, Frame, ImageRef
from chronoprep.errors import BackendError, ConfigError, PairError
from chronoprep.files import replacing
from chronoprep.images.cells import open_table
from chronoprep.images.clips import keep_clip
from chronoprep.images.load import content_digest, load_image
from chronoprep.images.reading import MOST_BYTES
from conftest import Result, write_pairs

SETTINGS = ImageSettings()


def pipe(path: Path) -> None:
    os.mkfifo(path)


def link_to_a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def loop(path: Path) -> None:
    path.symlink_to(path)


def sparse(path: Path) -> None:
    """A file of 3 GB that takes no room."""
    with path.open("wb") as file:
        file.truncate(MOST_BYTES + 1)


NO_FILES = {
    pipe: "a special file",
    link_to_a_device: "a special file",
    loop: "Too many levels of symbolic links",
    Path.mkdir: "a folder",
}


@pytest.mark.parametrize("make", NO_FILES)
def test_no_file_is_opened_as_a_picture_a_clip_or_a_table(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    def ref(name: str) -> Path:
        make(tmp_path / name)
        return tmp_path / name

    refs: list[ImageRef] = [
        ref("a.png"),
        Frame(ref("a.mp4"), "first"),
        Frame(ref("b.mkv"), "last"),
        Cell(ref("a.parquet"), 0, "image"),
    ]
    wanted = NO_FILES[make]
    for each in refs[: 3 if make is Path.mkdir else 4]:  # `datasets` saves folders
        for look in (lambda ref: load_image(ref, SETTINGS), content_digest):
            with pytest.raises(PairError, match=wanted):
                look(each)  # type: ignore[operator]
    with pytest.raises(PairError, match=wanted):
        keep_clip(tmp_path / "a.mp4", tmp_path / "kept.mp4", SETTINGS, check=True)
    if make is not Path.mkdir:
        with pytest.raises(ConfigError, match=wanted):
            open_table(tmp_path / "a.parquet")


def test_a_picture_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    sparse(tmp_path / "a.png")
    for look in (lambda ref: load_image(ref, SETTINGS), content_digest):
        with pytest.raises(PairError, match=r"2\.1 GB are too many for a picture"):
            look(tmp_path / "a.png")  # type: ignore[operator]


@pytest.mark.parametrize("linked", [False, True])
def test_what_is_no_file_is_never_replaced(linked: bool, tmp_path: Path) -> None:
    target, path = tmp_path / "target", tmp_path / "folder/a.mp4"
    path.parent.mkdir()
    os.mkfifo(target if linked else path)
    if linked:
        path.symlink_to(target)
    with (
        pytest.raises(BackendError, match="something that is no file lies there"),
        replacing(path) as temporary,
    ):
        temporary.write_bytes(b"new")
    assert stat.S_ISFIFO(path.stat().st_mode)
    assert path.is_symlink() == linked
    assert {file.name for file in tmp_path.rglob("*")} <= {"target", "folder", "a.mp4"}


def test_a_link_that_leads_to_itself_is_replaced(tmp_path: Path) -> None:
    loop(tmp_path / "a.mp4")
    with replacing(tmp_path / "a.mp4") as temporary:
        temporary.write_bytes(b"new")
    assert (tmp_path / "a.mp4").read_bytes() == b"new"


def test_videos_that_are_none_do_not_hang_a_run(tmp_path: Path, run: Callable[..., Result]) -> None:
    pairs = write_pairs(tmp_path / "pairs", ["a", "b"])
    assert run("pair2video", pairs, "-d", "data").code == 0
    video = Path("data/videos/a.mp4")
    video.unlink()
    os.mkfifo(video)
    again = run("pair2video", pairs, "-d", "data")
    assert again.code == 1
    assert "a.mp4: can't write: something that is no file lies there" in again.stderr
    video.unlink()
    assert run("pair2video", pairs, "-d", "data").code == 0
