"""The review page's server: what it shows, what becomes of decisions, and whom it answers."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from chronoprep.config import Settings
from chronoprep.dataset import Dataset, Label, Review, Score
from chronoprep.dataset.events import text_digest
from conftest import HANGS, Result
from fault_server import caption_of, cot_of, fingerprint

Run = Callable[..., Result]
HERE = "http://127.0.0.1:8484"


def pairs_of(folder: Path, keys: list[str], size: int = 24) -> Path:
    """A folder of pairs of which each has its own colours."""
    for number, key in enumerate(keys):
        for side, colour in (("input", (30 * number % 250, 90, 40)), ("output", (20, 200, 90))):
            path = folder / side / f"{key}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (size, size), colour).save(path)
    return folder


def dataset_of(
    folder: Path, run: Run, count: int = 4, *, scores: Callable[[int], float] | None = None
) -> Dataset:
    """A dataset of labelled pairs, judged by verify's rules where scores are given."""
    from chronoprep.workflows.verify import RULES

    keys = [f"pair-{number:03}" for number in range(count)]
    rows = [
        {
            "key": key, "source": f"input/{key}.png", "target": f"output/{key}.png",
            "caption": f"Paint {key} green.", "prompt": f"The user wants to paint {key} green.",
        }
        for key in keys
    ]  # fmt: skip
    pairs = pairs_of(folder / "pairs", keys)
    table = pairs / "pairs.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert run("build-csv", table, "-d", folder / "data").code == 0
    dataset = Dataset(folder / "data")
    if scores is not None:
        dataset.append(
            Score(
                key=key,
                of=text_digest(dataset.journal.state(key).text),
                by=RULES,
                scores={"side": scores(number)},
                reasons=("says left; the change is on the right",),
                edit="recolour",
            )
            for number, key in enumerate(keys)
        )
    return dataset


def site_of(dataset: Path, reviewer: str = "Ada", **settings: Any) -> Any:
    """The page's server without a socket."""
    from chronoprep.review.desk import Desk
    from chronoprep.review.pictures import Pictures
    from chronoprep.review.server import Site
    from chronoprep.workflows import Silent, review

    chosen = Settings.model_validate(settings)
    run = review._run(dataset, chosen, Silent())
    desk = Desk(run.dataset, chosen, reviewer, review._hooks(run))
    return Site(desk, Pictures(chosen, follow_links=chosen.review.follow_links))


def client_of(site: Any) -> TestClient:
    """A browser that has opened the printed address."""
    client = TestClient(site.app, base_url=HERE)
    assert client.get(f"/?token={site.token}").status_code == 200
    return client


def decide(client: TestClient, key: str, action: str, **more: Any) -> Any:
    pair = client.get(f"/api/pair/{key}").json()
    body = {"action": action, "revision": pair["revision"], "seen": pair["seen"], **more}
    answer = client.post(f"/api/pair/{key}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_each_decision_is_an_event_and_metadata_csv_follows(tmp_path: Path, run: Run) -> None:
    dataset = dataset_of(tmp_path, run, 4, scores=lambda number: 0.9 - number / 10)
    site = site_of(dataset.folder)
    client = client_of(site)
    rows = client.get("/api/list?show=suspects").json()
    assert [row["key"] for row in rows["rows"]] == [f"pair-{n:03}" for n in range(4)], "worst first"
    why = {"error": "place", "severity": "major", "reason": "it is on the left"}
    decide(client, "pair-000", "reject", **why)
    decide(client, "pair-001", "accept")
    edited = decide(client, "pair-002", "edit", caption_cot="A human's prompt.")
    assert edited["cot"] == "A human's prompt."
    assert edited["model"]["cot"] == "The user wants to paint pair-002 green."
    assert [row["key"] for row in client.get("/api/list?show=suspects").json()["rows"]] == [
        "pair-003"
    ]
    rejected = Dataset(dataset.folder).journal.state("pair-000")
    assert rejected.status == "rejected"
    assert rejected.review is not None
    assert rejected.review.model_dump(include={*why, "reviewer"}) == why | {"reviewer": "Ada"}
    said = client.post("/api/table", json={}).json()["notes"]
    assert said[0] == "metadata.csv: 3 rows"
    text = dataset.csv.read_text()
    assert "A human's prompt." in text
    assert "pair-000" not in text
    decide(client, "pair-000", "undo")
    client.post("/api/table", json={})
    assert "pair-000" in dataset.csv.read_text()


def test_a_stale_decision_is_told_what_changed_and_not_written(tmp_path: Path, run: Run) -> None:
    dataset = dataset_of(tmp_path, run, 1)
    ada = client_of(site_of(dataset.folder))
    bob = client_of(site_of(dataset.folder, "Bob"))  # another process, for all they know
    saw = bob.get("/api/pair/pair-000").json()
    decide(ada, "pair-000", "edit", caption_cot="Ada's prompt.")
    body = {"action": "edit", "caption_cot": "Bob's prompt.", "revision": saw["revision"]}
    answer = bob.post("/api/pair/pair-000", json={**body, "seen": saw["seen"]})
    assert answer.status_code == 409
    assert [(line["who"], line["what"]) for line in answer.json()["since"]] == [
        ("Ada", "changed the text")
    ]
    assert answer.json()["pair"]["cot"] == "Ada's prompt."
    assert Dataset(dataset.folder).journal.state("pair-000").text.cot == "Ada's prompt."
    now = bob.get("/api/pair/pair-000").json()["revision"]
    assert bob.post("/api/pair/pair-000", json={**body, "revision": now}).status_code == 200


def test_of_many_decisions_at_once_on_one_pair_one_is_written(tmp_path: Path, run: Run) -> None:
    dataset = dataset_of(tmp_path, run, 1)
    client = client_of(site_of(dataset.folder))
    saw = client.get("/api/pair/pair-000").json()["revision"]
    body = {"action": "accept", "revision": saw}
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(client.post, "/api/pair/pair-000", json=body) for _ in range(8)]
    assert sorted(one.result().status_code for one in asked) == [200] + [409] * 7


