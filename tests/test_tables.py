"""Tables of pairs: the public datasets' own columns, images as paths, bytes or addresses."""

from __future__ import annotations

import base64
import io
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
import polars as pl
import pytest
from PIL import Image

from chronoprep.config import ImageSettings, PairSettings
from chronoprep.data import Cell, Remote
from chronoprep.errors import BackendError, ConfigError, PairError
from chronoprep.images.cells import open_table
from chronoprep.images.load import content_hash, load_image, load_pair
from chronoprep.images.refs import parse
from chronoprep.images.sources import content_digest, read_source
from chronoprep.pairs import Discovery
from chronoprep.pairs.columns import presets
from chronoprep.pairs.hub import fetched, open_stream, spool
from odd_server import Quiet, serving
from test_cli import Run
from test_pairs import find, make
from trainer import read_dataset

# A pair's source is (row, 0, 0), its target (0, row, 0) and further targets (0, row, n).


def colour(*rgb: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 3), rgb).save(buffer, "png")
    return buffer.getvalue()


def cell(*rgb: int) -> dict[str, Any]:
    return {"bytes": colour(*rgb), "path": None}


def on_disk(root: Path, name: str, *rgb: int) -> str:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(colour(*rgb))
    return name


def embedded(
    source: str, target: str, texts: list[dict[str, Any]], *, step: int = 10, **more: Any
) -> pl.DataFrame:
    return pl.DataFrame(
        [{source: cell(step * n, 0, 0), target: cell(0, step * n, 0), **row, **more}
         for n, row in enumerate(texts, 1)]
    )  # fmt: skip


def seen(found: Discovery) -> dict[str, tuple[tuple[int, ...], tuple[int, ...], str | None]]:
    """Key → the colours of source and target as they load, and the caption."""
    result = {}
    for pair in found.pairs:
        loaded = load_pair(pair, ImageSettings())
        colours = [tuple(map(int, np.asarray(i)[0, 0])) for i in (loaded.source, loaded.target)]
        result[pair.key] = (colours[0], colours[1], pair.caption)
    return result


def rows(*texts: Any, column: str, **more: Any) -> list[dict[str, Any]]:
    return [{column: text, **more} for text in texts]


def instructpix2pix(root: Path) -> Path:
    table = embedded("original_image", "edited_image", rows("hat", "dog", column="edit_prompt"),
                     original_prompt="a man", edited_prompt="a man with it")  # fmt: skip
    table.write_parquet(root / "t.parquet")
    return root / "t.parquet"


def magicbrush(root: Path) -> Path:
    texts = [{"img_id": "242679", "turn_index": n, "instruction": t}
             for n, t in enumerate(("hat", "dog"), 1)]  # fmt: skip
    embedded("source_img", "target_img", texts, mask_img=cell(9, 9, 9)).write_parquet(
        root / "t.parquet"
    )
    return root / "t.parquet"


def omniedit(root: Path) -> Path:
    texts = [{"omni_edit_id": f"task_{n}", "edited_prompt_list": [t, "longer " + t]}
             for n, t in enumerate(("hat", "dog"), 1)]  # fmt: skip
    embedded("src_img", "edited_img", texts, task="addition", width=4, height=3).write_parquet(
        root / "t.parquet"
    )
    return root / "t.parquet"


def ultraedit(root: Path) -> Path:
    embedded("source_image", "edited_image", rows("hat", "dog", column="edit_prompt"),
             clip_sim_source=0.3, mask_image=cell(9, 9, 9),
             ).write_parquet(root / "t.parquet")  # fmt: skip
    return root / "t.parquet"


def hq_edit(root: Path) -> Path:
    embedded("input_image", "output_image", rows("hat", "dog", column="edit"), input="a man",
             output="a man with it", inverse_edit="undo",
             ).write_parquet(root / "t.parquet")  # fmt: skip
    return root / "t.parquet"


