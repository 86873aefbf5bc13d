"""The 2-frame videos: speed, quality and what each reader makes of them.

Run: python benchmarks/video.py [--pairs N] [--rounds N] [--python PATH]... [--docs docs/video.md]

Speed is measured against the snippet that the editor's documentation gives, in one run, with a
process each and on the same cores: its ffmpeg takes all that it is given. The pairs are the example
photos, enlarged and with grain, as JPEG files. `--python` names further interpreters in which to
look for readers, since not all of them install side by side; `--docs` writes the tables between
that file's markers.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import pickle
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
SIZE = (1024, 1024)
NAMES = ("astronaut_sunglasses", "cat_party_hat", "coffee_blurred_background", "rocket_balloon")
READERS = {"imageio": "imageio", "PyAV": "av", "OpenCV": "cv2", "decord": "decord",
           "torchcodec": "torchcodec"}  # fmt: skip
WAYS: dict[str, dict[str, Any]] = {
    "lossless": {},
    "h264": {"codec": "h264"},
    "h264 --chroma 420": {"codec": "h264", "chroma": "420"},
    "copy": {"codec": "copy"},
}
HOW = ("one core", "all cores", "one core, all decoded", "all cores, all decoded")
SIZES = ((1024, 1024), (1023, 683), (16, 4000), (1, 1))
SNIPPET = "the documented snippet"


def photos(count: int, size: tuple[int, int], folder: Path, **options: Any) -> Path:
    """A folder of pairs of JPEG files in `input` and `output`."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for number in range(count):
        for side in ("input", "output"):
            with Image.open(ROOT / f"examples/pairs/{side}/{NAMES[number % 4]}.jpg") as image:
                scale = max(size[0] / image.width, size[1] / image.height)
                # One pixel more than needed, so that no rounding falls short.
                large = [int(edge * scale) + 1 for edge in image.size]
                image = image.convert("RGB").resize(large, Image.Resampling.LANCZOS)
            pixels = np.asarray(image.crop((0, 0, *size)))
            pixels = pixels + rng.normal(0, 1.5, (*pixels.shape[:2], 1))
            path = folder / side / f"p{number:04}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
            image.save(path, **({"quality": 93} | options))
    return folder


def snippet(source: Path, target: Path, path: Path) -> None:
    import imageio
    from PIL import Image

    with imageio.get_writer(path, fps=1) as writer:
        for file in (source, target):
            writer.append_data(np.asarray(Image.open(file)))


def write(way: str, how: str, pairs: Path, out: Path) -> float:
    """Write all videos of a folder of pairs; the seconds that it took."""
    from chronoprep.config import Settings
    from chronoprep.workflows import video_one, write_videos

    sources = sorted((pairs / "input").iterdir())
    video = {**WAYS.get(way, {}), "check": "all" if "all decoded" in how else "sample"}
    settings = Settings.model_validate({"video": video})
    out.mkdir(parents=True, exist_ok=True)
    if "one core" in how:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # its children's, too

    def one(source: Path) -> None:
        target, path = pairs / "output" / source.name, out / f"{source.stem}.mp4"
        if way == SNIPPET:
            snippet(source, target, path)
        else:
            video_one(source, target, path, settings)

    # Imports come first, so that they are not measured.
    first = Settings.model_validate({"video": video, "pairs": {"limit": 1}})
    together = "all cores" in how and way != SNIPPET
    if together:
        write_videos(out / "first", first, pairs=pairs)
    one(sources[0])
    began = time.perf_counter()
    if together:
        (_, summary) = write_videos(out / "dataset", settings, pairs=pairs)
        assert summary.done == len(sources), summary
    else:
        for source in sources:
            one(source)
    return time.perf_counter() - began


def read(reader: str, path: Path) -> list[np.ndarray]:
    """All frames of a video, RGB, as a trainer would get them."""
    if reader == "imageio":
        import imageio

        video = imageio.get_reader(path)
        return [np.asarray(video.get_data(i)) for i in range(int(video.count_frames()))]
    if reader == "PyAV":
        import av

        with av.open(str(path)) as container:
            return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    if reader == "OpenCV":
        import cv2

        capture, frames = cv2.VideoCapture(str(path)), []
        while (frame := capture.read())[0]:
            frames.append(np.ascontiguousarray(frame[1][:, :, ::-1]))
        return frames
    if reader == "decord":
        import decord

        return list(decord.VideoReader(str(path), num_threads=1)[:].asnumpy())
    from torchcodec.decoders import VideoDecoder

    return [frame.permute(1, 2, 0).numpy() for frame in VideoDecoder(str(path))]