def test_what_a_run_writes_meanwhile_is_shown_and_does_not_outrank_a_human(
    tmp_path: Path, run: Run
) -> None:
    dataset = dataset_of(tmp_path, run, 2)
    client = client_of(site_of(dataset.folder))
    version = client.get("/api/overview").json()["version"]
    decide(client, "pair-000", "edit", caption_cot="A human's prompt.")
    for key in ("pair-000", "pair-001"):
        dataset.append([Label(key=key, caption="New.", caption_cot="A later label.")])
    news = client.get(f"/api/news?version={version}").json()
    assert news["keys"] == ["pair-000", "pair-001"]
    assert client.get("/api/pair/pair-000").json()["cot"] == "A human's prompt."
    assert client.get("/api/pair/pair-001").json()["cot"] == "A later label."
    found = client.get("/api/list?text=LATER").json()["rows"]
    assert [row["key"] for row in found] == ["pair-001"]


def test_scores_that_come_later_are_counted_in_when_asked(tmp_path: Path, run: Run) -> None:
    dataset = dataset_of(tmp_path, run, 3, scores=lambda number: 0.9 - number / 4)
    client = client_of(site_of(dataset.folder))
    assert client.get("/api/pair/pair-000").json()["score"] is not None
    edited = decide(client, "pair-000", "edit", caption_cot="A human's prompt.")
    assert edited["score"] is None, "it was of the old text"
    assert client.get("/api/overview").json()["outdated"] == 0
    new = dataset.journal.state("pair-001").scores[0].model_copy(
        update={"key": "pair-000", "scores": {"colour": 0.2},
                "of": text_digest(Dataset(dataset.folder).journal.state("pair-000").text)}
    )  # fmt: skip
    dataset.append([new])
    client.get("/api/news")
    assert client.get("/api/overview").json()["outdated"] == 1
    client.post("/api/scores", json={})
    assert client.get("/api/overview").json()["outdated"] == 0
    assert client.get("/api/pair/pair-000").json()["score"] == pytest.approx(0.97 * 0.2, abs=1e-3)
    found = client.get("/api/list?finding=colour").json()["rows"]
    assert [row["key"] for row in found] == ["pair-000"]


def test_pictures_that_were_exchanged_since_are_told(tmp_path: Path, run: Run) -> None:
    dataset = dataset_of(tmp_path, run, 1)
    from chronoprep.images.load import content_hash

    (entry,) = dataset.index.entries()
    dataset.append([Label(key="pair-000", caption="x", caption_cot="y",
                          images=content_hash(entry.pair))])  # fmt: skip
    client = client_of(site_of(dataset.folder))
    before = client.get("/api/pair/pair-000").json()
    assert not before["stale"]
    Image.new("RGB", (30, 30), "red").save(entry.target)
    after = client.get("/api/pair/pair-000").json()
    assert after["stale"]
    assert after["stamp"] != before["stamp"], "the page fetches it anew"


