"""Embeddings: the reference's numbers, in the form that the trainer reads."""

from __future__ import annotations

import json
import pickle
import resource
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
import transformers

from chronoprep.config import UMT5Settings
from chronoprep.errors import BackendError, ConfigError
from chronoprep.umt5 import Embedding, UMT5Encoder, clean, find_encoder, save
from tiny_umt5 import build_umt5

PROMPTS = [
    "Add a hat to the person on the left and remove the tree in the background.",
    "change the colour",
    "",
    "Add 🎩 to the café’s “cat” — ﬁne &amp;amp; dandy",
    "The user wants to change the car from red to blue. " * 4,
    "The user wants to change the car from red to blue and keep everything else. " * 40,
    "red",
]


def encoder(folder: Path, **changes: object) -> UMT5Encoder:
    settings = UMT5Settings.model_validate(
        {"model": str(folder), "device": "cpu", "dtype": "float32", **changes}
    )
    return UMT5Encoder(find_encoder(settings), settings)


def embed(model: UMT5Encoder, prompts: list[str]) -> list[Embedding]:
    embeddings = [e for e in model.encode(prompts) if isinstance(e, Embedding)]
    assert len(embeddings) == len(prompts)
    return embeddings


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_umt5(tmp_path_factory.mktemp("models") / "umt5")


@pytest.fixture(scope="module")
def reference(folder: Path) -> list[torch.Tensor]:
    """The plain way: one prompt at a time, padded to 512, float32; only the prompt's own rows."""
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), pad_token="<pad>", eos_token="</s>"
    )
    model = transformers.UMT5EncoderModel.from_pretrained(folder, attn_implementation="eager")
    rows = []
    for prompt in PROMPTS:
        ids = tokenizer(clean(prompt))["input_ids"]
        ids = ids if len(ids) <= 512 else [*ids[:511], tokenizer.eos_token_id]
        padded = torch.tensor([ids + [0] * (512 - len(ids))])
        mask = torch.tensor([[1] * len(ids) + [0] * (512 - len(ids))])
        with torch.no_grad():
            hidden = model.eval()(input_ids=padded, attention_mask=mask).last_hidden_state
        rows.append(hidden[0, : len(ids)])
    return rows


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_batches_give_the_numbers_of_one_prompt_padded_to_512(
    folder: Path, reference: list[torch.Tensor], batch_size: int
) -> None:
    model = encoder(folder, batch_size=batch_size)
    exact: dict[int, torch.Tensor] = {}  # float32 rows as the model gave them, by length

    def keep(_: object, __: object, arguments: dict[str, torch.Tensor], output: object) -> None:
        hidden = output.last_hidden_state  # type: ignore[attr-defined]
        assert hidden.shape[1] % 16 == 0
        for row, mask in zip(hidden, arguments["attention_mask"], strict=True):
            exact[int(mask.sum())] = row[mask == 1]

    model.model.register_forward_hook(keep, with_kwargs=True)
    embeddings = embed(model, PROMPTS)
    assert len({len(rows) for rows in reference}) == len(PROMPTS), "lengths tell prompts apart"
    for wanted, embedding in zip(reference, embeddings, strict=True):
        assert embedding.tensor.dtype == torch.bfloat16
        assert embedding.tensor.shape == wanted.shape
        assert (exact[len(wanted)] - wanted).abs().max() <= 1e-5
        assert (embedding.tensor.float() - wanted).abs().max() <= wanted.abs().max() / 128


def test_the_order_of_the_prompts_changes_nothing(folder: Path) -> None:
    model = encoder(folder, batch_size=2)
    forth, back = embed(model, PROMPTS), embed(model, PROMPTS[::-1])
    for one, other in zip(forth, back[::-1], strict=True):
        torch.testing.assert_close(one.tensor, other.tensor, rtol=0.01, atol=0.01)
    assert [e.tokens for e in forth] == [e.tokens for e in back[::-1]]