def child(*arguments: object, python: str = sys.executable) -> Any:
    """Run this script in another process; the JSON that it prints last."""
    command = [python, __file__, *map(str, arguments)]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(result.stdout.splitlines()[-1])


def psnr(wanted: list[np.ndarray], got: list[np.ndarray]) -> float:
    """Of the worse frame, in dB; infinite when both are exact."""
    errors = [np.mean((a.astype(float) - b) ** 2) for a, b in zip(wanted, got, strict=True)]
    return float("inf") if max(errors) == 0 else float(10 * np.log10(255**2 / max(errors)))


def pixels(pairs: Path, name: str) -> list[np.ndarray]:
    """Both images of a pair as Pillow decodes them."""
    from PIL import Image

    return [np.asarray(Image.open(pairs / side / f"{name}.jpg")) for side in ("input", "output")]


def speed_and_quality(count: int, rounds: int, folder: Path) -> list[str]:
    pairs = photos(count, SIZE, folder / "pairs")
    runs = [*((SNIPPET, how) for how in HOW[:2]), *((way, how) for way in WAYS for how in HOW)]
    seconds: dict[tuple[str, str], list[float]] = {run: [] for run in runs}
    for number in range(rounds):
        for way, how in runs:
            out = folder / f"{number} {way} {how}"
            seconds[way, how].append(child("write", way, how, pairs, out))
            print(f"{number} {way}, {how}: {seconds[way, how][-1]:.2f} s", file=sys.stderr)
            if number or how != HOW[0]:
                shutil.rmtree(out)
    speed = [
        f"| pairs/s (times the snippet on the same cores) | {' | '.join(HOW)} |",
        "|---" * (len(HOW) + 1) + "|",
    ]
    quality = [
        "| way | PSNR worst/mean dB | max error | mean shift R/G/B | kB a pair | 10,000 pairs "
        "| 10 million pairs |",
        "|---|---|---|---|---|---|---|",
    ]
    for way in (SNIPPET, *WAYS):
        middles = {how: statistics.median(seconds[way, how]) for how in HOW if (way, how) in runs}
        rates = [
            f"{count / middle:.1f} (×{statistics.median(seconds[SNIPPET, base]) / middle:.1f})"
            for (how, middle), base in zip(middles.items(), HOW[:2] * 2, strict=False)
        ]
        speed.append(f"| {way} | {' | '.join(rates)} |" + " |" * (len(HOW) - len(rates)))
        videos = sorted((folder / f"0 {way} {HOW[0]}").glob("*.mp4"))
        size = statistics.mean(path.stat().st_size for path in videos)
        cells = [*compared(pairs, videos[:8]), f"{size / 1e3:,.0f}", f"{size * 1e4 / 1e9:.1f} GB",
                 f"{size * 1e7 / 1e12:.1f} TB"]  # fmt: skip
        quality.append(f"| {way} | {' | '.join(cells)} |")
    return [*speed, "", *quality]


def compared(pairs: Path, videos: list[Path]) -> tuple[str, str, str]:
    """Worst and mean PSNR, largest error and mean shift of videos read by the trainers' reader."""
    levels, shifts, largest = [], [], 0
    for path in videos:
        for wanted, got in zip(pixels(pairs, path.stem), read("imageio", path), strict=True):
            error = got.astype(int) - wanted
            levels.append(psnr([wanted], [got]))
            shifts.append(error.mean(axis=(0, 1)))
            largest = max(largest, int(np.abs(error).max()))
    shift = "/".join(f"{value:+.2f}" for value in np.mean(shifts, axis=0))
    if largest == 0:
        return "exact", "0", "0"
    return f"{min(levels):.1f} / {statistics.mean(levels):.1f}", str(largest), shift