def test_exchanged_roles_turn_the_pair_in_the_next_run(tmp_path: Path, run: Run) -> None:
    dataset = dataset_of(tmp_path, run, 2)
    client = client_of(site_of(dataset.folder))
    before = client.get("/api/pair/pair-001").json()
    turned = decide(client, "pair-001", "swap")
    assert (turned["source"], turned["target"]) == (before["target"], before["source"])
    assert turned["turned"]
    sides = {s: client.get(f"/picture/pair-001/{s}/file").content for s in ("source", "target")}
    assert run("pair2video", "-d", dataset.folder, "--codec", "lossless").code == 0
    from chronoprep.video import read_frames

    frames = read_frames(dataset.video("pair-001"))
    assert tuple(frames[0][0, 0]) == (20, 200, 90), "the target's colour is seen first now"
    entries = {entry.key: entry for entry in Dataset(dataset.folder).index.entries()}
    assert entries["pair-001"].source == before["target"]
    # Looking for pairs anew finds them as they lie: the human's word stands.
    assert run("build-csv", tmp_path / "pairs/pairs.jsonl", "-d", dataset.folder).code == 0
    entries = {entry.key: entry for entry in Dataset(dataset.folder).index.entries()}
    assert entries["pair-001"].source == before["target"]
    assert entries["pair-000"].source.endswith("input/pair-000.png")
    again = client_of(site_of(dataset.folder))
    assert again.get("/picture/pair-001/source/file").content == sides["source"]
    back = decide(again, "pair-001", "swap")
    assert (back["source"], back["target"]) == (before["source"], before["target"])


def test_an_endpoint_writes_a_new_label_in_the_background(
    tmp_path: Path, run: Run, fault_server: Callable[..., str]
) -> None:
    dataset = dataset_of(tmp_path, run, 2)
    client = client_of(site_of(dataset.folder, vlm={"endpoint": fault_server()}))
    assert client.get("/api/overview").json()["relabel"]
    decide(client, "pair-000", "reject")
    new = relabelled(client, "pair-000")
    assert (new["status"], new["verdict"], new["relabel_failed"]) == ("ok", None, None)
    assert (new["caption"], new["cot"]) == (caption_of(own_of(new)), cot_of(own_of(new)))
    # Of a human's own instruction, the prompt is written.
    own = own_of(client.get("/api/pair/pair-001").json())
    decide(client, "pair-001", "edit", caption=caption_of(own))
    expanded = relabelled(client, "pair-001")
    assert (expanded["caption"], expanded["cot"]) == (caption_of(own), cot_of(own))
    assert (expanded["verdict"], expanded["provenance"]["origin"]) == ("edit", "human")


def own_of(pair: Any) -> str:
    """What the server knows a pair's pictures by."""
    return fingerprint(*(Image.open(pair[side]) for side in ("source", "target")))


def relabelled(client: TestClient, key: str) -> Any:
    """A pair once the model has answered."""
    pair = decide(client, key, "relabel")
    late = time.monotonic() + HANGS
    while pair["relabelling"]:
        assert time.monotonic() < late
        time.sleep(0.05)
        pair = client.get(f"/api/pair/{key}").json()
    return pair


def test_sixty_accepted_labels_tell_the_rate_of_false_alarms(tmp_path: Path, run: Run) -> None:
    dataset = dataset_of(tmp_path, run, 70, scores=lambda number: number / 100)
    client = client_of(site_of(dataset.folder))
    for number in range(59):
        decide(client, f"pair-{number:03}", "accept")
    calibration = client.get("/api/overview?above=0.5").json()["calibration"]
    assert (calibration["accepted"], "rate" in calibration) == (59, False)
    decide(client, "pair-059", "accept")
    calibration = client.get("/api/overview?above=0.5").json()["calibration"]
    scores = [0.97 * number / 100 for number in range(70)]
    alarms = sum(score > 0.5 for score in scores[:60])
    assert calibration["rate"] == pytest.approx(alarms / 60)
    low, high = calibration["between"]
    assert low < alarms / 60 < high
    assert calibration["left"] == sum(score > 0.5 for score in scores[60:])
    assert calibration["threshold"] == pytest.approx(scores[54], abs=1e-3)


OUTSIDE = {
    "another host": {"headers": {"host": "evil.example:8484"}},
    "a name that ends alike": {"headers": {"host": "127.0.0.1.evil.example"}},
    "another origin": {"headers": {"origin": "https://evil.example"}},
    "another port's page": {"headers": {"origin": "http://127.0.0.1:3000"}},
    "no origin": {"headers": {"origin": "null"}},
    "an image of another site": {"headers": {"sec-fetch-site": "cross-site"}},
    "an image of another port": {"headers": {"sec-fetch-site": "same-site"}},
    "a wrong token": {"cookies": {"chronoprep-8484": "x" * 32}},
    "no token": {"cookies": {}},
}


