"""Prompts for using the editor: one image and a wish."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conftest import Result, photo
from degenerate import COT
from odd_server import Handler, Server, running, said, send

Run = Callable[..., Result]


def wishes(folder: Path, count: int) -> Path:
    folder.mkdir(exist_ok=True)
    with (folder / "wishes.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "prompt"])
        for number in range(count):
            photo(number, (32, 24)).save(folder / f"{number}.png")
            rows.writerow([f"{number}.png", f"Paint it in colour {number},\nplease."])
    return folder / "wishes.csv"


def texts_of(body: dict[str, Any]) -> str:
    parts = [part for turn in body["messages"] for part in turn["content"] if turn["content"]]
    return " ".join(part["text"] for part in parts if isinstance(part, dict) and "text" in part)


def images_of(body: dict[str, Any]) -> int:
    return json.dumps(body).count("data:image/")


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_wish_and_one_image_reach_the_server(run: Run, tmp_path: Path, server: Server) -> None:
    photo(1).save(tmp_path / "a.png")
    server.answer = lambda handler, _: send(handler, said(COT))
    words = ("--input-image", tmp_path / "a.png", "--endpoint", server.endpoint)
    done = run("enhance", *words, "--prompt", 'write "OPEN" on the door', "-q")
    assert (done.code, done.stdout.strip()) == (0, COT)
    (asked,) = server.asked
    assert images_of(asked) == 1
    assert 'write "OPEN" on the door' in texts_of(asked)
    assert run("enhance", *words, "--prompt", " ").code == 2


def test_a_degenerate_answer_is_refused_as_in_labelling(
    run: Run, tmp_path: Path, server: Server
) -> None:
    photo(1).save(tmp_path / "a.png")
    server.answer = lambda handler, _: send(handler, said("Sure! Here is a prompt."))
    words = ("--input-image", tmp_path / "a.png", "--endpoint", server.endpoint)
    done = run("enhance", *words, "--prompt", "add a hat", "--retries", 1)
    assert done.code == 1
    assert f"on {server.endpoint}" in done.stderr.splitlines()[1], "after what is read"
    assert "meta talk" in done.stderr
    assert len(server.asked) == 2


def test_a_table_of_200_goes_on_where_it_stopped(run: Run, tmp_path: Path, server: Server) -> None:
    table, output = wishes(tmp_path / "t", 200), tmp_path / "out" / "enhanced.jsonl"

    def answer(handler: Handler, body: dict[str, Any]) -> None:
        number = re.search(r"colour (\d+)", texts_of(body))
        assert number is not None
        if len(server.asked) > 120:
            send(handler, {"error": {"message": "the model is gone"}}, 404)
        else:
            send(handler, said(COT.replace("deep", f"deep {number[1]}")))

    words = ("enhance", table, "--output-file", output, "--json", "--endpoint")
    server.answer = answer
    assert run(*words, server.endpoint).code == 1
    kept = [line for line in read(output) if "enhanced" in line]
    assert 0 < len(kept) <= 120
    with output.open("a", encoding="utf-8") as file:
        file.write('{"image": "cut sho')  # as a killed run leaves it
    server.asked.clear()
    with running() as other:  # the first may still be reading what the stopped run sent
        other.answer = answer
        done = run(*words, other.endpoint)
        assert done.code == 0, done.stderr
        assert done.json[0]["skipped"] == len(kept)
        assert len(other.asked) == 200 - len(kept)
        lines = read(output)
        assert run(*words, other.endpoint).code == 0
        assert len(other.asked) == 200 - len(kept)
    assert [line["image"] for line in lines] == [f"{number}.png" for number in range(200)]
    assert all(f"deep {number} " in line["enhanced"] for number, line in enumerate(lines))
    assert read(output) == lines


def test_rows_that_can_not_be_used_are_told_and_the_others_done(
    run: Run, tmp_path: Path, server: Server
) -> None:
    server.answer = lambda handler, _: send(handler, said(COT))
    photo(1).save(tmp_path / "a.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    table = tmp_path / "wishes.jsonl"
    rows = [{"image": "a.png", "prompt": "Add a hat"}, {"image": "gone.png", "prompt": "x"},
            {"image": "broken.png", "prompt": "x"}, {"image": "a.png"}]  # fmt: skip
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    output = tmp_path / "enhanced.jsonl"
    done = run("enhance", table, "--output-file", output, "--endpoint", server.endpoint, "--json")
    assert done.code == 1
    assert (done.json[0]["done"], len(done.json[0]["failures"])) == (1, 3)
    assert ["enhanced" in line for line in read(output)] == [True, False, False, False]
    (tmp_path / "no.csv").write_text("picture,words\na.png,x\n")
    words = ("--output-file", output, "--endpoint", server.endpoint)
    refused = run("enhance", tmp_path / "no.csv", *words)
    assert refused.code == 2
    assert "image and prompt" in refused.stderr


def test_one_cause_for_every_row_stops_the_run(run: Run, tmp_path: Path, server: Server) -> None:
    server.answer = lambda handler, _: send(handler, said("Sure! Here is a prompt."))
    words = ("enhance", wishes(tmp_path / "t", 60), "--output-file", tmp_path / "enhanced.jsonl",
             "--endpoint", server.endpoint, "--concurrency", 2, "--retries", 0)  # fmt: skip
    planned = run(*words, "--dry-run", "--json")
    assert (planned.code, planned.json[0]["todo"]) == (0, 60)
    assert not (tmp_path / "enhanced.jsonl").exists()
    stopped = run(*words)
    assert stopped.code == 1
    assert "fail for one cause" in stopped.stderr
    assert len(server.asked) < 20
    server.answer = lambda handler, _: send(handler, said(COT))
    assert run(*words, "--json").json[0]["done"] == 60


def test_a_real_model_does_it(run: Run, tmp_path: Path, tiny: Callable[[str], Path]) -> None:
    table, output = wishes(tmp_path / "t", 5), tmp_path / "enhanced.jsonl"
    words = ("--model", tiny("qwen3_vl"), "--no-guard", "--max-new-tokens", 12)
    done = run("enhance", table, "--output-file", output, *words, "--batch-size", 2, "--json")
    assert done.code == 0, done.stderr
    assert done.json[0]["done"] == 5
    texts = [line["enhanced"] for line in read(output)]
    single = run("enhance", "--input-image", tmp_path / "t" / "3.png", *words, "-q",
                 "--prompt", "Paint it in colour 3,\nplease.")  # fmt: skip
    assert single.stdout.strip() == texts[3].strip()
    assert len(set(texts)) > 1
