"""Clips as pairs: the right frames to the pixel, in every container and every rotation."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest

from chronoprep.config import ImageSettings
from chronoprep.data import Frame
from chronoprep.errors import ConfigError, PairError
from chronoprep.images.clips import keep_clip
from chronoprep.images.load import content_hash, load_image
from chronoprep.images.refs import parse
from chronoprep.video import read_frames
from conftest import label_of
from test_cli import Run
from test_pairs import find, make
from trainer import read_dataset, read_video

COUNT = 17


def pictures(seed: int = 0) -> list[np.ndarray]:
    """Frames of 64×48 in blocks of 8, each different."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (COUNT, 6, 8, 3), dtype=np.uint8)
    return list(blocks.repeat(8, axis=1).repeat(8, axis=2))


def write_clip(
    path: Path,
    codec: str,
    form: str,
    seed: int = 0,
    rate: int = 10,
    repeat: int = 1,
    **options: str,
) -> Path:
    """A clip without any rotation; lossless if its codec is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, form
        for picture in pictures(seed) * repeat:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


FFMPEG = (imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error")


def turn(clip: Path, degrees: int, *mirrored: str) -> Path:
    """The same clip with a rotation in its metadata, as a phone writes it."""
    turned = clip.with_name(f"turned-{clip.name}")
    subprocess.run(
        [*FFMPEG, "-display_rotation", str(degrees), *mirrored, "-i", clip, "-c", "copy", turned],
        check=True,
    )
    return turned


CLIPS = [
    ("mp4", "libx264rgb", "rgb24", {"qp": "0", "g": "5"}, 0),
    ("mp4", "libx264rgb", "rgb24", {"qp": "0", "bf": "3"}, 90),
    ("mov", "png", "rgb24", {}, 180),
    ("mov", "qtrle", "rgb24", {}, 270),
    ("mkv", "libx264rgb", "rgb24", {"qp": "0", "bf": "3", "g": "100"}, 90),
    ("webm", "libvpx-vp9", "gbrp", {"lossless": "1"}, 270),
    ("m4v", "libx264rgb", "rgb24", {"qp": "0"}, 0),
    ("avi", "huffyuv", "rgb24", {}, 0),
    ("avi", "rawvideo", "bgr24", {}, 0),
    ("ts", "libx264rgb", "rgb24", {"qp": "0", "bf": "2"}, 0),
    ("avi", "ffv1", "bgr0", {}, 0),
]


@pytest.mark.parametrize(("suffix", "codec", "form", "options", "degrees"), CLIPS)
def test_frames_are_right_to_the_pixel(
    suffix: str, codec: str, form: str, options: dict[str, str], degrees: int, tmp_path: Path
) -> None:
    clip = write_clip(tmp_path / f"clip.{suffix}", codec, form, **options)
    if degrees:
        clip = turn(clip, degrees)
    upright = [np.rot90(picture, degrees // 90) for picture in pictures()]
    times = (0.55, 5), (1.0, 10), (0.0, 0), (1.65, 16)
    for at, number in (("first", 0), ("last", COUNT - 1), *times):
        image = load_image(Frame(clip, at), ImageSettings()).image  # type: ignore[arg-type]
        assert np.array_equal(np.asarray(image), upright[number]), at
    with pytest.raises(PairError, match="no such frame"):
        load_image(Frame(clip, 9.0), ImageSettings())


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", ["-display_hflip", "-display_vflip"])
def test_mirrored_clips_look_as_a_player_shows_them(
    degrees: int, mirrored: str, tmp_path: Path
) -> None:
    plain = write_clip(tmp_path / "clip.mp4", "libx264rgb", "rgb24", qp="0")
    clip = turn(plain, degrees, mirrored)
    shown = subprocess.run(
        [*FFMPEG, "-i", clip, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"],
        check=True, capture_output=True,
    ).stdout  # fmt: skip
    size = 64 * 48 * 3
    for at, data in (("first", shown[:size]), ("last", shown[-size:])):
        image = load_image(Frame(clip, at), ImageSettings()).image  # type: ignore[arg-type]
        assert image.size == ((64, 48) if degrees % 180 == 0 else (48, 64))
        assert image.tobytes() == data


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("few-times.avi", "mpeg4", {"bf": "2"}),
        ("shuffled-times.avi", "libx264", {"bf": "3", "g": "10"}),
        ("few-times.mpg", "mpeg1video", {"bf": "2"}),
        # Seeking to its start finds the second key frame.
        ("small.ts", "libx264", {"crf": "51", "g": "12"}),
    ],
)
def test_frames_are_found_where_seeking_leads_astray(
    name: str, codec: str, options: dict[str, str], tmp_path: Path
) -> None:
    clip = write_clip(tmp_path / name, codec, "yuv420p", rate=25, repeat=6, **options)
    with av.open(str(clip)) as container:
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    places = [("last", -1), *((number / 25, number) for number in range(0, len(decoded), 3))]
    for at, number in places:
        image = load_image(Frame(clip, at), ImageSettings()).image  # type: ignore[arg-type]
        assert np.array_equal(np.asarray(image), decoded[number]), number


def test_a_clip_that_is_shown_aslant_is_refused(tmp_path: Path) -> None:
    clip = turn(write_clip(tmp_path / "clip.mp4", "libx264rgb", "rgb24", qp="0"), 45)
    with pytest.raises(PairError, match="45°, which is no right angle"):
        load_image(Frame(clip, "first"), ImageSettings())


def test_a_folder_of_clips_is_found(tmp_path: Path) -> None:
    make(tmp_path, "a.mp4", "sub/b.MOV", "notes.md")
    (tmp_path / "a.txt").write_text("Open the door")
    found = find(tmp_path)
    assert {p.key: (parse(p.source), parse(p.target), p.caption) for p in found.pairs} == {
        "a": (Frame(tmp_path / "a.mp4", "first"), Frame(tmp_path / "a.mp4", "last"),
              "Open the door"),
        "sub__b": (Frame(tmp_path / "sub/b.MOV", "first"), Frame(tmp_path / "sub/b.MOV", "last"),
                   None),
    }  # fmt: skip
    timed = find(tmp_path, frames="0.5, 2")
    assert (parse(timed.pairs[0].source), parse(timed.pairs[0].target)) == (
        Frame(tmp_path / "a.mp4", 0.5),
        Frame(tmp_path / "a.mp4", 2.0),
    )
    for wrong in ("first", "first,first", "1,2,3", "a,b", "-1,2", "2,2.0", "0.5,0.50"):
        with pytest.raises(ConfigError, match="not two frames"):
            find(tmp_path, frames=wrong)
    # Images beside the clips come first; the clips, if asked for.
    make(tmp_path, "x_before.png", "x_after.png")
    assert [pair.key for pair in find(tmp_path).pairs] == ["x"]
    assert len(find(tmp_path, layout="clips").pairs) == 2


def test_clips_become_a_dataset(run: Run, tmp_path: Path, tiny: Callable[[str], Path]) -> None:
    write_clip(tmp_path / "clips/a.mp4", "libx264rgb", "rgb24", qp="0")
    write_clip(tmp_path / "clips/b.mkv", "libx264rgb", "rgb24", seed=1, qp="0")
    (tmp_path / "clips/broken.mp4").write_bytes(b"no clip")
    options = ("--model", tiny("qwen3_vl"), "--max-new-tokens", 8, "--no-guard", "--json")
    result = run("prepare", "clips", "-d", "data", *options)
    assert result.code == 1
    assert "broken.mp4: can't read the clip" in str(result.json[1]["failures"])
    samples = read_dataset(Path("data"))
    assert [sample.key for sample in samples] == ["a", "b"]
    for seed, sample in enumerate(samples):
        assert np.array_equal(sample.frames, [pictures(seed)[0], pictures(seed)[-1]])
    assert str(label_of("data", "a").caption_prompt).startswith("video@")
    assert run("caption", "clips", "-d", "default", "--preset", "default", *options).code == 1
    assert str(label_of("default", "a").caption_prompt).startswith("default@")
    report = run("pairs", "clips", "--json", "--link-manifest", "m.csv")
    assert [f["key"] for f in report.json["findings"] if f["code"] == "unreadable"] == ["broken"]
    linked = find(Path("m.csv"))
    assert content_hash(linked.pairs[0]) == content_hash(find(Path("clips")).pairs[0])


def test_clips_are_not_read_again_however_their_times_are_spelled(
    run: Run, tmp_path: Path, tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_clip(tmp_path / "clips/a.mp4", "libx264rgb", "rgb24", qp="0")
    options = ("clips", "-d", "data", "--frames", "1,1.50", "--model", tiny("qwen3_vl"))
    assert run("prepare", *options, "--max-new-tokens", 8, "--no-guard").code == 0
    monkeypatch.setattr("chronoprep.images.load.content_hash", None)
    monkeypatch.setattr("chronoprep.images.clips.load_frame", None)
    again = run("prepare", *options, "--max-new-tokens", 8, "--no-guard", "--json")
    assert [summary["skipped"] for summary in again.json[1:3]] == [1, 1]


def test_kept_clips_are_whole_upright_and_resumed(run: Run, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clips/a.mkv", "libx264rgb", "rgb24", qp="0")
    turn(clip, 90).replace(clip)
    (tmp_path / "clips/a.txt").write_text("Open the door")
    options = ("-d", "data", "--allow-caption-as-prompt", "--json")
    assert run("build-csv", "clips", *options, "--keep-clip").code == 0
    upright = [np.rot90(picture) for picture in pictures()]
    assert np.array_equal(read_video(Path("data/videos/a.mp4"), fps=10), upright)
    again = run("build-csv", "clips", *options, "--keep-clip").json
    assert [(s["what"], s["done"]) for s in again if s["what"] in ("videos", "metadata.csv")] == [
        ("videos", 0),
        ("metadata.csv", 1),
    ]
    assert run("build-csv", "clips", *options).code == 0
    assert np.array_equal(read_video(Path("data/videos/a.mp4")), [upright[0], upright[-1]])
    write_clip(tmp_path / "clips/a.mkv", "ffv1", "bgr0")
    (tmp_path / "raw").mkdir()
    write_clip(tmp_path / "raw/b.avi", "huffyuv", "rgb24")
    refused = run("pair2video", "raw", "-d", "raw-data", "--keep-clip")
    assert refused.code == 1
    assert "an mp4 can't hold its huffyuv pictures" in refused.stdout
    assert not list(Path("raw-data/videos").iterdir())


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        # Its first packets have no time of decoding.
        ("clip.mkv", "libx264", {"bf": "3"}),
        # Decoders of this codec are none of its encoders.
        ("clip.mp4", "libsvtav1", {"preset": "12"}),
    ],
)
def test_a_kept_clip_has_all_its_frames(
    name: str, codec: str, options: dict[str, str], tmp_path: Path
) -> None:
    clip = write_clip(tmp_path / name, codec, "yuv420p", **options)
    keep_clip(clip, tmp_path / "kept.mp4", ImageSettings(), check=True)
    assert len(read_frames(clip)) == COUNT
    assert np.array_equal(read_frames(tmp_path / "kept.mp4"), read_frames(clip))


def test_a_clip_is_kept_only_if_it_decodes(run: Run, tmp_path: Path) -> None:
    write_clip(tmp_path / "clips/whole.mp4", "libx264rgb", "rgb24", qp="0")
    damaged = write_clip(tmp_path / "clips/damaged.mp4", "libx264rgb", "rgb24", qp="0")
    data = bytearray(damaged.read_bytes())
    middle = data.index(b"mdat") + 3000
    data[middle : middle + 300] = bytes(range(150)) * 2
    damaged.write_bytes(data)
    write_clip(tmp_path / "clips/shuffled.avi", "libx264", "yuv420p", bf="3")
    kept = run("pair2video", "clips", "-d", "data", "--keep-clip")
    assert kept.code == 1
    assert "damaged.mp4: does not decode" in kept.stdout
    assert "shuffled.avi: its container does not say when" in kept.stdout
    assert [path.name for path in Path("data/videos").iterdir()] == ["whole.mp4"]
    assert run("pair2video", "clips", "-d", "data", "--keep-clip", "--check", "none").code == 0


def test_a_kept_clip_shows_what_its_label_tells_of(run: Run, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clips/a.mp4", "libx264rgb", "rgb24", qp="0")
    refused = run("pair2video", "clips", "-d", "data", "--keep-clip", "--frames", "0.5,1")
    assert refused.code == 2
    assert "other times than the label" in refused.stderr
    assert (
        run("pair2video", "clips", "-d", "data", "--keep-clip", "--frames", "first, last").code == 0
    )
    (tmp_path / "m.csv").write_text(f"key,source,target\na,{clip}#t=first,{clip}#t=1\n")
    refused = run("pair2video", "m.csv", "-d", "listed", "--keep-clip")
    assert refused.code == 1
    assert "other times than the label" in refused.stdout


def test_a_disk_that_is_full_is_no_fault_of_the_clip(run: Run, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")  # not on Windows
    write_clip(tmp_path / "clips/a.mp4", "libx264rgb", "rgb24", repeat=20, qp="0", g="1")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        result = run("pair2video", "clips", "-d", "data", "--keep-clip")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert result.code == 1
    assert "a.mp4: can't write: File too large" in result.stderr
    assert not list(Path("data/videos").iterdir())
