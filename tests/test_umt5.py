"""Embeddings: the reference's numbers, in the form that the trainer reads."""

from __future__ import annotations

import json
import pickle
import resource
import shutil
import subprocess
import sys
from array import array
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import transformers

import plain_t5
from chronoprep import checkpoint, digest
from chronoprep.config import UMT5Settings
from chronoprep.errors import BackendError, ConfigError, PairError
from chronoprep.umt5 import Encoder, batches, clean, find_encoder, save, share
from chronoprep.umt5 import weights as weights_module
from tiny_umt5 import build_umt5, save_tokenizer, save_wan, wan_names

PROMPTS = [
    "Add a hat to the person on the left and remove the tree in the background.",
    "change the colour",
    "",
    "Add 🎩 to the café’s “cat” — ﬁne &amp;amp; dandy",
    "The user wants to change the car from red to blue. " * 4,
    "The user wants to change the car from red to blue and keep everything else. " * 40,
    "red",
]
# Layers, width, heads, width of a head, inner width: the last has heads as wide as the real one's.
SIZES = [(2, 32, 4, 8, 48), (3, 128, 4, 16, 320), (4, 256, 4, 64, 640)]


def encoder(model: Path, **changes: object) -> Encoder:
    settings = UMT5Settings.model_validate(
        {"model": str(model), "device": "cpu", "dtype": "float32", **changes}
    )
    opened = Encoder(find_encoder(settings), settings)
    opened.load()
    return opened


def tokens(model: Encoder, prompts: list[str]) -> list[array[int]]:
    return model.tokens([clean(prompt) for prompt in prompts])


def embed(model: Encoder, prompts: list[str]) -> list[torch.Tensor]:
    """In batches of similar length, like a run."""
    ids = tokens(model, prompts)
    done: dict[int, torch.Tensor] = {}
    for batch in batches([(i, len(row)) for i, row in enumerate(ids)], model.batch_tokens):
        for number, result in zip(batch, model.encode([ids[i] for i in batch]), strict=True):
            assert not isinstance(result, PairError)
            done[number] = result
    return [done[number] for number in range(len(prompts))]