def test_a_long_prompt_is_cut_at_512_with_its_end_token_and_says_so(folder: Path) -> None:
    model = encoder(folder)
    short, long = embed(model, [PROMPTS[0], PROMPTS[5]])
    assert not short.truncated
    assert short.tokens == len(short.tensor)
    assert long.truncated
    assert long.tokens == len(model.token_ids(PROMPTS[5])) > 512
    assert len(long.tensor) == 512
    seen: list[torch.Tensor] = []
    model.model.register_forward_pre_hook(
        lambda _, __, arguments: seen.append(arguments["input_ids"]), with_kwargs=True
    )
    model.encode([PROMPTS[5]])
    assert seen[0].shape == (1, 512)
    assert seen[0][0, -1] == 1, "</s>"


def test_no_prompts_give_no_embeddings(folder: Path) -> None:
    assert encoder(folder).encode([]) == []


def test_prompts_that_mean_the_same_run_once(folder: Path) -> None:
    model = encoder(folder, batch_size=1)
    calls: list[int] = []
    model.model.register_forward_hook(lambda *_: calls.append(1))
    embeddings = embed(model, ["a  red hat", "blue", "a red hat", " a red\nhat ", "blue"])
    assert len(calls) == 2
    assert torch.equal(embeddings[0].tensor, embeddings[3].tensor)
    assert not torch.equal(embeddings[0].tensor[0], embeddings[1].tensor[0])


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
    for embedding in embed(encoder(folder), PROMPTS):
        save(embedding, path)
        with path.open("rb") as file:
            tensor = pickle.load(file)
        assert tensor.dtype == torch.bfloat16
        assert tensor.sum(axis=-1).nonzero().shape[0] == len(embedding.tensor)
        assert torch.equal(tensor, embedding.tensor)
        assert path.stat().st_size < tensor.numel() * 2 + 1000
    assert [file.name for file in path.parent.iterdir()] == ["pair.pkl"]


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


def test_every_layout_gives_the_same(folder: Path, tmp_path: Path) -> None:
    wanted = embed(encoder(folder), PROMPTS[:2])

    pipeline = build_umt5(tmp_path / "pipeline", layout="diffusers")
    no_index = shutil.copytree(pipeline, tmp_path / "no index")
    (no_index / "model_index.json").unlink()
    whole = tmp_path / "with decoder"
    model = transformers.UMT5ForConditionalGeneration(
        transformers.UMT5Config.from_pretrained(folder)
    )
    inside = transformers.UMT5EncoderModel.from_pretrained(folder).state_dict()
    model.load_state_dict(inside, strict=False)
    model.save_pretrained(whole)
    shutil.copy(folder / "tokenizer.json", whole)
    binary = tmp_path / "binary"
    binary.mkdir()
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(folder / name, binary)
    torch.save(inside, binary / "pytorch_model.bin")

    for place in (pipeline, no_index, pipeline / "text_encoder", whole, binary):
        for one, other in zip(wanted, embed(encoder(place), PROMPTS[:2]), strict=True):
            assert torch.equal(one.tensor, other.tensor), place.name


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
    weights = {name: w for name, w in weights.items() if "block.1" not in name}
    safetensors.torch.save_file(weights, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(BackendError, match=r"lacks \d+ of the encoder's weights"):
        encoder(other)


def test_an_embedding_table_of_zeros_is_refused(folder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(folder, tmp_path / "other")
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    weights["shared.weight"].zero_()
    safetensors.torch.save_file(weights, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(BackendError, match="all zero"):
        encoder(other)


def test_numbers_that_are_not_finite_stop_the_run(folder: Path) -> None:
    model = encoder(folder)
    with torch.no_grad():
        model.model.encoder.final_layer_norm.weight[0] = float("inf")
    with pytest.raises(BackendError, match="not finite"):
        model.encode(["red"])


def test_a_gpu_that_is_not_there_is_a_wrong_option(folder: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(ConfigError, match="no GPU"):
        encoder(folder, device="cuda")
    found = find_encoder(UMT5Settings(model=str(folder), device="cpu"))
    with pytest.raises(ConfigError, match="--device cuda:1"):
        UMT5Encoder(found, UMT5Settings(model=str(folder), device="cuda:1"))
