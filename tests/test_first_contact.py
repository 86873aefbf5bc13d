"""What a newcomer meets: the program without words, `doctor`, the shell's completion, no torch."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.request import urlopen

import pytest

from conftest import EXAMPLES, Result

Run = Callable[..., Result]
BIN = Path(sys.executable).parent


def test_without_words_it_says_what_to_do_next(run: Run) -> None:
    result = run()
    assert result.code == 0
    assert len(result.stdout.splitlines()) == 6
    assert "Next: chronoprep doctor" in result.stdout
    assert run("prepare", EXAMPLES, "-d", "my data", "--prompt", "Remove the noise.").code == 0
    assert "Next: chronoprep check 'my data'" in run().stdout


def test_doctor_gives_a_remedy_for_each_no(run: Run) -> None:
    result = run("doctor", "--json", "--endpoint", "http://127.0.0.1:9/v1")
    assert result.code == 0
    able = {ability["what"]: ability["able"] for ability in result.json}
    assert able["videos"]
    assert able["transformers"]
    assert not able["server"]
    assert not able["hub"]  # it is forbidden here
    assert all(ability["able"] or ability["remedy"] for ability in result.json)


def test_doctor_fails_where_no_video_can_be_written(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for absent in ("av", "transformers"):
        monkeypatch.setitem(sys.modules, absent, None)
    monkeypatch.delitem(sys.modules, "chronoprep.video", raising=False)
    result = run("doctor")
    assert result.code == 1
    for remedy in ("pip install --force-reinstall av", "pip install --upgrade torch transformers"):
        assert remedy in result.stdout


COMPLETED = {
    "chronoprep pre": {"prepare"},
    "chronoprep prepare --model qwen3-vl-8": {"qwen3-vl-8b"},
    "chronoprep verify my-dataset --model shap": {"shapes"},
    "chronoprep caption --preset li": {"lighting"},
    "chronoprep pairs --layout k": {"kohya"},
    "chronoprep pairs --columns magic": {"magicbrush"},
    "chronoprep cot -d here --keys ro": {"rocket_balloon", "rocket_unchanged"},
    "chronoprep umt5 here --keys cat_party_hat,as": {"cat_party_hat,astronaut_sunglasses"},
    "chronoprep cot -d nowhere --keys ro": set(),
}


def test_completion_is_installed_and_offers_what_is_known(run: Run, tmp_path: Path) -> None:
    """By a real bash, whose start-up file the program writes to."""
    assert run("build-csv", EXAMPLES, "-d", "here", "--prompt", "Paint it.").code == 0
    asked = "\n".join(
        f"COMP_WORDS=({line}) COMP_CWORD={len(line.split()) - 1}; "
        '_chronoprep_completion chronoprep; echo "${COMPREPLY[@]}"'
        for line in COMPLETED
    )
    script = f"chronoprep --install-completion >&2; source ~/.bashrc\n{asked}\nexit 0"
    environment = os.environ | {
        "HOME": str(tmp_path), "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"
    }  # fmt: skip
    done = subprocess.run(
        ["bash", "--norc"], input=script, env=environment, capture_output=True, text=True
    )
    assert [set(line.split()) for line in done.stdout.splitlines()] == list(COMPLETED.values()), (
        done.stderr
    )


LIGHT = """if True:
    import sys
    sys.modules.update(torch=None, transformers=None, accelerate=None)  # as if not installed
    from chronoprep.cli import app
    for words in sys.argv[1:]:
        try:
            app(words.split())
        except SystemExit as end:
            assert not end.code, words
"""


def test_a_light_use_never_loads_torch(fault_server: Callable[..., str], tmp_path: Path) -> None:
    served = f"--endpoint {fault_server()} --model painter --no-guard"
    words = (
        "synth 2 --output shapes",
        "pairs shapes --sheet sheet.jpg",
        f"prepare {EXAMPLES} -d served {served}",
        "prepare shapes -d fixed --prompt Go.",
        "pair2video -d fixed --codec h264",
        "build-csv -d fixed",
        "check fixed",
        "verify fixed",
        "report fixed",
        "stats fixed",
        "export fixed --to musubi --output edits",
        f"enhance --input-image shapes/input/shapes-0000.png --prompt Go. {served}",
        "models",
    )
    light = (sys.executable, "-c", LIGHT)
    done = subprocess.run([*light, *words], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    review = "review fixed --port 0 --no-browser"
    with subprocess.Popen(
        [*light, review], stdout=subprocess.PIPE, text=True, cwd=tmp_path
    ) as page:
        assert page.stdout is not None
        with urlopen(page.stdout.readline().strip()) as answer:
            assert answer.status == 200
        page.kill()