@pytest.mark.parametrize(
    "path", ["/", "/api/overview", "/parts/app.js", "/picture/pair-000/source/file"]
)
@pytest.mark.parametrize("case", OUTSIDE)
def test_who_does_not_come_from_the_page_is_not_answered(
    case: str, path: str, outside: tuple[Any, Any]
) -> None:
    site, token = outside
    client = TestClient(site.app, base_url=HERE)
    client.cookies.update(OUTSIDE[case].get("cookies", {"chronoprep-8484": token}))
    answer = client.get(path, headers=OUTSIDE[case].get("headers", {}))
    assert answer.status_code == 403
    assert "error" in answer.json()
    assert "set-cookie" not in answer.headers


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, str]:
    from chronoprep.cli import app

    folder = tmp_path_factory.mktemp("outside")

    def run(*args: object) -> Any:
        with pytest.raises(SystemExit) as stopped:
            app([str(arg) for arg in args])
        return Result(int(stopped.value.code or 0), "", "")

    site = site_of(dataset_of(folder, run, 1).folder)
    return site, site.token


def test_a_form_of_another_site_can_not_decide(outside: tuple[Any, str]) -> None:
    site, _ = outside
    client = client_of(site)
    revision = client.get("/api/pair/pair-000").json()["revision"]
    body = json.dumps({"action": "reject", "revision": revision})
    for kind in (
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
    ):
        answer = client.post("/api/pair/pair-000", content=body, headers={"content-type": kind})
        assert answer.status_code == 403
    assert client.get("/api/pair/pair-000").json()["verdict"] is None


@pytest.mark.parametrize(
    "path",
    ["/picture/../../etc/passwd/source/file", "/picture/%2e%2e%2f%2e%2e%2fetc%2fpasswd/source/file",
     "/picture/..%2fpair-000/source/file", "/picture//etc/passwd/source/file",
     "/picture/%2Fetc%2Fpasswd/source/file", "/picture/pair-000/source/../../../x",
     "/picture/pair-000%00/source/file", "/picture/pair-000/source/other",
     "/picture/pair-000/x/file", "/parts/../server.py", "/parts/%2e%2e%2fserver.py",
     "/parts/..%5cserver.py", "/parts/desk.py", "/api/pair/..%2f..%2fetc%2fpasswd", "/labels.jsonl",
     "/api/pair/pair-001"],
)  # fmt: skip
def test_nothing_but_pairs_by_their_key_is_served(path: str, outside: tuple[Any, str]) -> None:
    client = client_of(outside[0])
    assert client.get(path).status_code in (403, 404)


def test_the_page_may_load_nothing_from_elsewhere_and_keeps_its_token(
    outside: tuple[Any, str],
) -> None:
    site, token = outside
    client = TestClient(site.app, base_url=HERE)
    answer = client.get(f"/?token={token}")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert token not in answer.text
    for name in re.findall(r"/parts/([\w.]+)", answer.text):
        assert client.get(f"/parts/{name}").status_code == 200
    page = Path(sys.modules["chronoprep.review"].__file__ or "").parent / "page"
    for file in page.iterdir():
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", file.read_text("utf-8")), file
        assert "innerHTML" not in file.read_text("utf-8")


def test_a_link_out_of_the_folder_of_pairs_is_not_followed(tmp_path: Path, run: Run) -> None:
    elsewhere = pairs_of(tmp_path / "elsewhere", ["secret"])
    pairs = pairs_of(tmp_path / "real", ["own", "led"])
    (pairs / "input/led.png").unlink()
    (pairs / "input/led.png").symlink_to(elsewhere / "input/secret.png")
    (pairs / "input/own.png").rename(pairs / "own-file.png")
    (pairs / "input/own.png").symlink_to("../own-file.png")
    (tmp_path / "pairs").symlink_to(pairs)
    data = tmp_path / "data"
    assert run("pair2video", tmp_path / "pairs", "-d", data).code == 0
    client = client_of(site_of(data))
    for view in ("file", "frame", "thumb"):
        answer = client.get(f"/picture/led/source/{view}")
        assert answer.status_code == 422
        assert "link" in answer.json()["error"]
        assert client.get(f"/picture/own/source/{view}").status_code == 200, "a link within it"
    assert client.get("/api/pair/led/difference").status_code == 422
    allowed = client_of(site_of(data, review={"follow_links": True}))
    assert allowed.get("/picture/led/source/file").status_code == 200