def readers(pythons: list[str], folder: Path) -> list[str]:
    """What each reader gets from each way and size: the PSNR of the worse frame."""
    from chronoprep.config import Settings
    from chronoprep.workflows import video_one

    wanted: dict[str, list[np.ndarray]] = {}
    rows: dict[str, str] = {}
    for size in SIZES:
        for sampling in ("4:2:0", "4:4:4"):
            name = f"{size[0]}x{size[1]} {sampling}"
            options = {"subsampling": sampling, "quality": 93}
            pairs = photos(1, size, folder / name, **options)
            source, target = (pairs / side / "p0000.jpg" for side in ("input", "output"))
            for way, video in WAYS.items():
                if (sampling == "4:4:4") > (way == "copy"):
                    continue  # what is encoded does not depend on how the JPEG was sampled
                label = f"{way} {sampling}" if way == "copy" else way
                title, path = f"{size[0]}×{size[1]} {label}", folder / f"{len(rows):02}.mp4"
                try:
                    notes = video_one(source, target, path, Settings(video=video))
                except Exception as error:
                    rows[title] = f"| {title} | refused: {str(error).partition(': ')[2]} |"
                    continue
                if any("not copied" in note for note in notes):
                    rows[title] = f"| {title} | {notes[-1]} |"
                    continue
                rows[title] = path.name
                wanted[path.name] = pixels(pairs, "p0000")
    columns: dict[str, dict[str, str]] = {}
    for python in pythons:
        for reader, version in child("versions", python=python).items():
            if version in columns:
                continue
            try:
                child("read", reader, folder, python=python)
            except subprocess.CalledProcessError as error:
                print(f"{version}: {error.stderr[-400:]}", file=sys.stderr)
                continue
            with (folder / "frames.pkl").open("rb") as file:
                frames = pickle.load(file)
            columns[version] = {
                name: verdict(images, frames[name]) for name, images in wanted.items()
            }
    lines = [f"| frames and way | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for title, name in rows.items():
        if name.startswith("|"):
            lines.append(name + " |" * (len(columns) - 1))
        else:
            cells = [column[name] for column in columns.values()]
            lines.append(f"| {title} | {' | '.join(cells)} |")
    return lines


def verdict(wanted: list[np.ndarray], got: list[np.ndarray] | str) -> str:
    if isinstance(got, str):
        return got
    if [frame.shape for frame in got] != [image.shape for image in wanted]:
        return f"{len(got)} frames, " + ", ".join(sorted({str(frame.shape) for frame in got}))
    level = psnr(wanted, got)
    return "exact" if level == float("inf") else f"{level:.1f}"


def read_all(reader: str, folder: Path) -> int:
    """Leave what a reader gets from each video of a folder in `frames.pkl`."""

    def attempt(path: Path) -> list[np.ndarray] | str:
        try:
            return read(reader, path)
        except Exception as error:
            return f"error: {type(error).__name__}"

    frames = {path.name: attempt(path) for path in sorted(folder.glob("*.mp4"))}
    (folder / "frames.pkl").write_bytes(pickle.dumps(frames))
    return len(frames)


def versions() -> dict[str, str]:
    """The readers that this interpreter has."""
    distributions = importlib.metadata.packages_distributions()
    return {
        name: f"{distributions[module][0]} {importlib.metadata.version(distributions[module][0])}"
        for name, module in READERS.items()
        if module in distributions
    }


def main() -> None:
    match sys.argv[1:]:
        case ["write", way, how, pairs, out]:
            print(write(way, how, Path(pairs), Path(out)))
            return
        case ["versions"]:
            print(json.dumps(versions()))
            return
        case ["read", reader, folder]:
            print(read_all(reader, Path(folder)))
            return
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--python", action="append", default=[sys.executable])
    parser.add_argument("--docs", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        speed = speed_and_quality(options.pairs, options.rounds, folder / "speed")
        table = readers(options.python, folder / "readers")
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    used = ", ".join(f"{n} {importlib.metadata.version(n)}" for n in ("av", "imageio", "pillow"))
    report = "\n".join([
        f"JPEG pairs of {SIZE[0]}×{SIZE[1]}, medians of {options.rounds} rounds of {options.pairs} "
        f"pairs; {machine}; {used}.", "", *speed, "",
        "PSNR in dB of the worse frame, against what Pillow decodes:", "", *table,
    ])  # fmt: skip
    print(report)
    if options.docs:
        text = options.docs.read_text("utf-8")
        marked = re.compile(r"(<!-- measured -->\n).*(\n<!-- /measured -->)", re.DOTALL)
        options.docs.write_text(marked.sub(lambda m: m[1] + report + m[2], text), "utf-8")


if __name__ == "__main__":
    main()