class Forwards:
    """What a model computes, before it becomes bfloat16: rows by number of tokens."""

    def __init__(self, model: Encoder) -> None:
        self.rows: dict[int, torch.Tensor] = {}
        self.inputs: list[torch.Tensor] = []
        for replica in model.replicas:
            replica.model.register_forward_hook(self.keep, with_kwargs=True)

    def keep(self, _: object, __: object, arguments: dict[str, torch.Tensor], out: Any) -> None:
        self.inputs.append(arguments["input_ids"])
        for row, mask in zip(out.last_hidden_state, arguments["attention_mask"], strict=True):
            self.rows[int(mask.sum())] = row[mask == 1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_umt5(tmp_path_factory.mktemp("models") / "umt5")


@pytest.mark.parametrize("size", SIZES)
def test_the_numbers_are_those_of_the_papers(
    size: tuple[int, int, int, int, int], tmp_path: Path
) -> None:
    weights = plain_t5.random_weights(*size)
    model = encoder(save_wan(tmp_path, weights))
    forwards = Forwards(model)
    embeddings = embed(model, PROMPTS)
    assert all(ids.shape[1] % 16 == 0 for ids in forwards.inputs)
    assert len(forwards.rows) == len(PROMPTS), "lengths tell prompts apart"
    for ids, embedding in zip(tokens(model, PROMPTS), embeddings, strict=True):
        cut = list(model.tokens.cut(ids))
        for width in (0, 512):
            wanted = plain_t5.encode(weights, cut, size[2], width=width)
            assert wanted.std() > 0.5
            assert (forwards.rows[len(cut)] - wanted).abs().max() <= 1e-5
        assert embedding.dtype == torch.bfloat16
        assert torch.equal(embedding, forwards.rows[len(cut)].bfloat16())


def test_bfloat16_is_the_references_bit_by_bit_or_as_near_to_float32(tmp_path: Path) -> None:
    """The reference's way is one prompt at a time, padded to 512. Where a processor gives other
    bits in a batch, as one without arithmetic of bfloat16 was seen to do, the errors against
    float32 have to be no larger than the reference's own."""
    weights = plain_t5.random_weights(*SIZES[2], dtype=torch.bfloat16)
    place = save_wan(tmp_path, weights)
    model = encoder(place, dtype="bfloat16")
    embeddings = embed(model, PROMPTS)
    precise = encoder(place)
    exact = Forwards(precise)
    embed(precise, PROMPTS)
    for ids, embedding in zip(tokens(model, PROMPTS), embeddings, strict=True):
        cut = list(model.tokens.cut(ids))
        padded = torch.tensor([cut + [0] * (512 - len(cut))])
        mask = torch.tensor([[1] * len(cut) + [0] * (512 - len(cut))])
        with torch.no_grad():
            output = model.replicas[0].model(input_ids=padded, attention_mask=mask)
        reference = output.last_hidden_state[0, : len(cut)]
        mine, theirs = (
            (rows.float() - exact.rows[len(cut)]).abs().mean() for rows in (embedding, reference)
        )
        assert (embedding == reference).float().mean() > 0.99 or mine < 1.1 * theirs
        assert (embedding.float() - reference.float()).abs().max() < 0.1


def test_a_long_prompt_is_cut_at_512_with_its_end_token(folder: Path) -> None:
    model = encoder(folder)
    forwards = Forwards(model)
    (ids,) = tokens(model, [PROMPTS[5]])
    (embedding,) = embed(model, [PROMPTS[5]])
    assert len(ids) > 512
    assert len(embedding) == 512
    assert forwards.inputs[0].shape == (1, 512)
    assert forwards.inputs[0][0, -1] == 1, "</s>"


def test_nothing_gives_nothing(folder: Path) -> None:
    model = encoder(folder)
    assert model.encode([]) == []
    assert list(batches([], 100)) == []


def test_batches_are_level_and_within_the_budget() -> None:
    lengths = [5, 500, 17, 17, 16, 100, 90, 600, 33]
    made = list(batches([(i, n) for i, n in enumerate(lengths)], 512))
    assert sorted(i for batch in made for i in batch) == list(range(len(lengths)))
    widths = []
    for batch in made:
        width = min(512, -(-max(lengths[i] for i in batch) // 16) * 16)
        assert len(batch) == 1 or len(batch) * width <= 512
        widths.append(width)
    assert widths == sorted(widths, reverse=True), "the longest first"
    assert len(made) == 4


def test_several_devices_share_the_work_and_the_weights(folder: Path) -> None:
    one, two = encoder(folder), encoder(folder, device="cpu, cpu")
    assert two.devices == 2
    first, second = (replica.model for replica in two.replicas)
    assert first is not second
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert a.data_ptr() == b.data_ptr()
    for _ in range(2):  # each call takes the device that waited longest
        for a, b in zip(embed(one, PROMPTS), embed(two, PROMPTS), strict=True):
            assert torch.equal(a, b)


def test_short_memory_halves_the_batches_for_good(folder: Path) -> None:
    model = encoder(folder, batch_tokens=4096)
    wanted = embed(model, PROMPTS * 4)
    sizes: list[int] = []

    def small(_: object, __: object, arguments: dict[str, torch.Tensor]) -> None:
        sizes.append(arguments["input_ids"].numel())
        if sizes[-1] > 700:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.")

    model.replicas[0].model.register_forward_pre_hook(small, with_kwargs=True)
    for a, b in zip(wanted, embed(model, PROMPTS * 4), strict=True):
        torch.testing.assert_close(a, b, rtol=0.02, atol=0.02)
    refused = [number for number, size in enumerate(sizes) if size > 700]
    assert refused
    assert model.replicas[0].batch_tokens <= 700 * 2
    sizes.clear()
    embed(model, PROMPTS * 4)
    assert all(size <= 700 for size in sizes), "remembered"
    model.replicas[0].model.register_forward_pre_hook(
        lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory."))
    )
    with pytest.raises(BackendError, match="does not hold a prompt of 3 tokens"):
        model.encode(tokens(model, ["red"]))


def test_a_device_too_small_for_the_weights_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(torch.nn.Module, "to", full)
    with pytest.raises(BackendError, match="memory of cpu does not hold the encoder"):
        encoder(folder)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("  two\n words\t", "two words"),
        ("“quoted” ’s", '"quoted" \'s'),
        ("ﬁne", "fine"),
        ("a &amp;amp; b", "a & b"),
        ("a&nbsp;b", "a b"),
        ("cafe\u0301", "café"),
        ("schÃ¶n", "schön"),
        ("&nbsp;", ""),
    ],
)
def test_text_is_cleaned_as_the_reference_does(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned
    assert clean(cleaned) == cleaned


def test_the_pickle_is_what_the_trainer_reads_and_no_larger_than_its_numbers(
    folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "umt5" / "pair.pkl"
    path.parent.mkdir()
    for embedding in embed(encoder(folder), PROMPTS):
        content = save(embedding, path)
        with path.open("rb") as file:
            tensor = pickle.load(file)
        assert tensor.dtype == torch.bfloat16
        assert tensor.sum(axis=-1).nonzero().shape[0] == len(embedding)
        assert torch.equal(tensor, embedding)
        assert path.stat().st_size < tensor.numel() * 2 + 1024
        assert digest.of_file(path) == content
    assert [file.name for file in path.parent.iterdir()] == ["pair.pkl"]


def test_a_pickle_of_110_tokens_is_901_kb_and_needs_torch_alone(tmp_path: Path) -> None:
    chance = torch.Generator().manual_seed(0)
    tensor = torch.randn(110, 4096, generator=chance).bfloat16()
    save(tensor, tmp_path / "pair.pkl")
    assert (tmp_path / "pair.pkl").stat().st_size <= 901_120 + 1_024
    code = (
        "import pickle, sys\n"
        "tensor = pickle.load(open('pair.pkl', 'rb'))\n"
        "assert tensor.shape == (110, 4096), tensor.shape\n"
        "assert tensor.sum(axis=-1).nonzero().shape[0] == 110\n"
        "assert tensor.untyped_storage().nbytes() == 901120\n"
        "assert not {'chronoprep', 'transformers', 'numpy.random'} & set(sys.modules)\n"
    )
    result = subprocess.run(
        [sys.executable, "-I", "-W", "ignore", "-c", code], cwd=tmp_path, capture_output=True,
        text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr


def test_a_full_disk_keeps_the_old_pickle(folder: Path, tmp_path: Path) -> None:
    short, long = embed(encoder(folder), ["red", PROMPTS[5]])
    path = tmp_path / "pair.pkl"
    save(short, path)
    old = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(BackendError, match=r"pair\.pkl: can't write"):
            save(long, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == old
    assert [file.name for file in tmp_path.iterdir()] == ["pair.pkl"]


def test_a_shared_file_is_a_link_and_never_written_through(tmp_path: Path) -> None:
    one, other = tmp_path / "one.pkl", tmp_path / "other.pkl"
    save(torch.ones(2, 4).bfloat16(), one)
    assert share(one, other)
    assert share(one, other), "again, onto itself"
    assert one.stat().st_ino == other.stat().st_ino
    save(torch.zeros(2, 4).bfloat16(), one)
    with other.open("rb") as file:
        assert bool(pickle.load(file).all())
    assert sorted(file.name for file in tmp_path.iterdir()) == ["one.pkl", "other.pkl"]


def test_every_form_of_the_weights_gives_the_same(folder: Path, tmp_path: Path) -> None:
    wanted = embed(encoder(folder), PROMPTS[:2])
    inside = transformers.UMT5EncoderModel.from_pretrained(folder).state_dict()

    pipeline = build_umt5(tmp_path / "pipeline", layout="diffusers")
    no_index = shutil.copytree(pipeline, tmp_path / "no index")
    (no_index / "model_index.json").unlink()
    whole = tmp_path / "with decoder"
    model = transformers.UMT5ForConditionalGeneration(
        transformers.UMT5Config.from_pretrained(folder)
    )
    model.load_state_dict(inside, strict=False)
    model.save_pretrained(whole, max_shard_size="50KB")
    assert len(list(whole.glob("*.safetensors"))) > 1
    shutil.copy(folder / "tokenizer.json", whole)
    binary, old = tmp_path / "binary", tmp_path / "old"
    for place, new_form in ((binary, True), (old, False)):
        place.mkdir()
        for name in ("config.json", "tokenizer.json"):
            shutil.copy(folder / name, place)
        torch.save(inside, place / "pytorch_model.bin", _use_new_zipfile_serialization=new_form)
    wan = tmp_path / "wan"
    file = save_wan(wan, wan_names(inside))
    bare = tmp_path / "bare.pth"
    shutil.copy(file, bare)
    words = {"tokenizer": str(folder)}

    for place in (pipeline, no_index, pipeline / "text_encoder", whole, binary, old, wan, file):
        for one, another in zip(wanted, embed(encoder(place), PROMPTS[:2]), strict=True):
            assert torch.equal(one, another), place.name
    for one, another in zip(wanted, embed(encoder(bare, **words), PROMPTS[:2]), strict=True):
        assert torch.equal(one, another)


def test_no_decoder_is_built_and_one_table_serves(folder: Path, tmp_path: Path) -> None:
    model = transformers.UMT5ForConditionalGeneration(
        transformers.UMT5Config.from_pretrained(folder)
    )
    model.save_pretrained(tmp_path)
    shutil.copy(folder / "tokenizer.json", tmp_path)
    loaded = encoder(tmp_path).replicas[0].model
    names = [name for name, _ in loaded.named_parameters()]
    assert not [name for name in names if "decoder" in name or "lm_head" in name]
    assert loaded.shared.weight is loaded.encoder.embed_tokens.weight
    assert not loaded.training


def test_loading_takes_the_weights_memory_and_little_more(folder: Path, tmp_path: Path) -> None:
    """What a process takes for itself while it loads an encoder and touches every weight: in the
    file's number format, and from float32 to bfloat16, with the decoder in the file.

    The file's mapped pages come beside it: the system drops them where memory is short.
    """
    config = transformers.UMT5Config(
        vocab_size=10000, d_model=896, d_kv=64, d_ff=1792, num_layers=6, num_heads=14,
        feed_forward_proj="gated-gelu",
    )  # fmt: skip
    with torch.device("meta"):
        shapes = transformers.UMT5EncoderModel(config).state_dict()
    state = {n: torch.full(t.shape, 0.5) for n, t in shapes.items() if "embed_tokens" not in n}
    size = sum(tensor.numel() * 2 for tensor in state.values())
    save_wan(tmp_path / "wan", wan_names({n: t.bfloat16() for n, t in state.items()}))
    save_tokenizer(tmp_path / "float32")
    config.save_pretrained(tmp_path / "float32")
    state["decoder.block.0.layer.0.SelfAttention.q.weight"] = torch.ones(2000, 10000)
    safetensors.torch.save_file(state, tmp_path / "float32" / "model.safetensors", {"format": "pt"})
    del state
    code = (
        "import re, sys, threading, torch\n"
        "from pathlib import Path\n"
        "from chronoprep import umt5\n"
        "from chronoprep.config import UMT5Settings\n"
        "def status(name):\n"
        "    text = Path('/proc/self/status').read_text()\n"
        "    return int(re.search(name + r':\\s+(\\d+)', text)[1]) * 1024\n"
        "def opened(model):\n"
        "    settings = UMT5Settings(model=model, device='cpu')\n"
        "    return umt5.Encoder(umt5.find_encoder(settings), settings)\n"
        "def watch():\n"
        "    while not loaded.wait(0.002): seen.append(status('RssAnon'))\n"
        "opened(sys.argv[1]).load()\n"  # what libraries allocate once does not count
        "for model in sys.argv[2:]:\n"
        "    encoder, loaded, seen = opened(model), threading.Event(), []\n"
        "    whole, own = status('VmRSS'), status('RssAnon')\n"
        "    watching = threading.Thread(target=watch)\n"
        "    watching.start()\n"
        "    encoder.load()\n"
        "    for weight in encoder.replicas[0].model.parameters(): weight.view(torch.int16).max()\n"
        "    loaded.set()\n"
        "    watching.join()\n"
        "    print(status('VmRSS') - whole, max(*seen, status('RssAnon')) - own)\n"
        "    del encoder, weight\n"
    )
    places = [str(tmp_path / name) for name in ("wan", "float32")]
    command = [sys.executable, "-c", code, str(folder), *places]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for place, line in zip(places, result.stdout.splitlines(), strict=True):
        whole, own = map(int, line.split())
        assert whole > 0.75 * size, "all of it was in memory"
        assert own <= 1.15 * size, place
        assert place.endswith("float32") or own < 0.1 * size, "mapped, where nothing is converted"


@pytest.mark.parametrize(
    ("files", "needed"),
    [
        # Wan-AI/Wan2.1-T2V-1.3B, the default
        (
            "config.json diffusion_pytorch_model.safetensors models_t5_umt5-xxl-enc-bf16.pth "
            "Wan2.1_VAE.pth google/umt5-xxl/spiece.model google/umt5-xxl/tokenizer.json "
            "google/umt5-xxl/tokenizer_config.json README.md assets/logo.png",
            "config.json models_t5_umt5-xxl-enc-bf16.pth google/umt5-xxl/spiece.model "
            "google/umt5-xxl/tokenizer.json google/umt5-xxl/tokenizer_config.json",
        ),
        # A diffusers pipeline
        (
            "model_index.json text_encoder/config.json text_encoder/model.safetensors "
            "tokenizer/tokenizer.json transformer/config.json vae/config.json "
            "transformer/diffusion_pytorch_model-00001-of-00002.safetensors",
            "model_index.json text_encoder/config.json text_encoder/model.safetensors "
            "tokenizer/tokenizer.json",
        ),
        # google/umt5-xxl
        (
            "config.json pytorch_model-00001-of-00002.bin pytorch_model-00002-of-00002.bin "
            "pytorch_model.bin.index.json flax_model.msgpack spiece.model tokenizer.json "
            "tokenizer_config.json special_tokens_map.json README.md",
            "config.json pytorch_model-00001-of-00002.bin pytorch_model-00002-of-00002.bin "
            "pytorch_model.bin.index.json spiece.model tokenizer.json tokenizer_config.json "
            "special_tokens_map.json",
        ),
    ],
)
def test_only_an_encoder_and_its_tokenizer_are_fetched(files: str, needed: str) -> None:
    sizes = dict.fromkeys(files.split(), 1)
    assert set(checkpoint._needed(sizes, weights_module._FILES)) == set(needed.split())


def test_a_checkpoint_that_brings_code_does_not_run_it(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",)

    path = save_wan(tmp_path, {"blocks.0.norm1.weight": Trap()})  # type: ignore[dict-item]
    with pytest.raises(BackendError, match="weights can't be read"):
        encoder(path)
    assert not (tmp_path / "ran").exists()


def test_a_file_cut_short_is_said_before_torch_is_asked(tmp_path: Path) -> None:
    path = save_wan(tmp_path, plain_t5.random_weights(*SIZES[0]))
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ConfigError, match="cut short"):
        find_encoder(UMT5Settings(model=str(path), device="cpu"))
    with pytest.raises(ConfigError, match="cut short"):
        find_encoder(UMT5Settings(model=str(tmp_path), device="cpu"))


def test_the_tokenizer_may_lie_elsewhere_and_its_absence_names_the_option(
    folder: Path, tmp_path: Path
) -> None:
    bare, words = tmp_path / "bare", tmp_path / "words"
    shutil.copytree(folder, bare)
    words.mkdir()
    (bare / "tokenizer.json").rename(words / "tokenizer.json")
    with pytest.raises(ConfigError, match=r"no tokenizer") as caught:
        encoder(bare)
    assert "--tokenizer" in str(caught.value.hint)
    for place in (words, words / "tokenizer.json"):
        assert embed(encoder(bare, tokenizer=str(place)), ["red"])
    with pytest.raises(ConfigError, match=r"nowhere: no tokenizer"):
        encoder(folder, tokenizer=str(tmp_path / "nowhere"))


def test_another_models_tokenizer_is_refused(folder: Path, tmp_path: Path) -> None:
    table = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    table["model"]["vocab"] |= {f"word{i}": 320 + i for i in range(9)}
    other = tmp_path / "tokenizer.json"
    other.write_text(json.dumps(table), "utf-8")
    with pytest.raises(ConfigError, match=r"tokenizer has 3\d\d tokens, the encoder 320"):
        encoder(folder, tokenizer=str(other))


def test_a_model_that_is_no_umt5_is_refused(folder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(folder, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"model_type": "bert"}))
    with pytest.raises(ConfigError, match=r"'bert' is not a UMT5"):
        encoder(other)


def test_missing_weights_are_not_made_up(folder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(folder, tmp_path / "other")
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    part = {name: w for name, w in weights.items() if "block.1" not in name}
    safetensors.torch.save_file(part, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(BackendError, match=r"lacks \d+ of the encoder's weights"):
        encoder(other)
    part = {name: w for name, w in weights.items() if "shared" not in name}
    safetensors.torch.save_file(part, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(BackendError, match="lacks the token embeddings"):
        encoder(other)
    wan = plain_t5.random_weights(*SIZES[0])
    for name in ("blocks.1.ffn.fc1.weight", "blocks.0.attn.q.weight"):
        del wan[name]
        with pytest.raises(BackendError, match="lacks"):
            encoder(save_wan(tmp_path / "wan", wan))


def test_an_embedding_table_of_zeros_is_refused(folder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(folder, tmp_path / "other")
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    weights["shared.weight"].zero_()
    safetensors.torch.save_file(weights, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(BackendError, match="all zero"):
        encoder(other)


def test_numbers_that_are_not_finite_stop_the_run(tmp_path: Path) -> None:
    weights = plain_t5.random_weights(*SIZES[0])
    weights["norm.weight"][0] = float("inf")
    model = encoder(save_wan(tmp_path, weights))
    with pytest.raises(BackendError, match="not finite"):
        model.encode(tokens(model, ["red"]))


def test_a_row_that_sums_to_zero_is_that_prompts_failure(tmp_path: Path) -> None:
    weights = plain_t5.random_weights(*SIZES[0])
    weights["norm.weight"].zero_()
    model = encoder(save_wan(tmp_path, weights))
    (result,) = model.encode(tokens(model, ["red"]))
    assert isinstance(result, PairError)
    assert "sums to zero" in result.message


def test_a_device_that_is_not_there_is_a_wrong_option(folder: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    for device, part in (("cuda", "no GPU"), ("cpu,cuda:1", "no GPU"), ("gpu", "knows no device")):
        with pytest.raises(ConfigError, match=part):
            encoder(folder, device=device)
    found = find_encoder(UMT5Settings(model=str(folder), device="cpu"))
    with pytest.raises(ConfigError, match="torch sees no GPU"):
        Encoder(found, UMT5Settings(model=str(folder), device="cuda:1"))