def test_decisions_that_are_none_are_refused(outside: tuple[Any, str]) -> None:
    client = client_of(outside[0])
    pair = client.get("/api/pair/pair-000").json()
    for body in (
        {}, [], {"action": "delete", "revision": ""}, {"action": "accept"},
        {"action": "reject", "revision": pair["revision"], "error": "ugly"},
        {"action": "edit", "revision": pair["revision"], "caption": "a\0b"},
        {"action": "edit", "revision": pair["revision"], "caption": "  "},
        {"action": "edit", "revision": pair["revision"], "caption": "x" * 30_000},
        {"action": "accept", "revision": pair["revision"], "key": "other"},
        {"action": "undo", "revision": pair["revision"]},
        {"action": "relabel", "revision": pair["revision"]},
    ):  # fmt: skip
        answer = client.post("/api/pair/pair-000", json=body)
        assert answer.status_code == 400, body
        assert answer.json()["error"]
    for wrong in ("show=x", "order=x", "above=x", "offset=x"):
        assert client.get(f"/api/list?{wrong}").status_code == 400
    too_long = client.post("/api/pair/pair-000", content=b" " * 2_000_000,
                           headers={"content-type": "application/json"})  # fmt: skip
    assert too_long.status_code == 413
    assert client.get("/api/pair/pair-000").json()["history"] == pair["history"]


def serve(dataset: Path, *more: str) -> tuple[subprocess.Popen[str], str, str]:
    """The command in a process of its own, its address and its token."""
    command = [sys.executable, "-m", "chronoprep", "review", str(dataset), "--port", "0", *more]
    process = subprocess.Popen(
        [*command, "--no-browser"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    with process.stdout as lines:  # it says nothing else
        line = lines.readline().strip()
    address, _, token = line.partition("/?token=")
    return process, address, token


def test_a_real_server_listens_on_this_machine_alone_and_ends_by_ctrl_c(
    tmp_path: Path, run: Run
) -> None:
    import httpx2

    dataset = dataset_of(tmp_path, run, 1)
    process, address, token = serve(dataset.folder, "--reviewer", "Ada")
    try:
        assert address.startswith("http://127.0.0.1:")
        with httpx2.Client(base_url=address, timeout=HANGS) as client:
            assert client.get("/").status_code == 403
            assert client.get("/", params={"token": token}).status_code == 200
            pair = client.get("/api/pair/pair-000").json()
            body = {"action": "accept", "revision": pair["revision"]}
            assert client.post("/api/pair/pair-000", json=body).json()["reviewer"] == "Ada"
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(HANGS) == 130
    assert Dataset(dataset.folder).journal.state("pair-000").verdict == "accept"


def test_a_taken_port_and_a_dataset_without_pairs_are_told(tmp_path: Path, run: Run) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        dataset = dataset_of(tmp_path, run, 1)
        result = run("review", dataset.folder, "--port", port)
    assert result.code == 2
    assert "--port 0" in result.stderr
    result = run("review", tmp_path / "nothing")
    assert result.code == 2
    assert "knows no pairs" in result.stderr


@pytest.mark.slow
def test_a_server_that_is_killed_has_lost_no_decision_that_it_acknowledged(
    tmp_path: Path, run: Run
) -> None:
    import httpx2

    dataset = dataset_of(tmp_path, run, 60)
    acknowledged = 0
    for moment in range(20):
        process, address, token = serve(dataset.folder)
        timer = threading.Timer(0.0015 * moment, os.kill, (process.pid, signal.SIGKILL))
        last: dict[str, str] = {}
        try:
            with httpx2.Client(base_url=address, timeout=HANGS) as client:
                client.get("/", params={"token": token})
                for number in range(100_000):
                    if number == 1 + moment % 5:
                        timer.start()  # somewhere within this decision or the next ones
                    key = f"pair-{number % 60:03}"
                    pair = client.get(f"/api/pair/{key}").json()
                    body = {"action": "edit", "caption_cot": f"{moment} {number}"}
                    body["revision"] = pair["revision"]
                    answer = client.post(f"/api/pair/{key}", json=body)
                    if answer.status_code == 200:
                        last[key] = f"{moment} {number}"
                        acknowledged += 1
        except httpx2.HTTPError:
            pass
        finally:
            timer.cancel()
            process.kill()
            process.wait()
        journal = Dataset(dataset.folder).journal
        for key, text in last.items():
            said = [e.caption_cot for e in journal.events(key) if isinstance(e, Review)]
            assert text in said
    assert acknowledged >= 20 * 3