def imgedit(root: Path) -> Path:
    lines = []
    for n, text in enumerate(("hat", "dog"), 1):
        source = on_disk(root, f"in/{n}.png", 10 * n, 0, 0)
        target = on_disk(root, f"out/{n}.png", 0, 10 * n, 0)
        lines.append({"input_images": [source], "output_images": [target], "prompt": text})
    (root / "t.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return root / "t.jsonl"


def seed_data_edit(root: Path) -> Path:
    lines = []
    for n, text in enumerate(("hat", "dog"), 1):
        source = on_disk(root, f"{n}_0.png", 10 * n, 0, 0)
        target = on_disk(root, f"{n}_1.png", 0, 10 * n, 0)
        lines.append({"source_image": source, "target_image": target, "instruction": text})
    (root / "t.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return root / "t.jsonl"


def anyedit(root: Path) -> Path:
    embedded("image_file", "edited_file", rows("hat", "dog", column="edit"), edit_type="add",
             input="a man", output="a man with it", visual_input=None,
             ).write_parquet(root / "t.parquet")  # fmt: skip
    return root / "t.parquet"


def sharegpt(root: Path) -> Path:
    pl.DataFrame(
        [{"input_prompt": t, "input_image": [cell(10 * n, 0, 0)],
          "output_image": cell(0, 10 * n, 0)} for n, t in enumerate(("hat", "dog"), 1)]
    ).write_parquet(root / "t.parquet")  # fmt: skip
    return root / "t.parquet"


def diffsynth(root: Path) -> Path:
    lines = ["image,prompt,edit_image"]
    for n, text in enumerate(("hat", "dog"), 1):
        source = on_disk(root, f"{n}-before.png", 10 * n, 0, 0)
        target = on_disk(root, f"{n}-after.png", 0, 10 * n, 0)
        lines.append(f"{target},{text},{source}")
    (root / "metadata.csv").write_text("\n".join(lines))
    return root / "metadata.csv"


def kohya(root: Path) -> Path:
    lines = []
    for n, text in enumerate(("hat", "dog"), 1):
        source = on_disk(root, f"control/{n}.png", 10 * n, 0, 0)
        target = on_disk(root, f"images/{n}.png", 0, 10 * n, 0)
        lines.append({"image_path": target, "control_path": source, "caption": text})
    (root / "t.json").write_text(json.dumps(lines))
    return root / "t.json"


WRITERS = {
    "instructpix2pix": instructpix2pix,
    "magicbrush": magicbrush,
    "omniedit": omniedit,
    "ultraedit": ultraedit,
    "hq-edit": hq_edit,
    "imgedit": imgedit,
    "seed-data-edit": seed_data_edit,
    "anyedit": anyedit,
    "sharegpt-4o-image": sharegpt,
    "diffsynth": diffsynth,
    "kohya": kohya,
}
EXPECTED = [((10, 0, 0), (0, 10, 0), "hat"), ((20, 0, 0), (0, 20, 0), "dog")]
KEYS = {
    "magicbrush": ["pair-242679_1", "pair-242679_2"],
    "omniedit": ["task_1", "task_2"],
    "instructpix2pix": ["t-000000", "t-000001"],
}


@pytest.mark.parametrize("preset", WRITERS)
def test_a_public_dataset_by_name_and_by_recognition(preset: str, tmp_path: Path) -> None:
    table = WRITERS[preset](tmp_path)
    named = find(table, columns=preset)
    assert list(seen(named).values()) == EXPECTED
    assert named.bad == ()
    if preset in KEYS:
        assert [pair.key for pair in named.pairs] == KEYS[preset]
    if preset in ("diffsynth", "kohya"):
        with pytest.raises(ConfigError) as caught:
            find(table)
        assert f"--columns {preset}" in str(caught.value.hint)
        assert str(caught.value).count("\n") == 2, "two example rows"
    else:
        assert list(seen(find(table)).values()) == EXPECTED


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "web").mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

    handler = partial(Handler, directory=str(tmp_path / "web"))
    http = Quiet(("127.0.0.1", 0), handler)
    with serving(http):
        yield f"http://127.0.0.1:{http.server_port}"


def test_pico_banana_names_its_sources_by_address(tmp_path: Path, server: str) -> None:
    lines = []
    for n, text in enumerate(("hat", "dog", "gone"), 1):
        if text != "gone":
            on_disk(tmp_path / "web", f"{n}.png", 10 * n, 0, 0)
        target = on_disk(tmp_path, f"images/{n}.png", 0, 10 * n, 0)
        lines.append({"open_image_input_url": f"{server}/{n}.png", "text": text,
                      "output_image": target, "edit_type": "add"})  # fmt: skip
    table = tmp_path / "sft.jsonl"
    table.write_text("\n".join(map(json.dumps, lines)))
    refused = find(table)
    assert len(refused.pairs) == 0
    assert all("--allow-urls" in str(bad.error.hint) for bad in refused.bad if bad.error)
    found = find(table, allow_urls=True)
    assert isinstance(parse(found.pairs[0].source), Remote)
    good = Discovery(found.pairs[:2], (), (), (), (), "")
    assert list(seen(good).values()) == EXPECTED
    (tmp_path / "web/1.png").unlink()
    assert content_hash(found.pairs[0]), "fetched once and kept"
    with pytest.raises(Exception, match=r"3\.png: can't download it"):
        load_pair(found.pairs[2], ImageSettings())


def test_every_preset_is_tested() -> None:
    assert set(WRITERS) | {"pico-banana"} == set(presets())


def test_one_source_with_a_list_of_targets(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        [{"input_images": [cell(10, 0, 0)], "output_images": [cell(0, 10, 0), cell(0, 10, 1)],
          "prompt": ["hat", "dog"]},
         {"input_images": [cell(1, 1, 1), cell(2, 2, 2)], "output_images": [cell(3, 3, 3)],
          "prompt": ["x"]}]
    )  # fmt: skip
    frame.write_ipc(tmp_path / "t.arrow")
    found = find(tmp_path / "t.arrow")
    assert seen(found) == {
        "t-000000_1": ((10, 0, 0), (0, 10, 0), "hat"),
        "t-000000_2": ((10, 0, 0), (0, 10, 1), "dog"),
    }
    assert "2 source images" in str(found.bad[0].error)
    # In a CSV, a list is JSON.
    on_disk(tmp_path, "a.png", 10, 0, 0)
    on_disk(tmp_path, "b.png", 0, 10, 0)
    (tmp_path / "t.csv").write_text('source,target,caption\na.png,"[""b.png""]",hat\n')
    assert list(seen(find(tmp_path / "t.csv")).values()) == EXPECTED[:1]


def test_structs_that_hold_paths(tmp_path: Path) -> None:
    names = [on_disk(tmp_path, "a.png", 10, 0, 0), on_disk(tmp_path, "b.png", 0, 10, 0)]
    source, target = ({"bytes": None, "path": name} for name in names)
    pl.DataFrame([{"source_img": source, "target_img": target, "instruction": "hat"}],
                 schema_overrides={"source_img": pl.Struct({"bytes": pl.Binary, "path": pl.String}),
                                   "target_img": pl.Struct({"bytes": pl.Binary, "path": pl.String})}
                 ).write_parquet(tmp_path / "t.parquet")  # fmt: skip
    found = find(tmp_path / "t.parquet")
    assert [parse(pair.source) for pair in found.pairs] == [tmp_path / "a.png"]
    assert list(seen(found).values()) == EXPECTED[:1]


@pytest.mark.parametrize("first", ["nothing", "path", "bytes"])
@pytest.mark.parametrize("lists", [False, True])
def test_each_row_holds_bytes_or_a_path(tmp_path: Path, first: str, lists: bool) -> None:
    file = {"bytes": None, "path": on_disk(tmp_path, "a.png", 10, 0, 0)}
    gone = {"bytes": None, "path": "gone.png"}
    sources = {"nothing": {"bytes": None, "path": None}, "path": file, "bytes": cell(20, 0, 0)}
    order = [first, *(name for name in sources if name != first)]
    rows = [(name, sources[name]) for name in order] + [("gone", gone)]
    struct = pl.Struct({"bytes": pl.Binary, "path": pl.String})
    pl.DataFrame(
        [{"source": [source] if lists else source, "target": cell(0, 1, 0), "key": name}
         for name, source in rows],
        schema_overrides={"source": pl.List(struct) if lists else struct},
    ).write_parquet(tmp_path / "t.parquet")  # fmt: skip
    found = find(tmp_path / "t.parquet")
    colours = {}
    for pair in found.pairs:
        with suppress(PairError):
            colours[pair.key] = load_image(parse(pair.source), ImageSettings())[0].getpixel((0, 0))
    assert colours == {"path": (10, 0, 0), "bytes": (20, 0, 0)}


def test_a_message_does_not_hold_an_image(tmp_path: Path) -> None:
    text = base64.b64encode(bytes(60_000)).decode()
    record = {"source": {"bytes": text, "path": None}, "target": {"bytes": text}}
    (tmp_path / "t.jsonl").write_text(json.dumps(record))
    (bad,) = find(tmp_path / "t.jsonl").bad
    assert "AAAA… (80,000 characters) does not exist" in str(bad.error)
    assert len(str(bad.error)) < 500


def test_a_cell_of_a_csv_may_be_as_long_as_an_image(tmp_path: Path) -> None:
    make(tmp_path, "a.png", "b.png")
    image = base64.b64encode(bytes(300_000)).decode()
    (tmp_path / "t.csv").write_text(f"source,target\n{image},b.png\na.png,b.png\n")
    found = find(tmp_path / "t.csv")
    assert [pair.key for pair in found.pairs] == ["a"]
    (bad,) = found.bad
    assert "t.csv: row 1: source image AAAA" in str(bad.error)


def test_columns_by_the_user(tmp_path: Path) -> None:
    on_disk(tmp_path, "a.png", 10, 0, 0)
    on_disk(tmp_path, "b.png", 0, 10, 0)
    table = tmp_path / "t.csv"
    table.write_text("image,input,what,n,m\nb.png,a.png,hat,4,x\n")
    wish = "source=input,target=image,caption=what,key=n+m"
    assert seen(find(table, columns=wish)) == {"4_x": EXPECTED[0]}
    for wrong, part in (
        ("source=input,target=img", "`img`"),
        ("from=input", "'from=input'"),
        ("magic", "no preset"),
        ("magicbrush", "`source_img`"),
        ("source=input", "target"),
    ):
        with pytest.raises(ConfigError, match=part) as caught:
            find(table, columns=wrong)
        assert caught.value.hint


def test_rows_that_share_a_source_are_told_apart(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png", "sub/a.png", "d.png"):
        on_disk(tmp_path, name, 1, 1, 1)
    table = tmp_path / "t.csv"
    table.write_text("source,target\na.png,b.png\na.png,c.png\nsub/a.png,c.png\nb.png,d.png\n")
    found = find(table)
    assert [pair.key for pair in found.pairs] == ["a__b", "a__c", "sub__a", "b"]
    assert found.bad == ()


def test_a_set_in_parts_and_what_the_hub_puts_around_it(tmp_path: Path) -> None:
    folder = tmp_path / "MagicBrush" / "data"
    folder.mkdir(parents=True)
    (tmp_path / "MagicBrush/README.md").write_text("x")
    for part in range(2):
        texts = [{"img_id": f"i{part}", "turn_index": n, "instruction": "t"} for n in range(40)]
        embedded("source_img", "target_img", texts, step=5).write_parquet(
            folder / f"train-{part:05}-of-00002.parquet", row_group_size=7
        )
    found = find(tmp_path / "MagicBrush")
    assert len(found.pairs) == 80
    last = found.pairs[79]
    cell = parse(last.source)
    assert isinstance(cell, Cell)
    assert (last.key, cell.row) == ("i1_39", 39)
    colours = list(seen(Discovery(found.pairs[38:41], (), (), (), (), "")).values())
    assert [c[1][1] for c in colours] == [195, 200, 5]


def test_images_in_a_table_become_a_dataset(run: Run, tmp_path: Path) -> None:
    table = magicbrush(tmp_path)
    result = run("build-csv", table, "-d", "data", "--allow-caption-as-prompt")
    assert result.code == 0, result.stderr
    samples = read_dataset(Path("data"))
    assert [(s.key, s.prompt) for s in samples] == [
        ("pair-242679_1", "hat"),
        ("pair-242679_2", "dog"),
    ]
    assert (samples[1].frames[0] == (20, 0, 0)).all()
    assert (samples[1].frames[1] == (0, 20, 0)).all()
    mistaken = run("prepare", table, "-d", "data", "--preset", "magicbrush")
    assert mistaken.code == 2
    assert "--columns magicbrush" in mistaken.stderr
    options = ("--columns", "magicbrush", "--allow-caption-as-prompt", "--json")
    again = run("build-csv", table, "-d", "data", *options)
    assert next(s for s in again.json if s["what"] == "videos")["skipped"] == 2
    assert run("pairs", table, "--link-manifest", "linked.csv").code == 0
    assert list(seen(find(Path("linked.csv"))).values()) == EXPECTED
    text = pl.struct(bytes=pl.lit(b"no image"), path=pl.lit(None, dtype=pl.String))
    wrong = pl.read_parquet(table).with_columns(source_img=text)
    wrong.write_parquet(tmp_path / "wrong.parquet")
    bad = run("pair2video", tmp_path / "wrong.parquet", "-d", "bad")
    assert bad.code == 1
    assert "wrong.parquet#row=0&column=source_img: a text file" in bad.stdout


def saved() -> datasets.Dataset:
    features = datasets.Features(
        {"img_id": datasets.Value("string"), "turn_index": datasets.Value("int32"),
         "source_img": datasets.Image(), "target_img": datasets.Image(),
         "instruction": datasets.Value("string")}
    )  # fmt: skip
    rows = [
        {"img_id": "i", "turn_index": n, "source_img": cell(10 * n, 0, 0),
         "target_img": cell(0, 10 * n, 0), "instruction": text}
        for n, text in enumerate(("hat", "dog"), 1)
    ]  # fmt: skip
    return datasets.Dataset.from_list(rows, features=features)


def test_a_folder_of_the_datasets_library(tmp_path: Path) -> None:
    saved().save_to_disk(str(tmp_path / "one"))
    found = find(tmp_path / "one")
    assert seen(found) == dict(zip(("i_1", "i_2"), EXPECTED, strict=True))
    both = datasets.DatasetDict({"train": saved(), "dev": saved()})
    both.save_to_disk(str(tmp_path / "both"))
    with pytest.raises(ConfigError, match="splits train, dev") as caught:
        find(tmp_path / "both")
    assert str(tmp_path / "both" / "train") in str(caught.value.hint)
    assert len(find(tmp_path / "both" / "dev").pairs) == 2
    # The Arrow streams of the library's cache, too.
    (stream,) = (tmp_path / "one").glob("*.arrow")
    assert list(seen(find(stream)).values()) == EXPECTED


def test_a_stream_is_kept_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    saved().to_parquet(str(tmp_path / "set" / "train.parquet"))

    def stream() -> Any:
        return open_stream(str(tmp_path / "set"), split="train")

    folder = tmp_path / "spool"
    table = spool(stream(), folder, PairSettings(limit=1), tmp_path)
    assert seen(find(table)) == {"i_1": EXPECTED[0]}
    with table.open("a") as file:
        file.write('{"source": "torn')
    spool(stream(), folder, PairSettings(), tmp_path)
    assert seen(find(table)) == dict(zip(("i_1", "i_2"), EXPECTED, strict=True))
    assert (folder / "complete").exists()
    (tmp_path / "file").touch()
    with pytest.raises(BackendError, match="keep the dataset"):
        spool(stream(), tmp_path / "file/spool", PairSettings(), tmp_path)
    with pytest.raises(ConfigError, match="not the address of a dataset"):
        fetched(Path("hf://datasets/only-a-name"), PairSettings())
    with pytest.raises(ConfigError, match="can't open the dataset"):
        find(Path("hf://datasets/nobody/nothing"))


def test_the_missing_extra_prints_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved().save_to_disk(str(tmp_path / "one"))
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError) as caught:
        find(tmp_path / "one")
    assert caught.value.hint == "pip install 'chronoprep[datasets]'"


def test_of_several_splits_train_is_taken(tmp_path: Path) -> None:
    for split, count in (("train", 2), ("test", 1)):
        for part in range(count):
            row = {"source": [f"images/{split}{part}.png"], "target": ["images/y.png"]}
            for folder in (tmp_path, tmp_path / split):
                make(folder, f"images/{split}{part}.png", "images/y.png")
                pl.DataFrame(row).write_parquet(folder / f"{split}-{part:05}-of-{count:05}.parquet")
    assert [pair.key for pair in find(tmp_path).pairs] == ["train0", "train1"]
    assert [pair.key for pair in find(tmp_path / "test").pairs] == ["test0"]
    for file in tmp_path.glob("train-*"):
        file.rename(str(file).replace("train-", "dev-"))
    with pytest.raises(ConfigError, match="dev, test"):
        find(tmp_path)


def bytes_read() -> int:
    """By this process, from files."""
    return int(Path("/proc/self/io").read_text().split()[1])


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="Linux counts what is read")
def test_reading_a_table_in_one_piece_costs_no_more_than_the_table(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = [{"bytes": rng.bytes(20_000), "path": None} for _ in range(600)]
    table = tmp_path / "t.parquet"
    frame = pl.DataFrame({"source": images[:300], "target": images[300:]})
    frame.write_parquet(table, row_group_size=300)
    pairs = find(table).pairs
    assert len(pairs) == 300
    before = bytes_read()
    for pair in pairs:
        content_digest(parse(pair.source))
        content_digest(parse(pair.target))
    assert bytes_read() - before < 3 * table.stat().st_size


def test_images_are_read_ahead_by_their_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chronoprep.images.cells._AHEAD", 100_000)
    image = {"bytes": np.random.default_rng(0).bytes(20_000), "path": None}
    pl.DataFrame({"source": [image] * 40, "target": [image] * 40}).write_parquet(
        tmp_path / "t.parquet", row_group_size=40, compression="uncompressed"
    )
    table = open_table(tmp_path / "t.parquet")
    assert 1 <= len(table.images("source", 0)) <= 3
    pairs = find(tmp_path / "t.parquet").pairs
    assert len(pairs) == 40, "also of a table that holds nothing but images"
    assert {read_source(parse(pair.target)) for pair in pairs} == {image["bytes"]}


class Rows:
    """A stream of `datasets`, as far as it is used; its rows end in an error, if there is one."""

    def __init__(
        self, count: int, error: Exception | None = None, meet: threading.Barrier | None = None
    ) -> None:
        self.first, self.count, self.error, self.meet = 0, count, error, meet

    def skip(self, rows: int) -> Rows:
        self.first = rows
        return self

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if self.meet:
            with suppress(threading.BrokenBarrierError):
                self.meet.wait(0.2)  # for another run that streams, too
        for number in range(self.first, self.count):
            yield {"source": cell(number, 0, 0), "target": cell(0, number, 0), "id": f"k{number}"}
        if self.error:
            raise self.error


def test_two_runs_that_stream_one_set_keep_each_row_once(tmp_path: Path) -> None:
    meet = threading.Barrier(2)
    runs = [
        threading.Thread(
            target=spool, args=(Rows(20, meet=meet), tmp_path / "spool", wish, tmp_path)
        )
        for wish in (PairSettings(), PairSettings(limit=20))
    ]
    for thread in runs:
        thread.start()
    for thread in runs:
        thread.join()
    found = find(tmp_path / "spool/rows.jsonl")
    assert [pair.key for pair in found.pairs] == [f"k{number}" for number in range(20)]
    assert found.bad == ()


class ReadTimeoutOfSomeClientError(Exception):
    pass


def test_a_stream_that_breaks_off_says_so_and_goes_on(tmp_path: Path) -> None:
    where = Path("hf://datasets/some/set")
    for error in (ReadTimeoutOfSomeClientError(""), OSError("reset by peer")):
        with pytest.raises(BackendError, match="the stream broke off: ") as caught:
            spool(Rows(2, error), tmp_path / "spool", PairSettings(), where)
        assert "Run it again to go on" in str(caught.value.hint)
    table = spool(Rows(3), tmp_path / "spool", PairSettings(), where)
    assert [pair.key for pair in find(table).pairs] == ["k0", "k1", "k2"]
    missing = {"bytes": None, "path": "memory://nowhere.png"}
    gone = SimpleNamespace(skip=lambda _: [{"source": missing, "target": missing}])
    with pytest.raises(BackendError, match="the stream broke off: "):
        spool(gone, tmp_path / "other", PairSettings(), where)


def test_a_caption_in_brackets_is_text(tmp_path: Path) -> None:
    make(tmp_path, "a.png", "b.png")
    (tmp_path / "t.csv").write_text('source,target,caption,prompt\na.png,b.png,[1],"[""x""]"\n')
    line = {"source": "a.png", "target": "b.png", "caption": "[1]", "prompt": '["x"]'}
    (tmp_path / "t.jsonl").write_text(json.dumps(line))
    pl.DataFrame(line).write_parquet(tmp_path / "t.parquet")
    for table in ("t.csv", "t.jsonl", "t.parquet"):
        (pair,) = find(tmp_path / table).pairs
        assert (pair.caption, pair.prompt) == ("[1]", '["x"]')


@pytest.mark.parametrize("folder", ["plain", "[a]", "#t=1", "a#row=3&column=x", "50%23", "a*?"])
@pytest.mark.parametrize("kind", ["parquet", "arrow", "saved"])
def test_a_table_may_lie_anywhere(run: Run, tmp_path: Path, folder: str, kind: str) -> None:
    where = tmp_path / folder
    where.mkdir()
    if kind == "saved":
        saved().save_to_disk(str(where / "t"))
        table = where / "t"
    else:
        frame = embedded("source_img", "target_img", rows("hat", "dog", column="instruction"))
        table = where / f"t.{kind}"
        (frame.write_parquet if kind == "parquet" else frame.write_ipc)(table)
    assert list(seen(find(table)).values()) == EXPECTED
    assert run("pairs", table, "--link-manifest", where / "linked.csv").code == 0
    assert list(seen(find(where / "linked.csv")).values()) == EXPECTED
