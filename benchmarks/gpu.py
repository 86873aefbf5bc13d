"""All that a GPU is measured by, in one go: labels by transformers and by vLLM, and embeddings.

Run: python benchmarks/gpu.py [--docs docs/speed.md]     (`make bench-gpu`)

Random weights at the published shapes, so that nothing is downloaded; about half an hour on a card
of 80 GB. Without vLLM in this environment its rows are missing, and said to be. `--docs` writes the
tables between that file's markers.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from datetime import date
from pathlib import Path

HERE = Path(__file__).parent
RUNS = (
    ("Labels, Qwen3-VL-8B", "caption.py --shape 8b --pairs 128 --tokens 128 --rounds 1"),
    ("Labels, Qwen3-VL-30B-A3B", "caption.py --shape 30b-a3b --pairs 128 --tokens 128 --rounds 1"),
    ("Embeddings, UMT5-XXL", "umt5.py --shape xxl --prompts 3000 --repeats 1"),
)


def versions() -> str:
    def version(name: str) -> str:
        try:
            return f"{name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            return f"no {name}"

    names = ("chronoprep", "torch", "transformers", "vllm")
    return ", ".join([f"Python {platform.python_version()}", *map(version, names)])


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--docs", type=Path)
    docs = parser.parse_args().docs
    if not torch.cuda.is_available():
        parser.error("there is no GPU that torch sees")
    cards = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    cores = len(os.sched_getaffinity(0))
    parts = [f"{date.today()}: {' and '.join(cards)}, {cores} cores; {versions()}."]
    for title, command in RUNS:
        script, *options = command.split()
        print(f"{title}: {command}", file=sys.stderr)
        done = subprocess.run(
            [sys.executable, HERE / script, *options], stdout=subprocess.PIPE, text=True
        )
        said = done.stdout.rstrip() if done.returncode == 0 else "failed: see above"
        parts.append(f"{title} (`python benchmarks/{command}`):\n\n```text\n{said}\n```")
        print(parts[-1])
    if docs:
        text = docs.read_text("utf-8")
        marked = re.compile(r"(<!-- gpu -->\n).*?(\n<!-- /gpu -->)", re.DOTALL)
        report = "\n\n".join(parts)
        docs.write_text(marked.sub(lambda m: m[1] + report + m[2], text), "utf-8")


if __name__ == "__main__":
    main()
