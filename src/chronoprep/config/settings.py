"""Every setting and its default."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from chronoprep.errors import ConfigError

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
UMT5Dtype = Literal["auto", "float32", "bfloat16"]  # float16 overflows in this encoder
Fit = Literal["crop", "pad", "stretch", "error"]
Layout = Literal["auto", "folders", "suffixes", "pair-folders", "kohya", "instructpix2pix", "clips"]
Codec = Literal["lossless", "h264", "copy"]
Chroma = Literal["444", "420"]
Check = Literal["all", "sample", "none"]


class Section(BaseModel):
    """Settings that belong together; the title stands above them in the help."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PairSettings(Section, title="Pairs"):
    """Which pairs to take."""

    layout: Layout = Field("auto", description="How the pairs lie in their folder.")
    source_glob: str | None = Field(
        None, description="Images before the edit, such as 'raw/*.jpg'; `*` pairs them up."
    )
    target_glob: str | None = Field(
        None, description="Images after the edit, such as 'final/*_v*.png'."
    )
    regex: str | None = Field(
        None, description="Of paths: groups key, and source or target; optionally edit."
    )
    frames: str = Field(
        "first,last", description="Of clips: source and target, also as seconds: 0.5,2."
    )
    columns: str | None = Field(
        None,
        description="Of a table: a public dataset's name, such as magicbrush, or "
        "source=a,target=b,caption=c,key=d; of a list, source=a[0].",
    )
    allow_urls: bool = Field(False, description="Download images that a table names by address.")
    strict: bool = Field(False, description="Files or rows that are in no pair are an error.")
    limit: int | None = Field(None, ge=1, description="Take only the first N pairs.")


class ImageSettings(Section, title="Images"):
    """How the model sees an image."""

    max_resolution: int = Field(1080, ge=16, description="Shortest edge in pixels, at most.")
    max_long_edge: int = Field(
        3240, ge=16, description="Longest edge in pixels, at most: bounds panoramas."
    )
    max_pixels: int = Field(
        100_000_000, ge=1, description="Larger files are refused before they are decoded."
    )
    background: str = Field("white", description="Colour behind transparent pixels.")
    fit: Fit = Field("crop", description="How a target of another size meets the source's frame.")
    align: bool = Field(
        False, description="Move a shifted or zoomed target back over its source; crop both."
    )
    colour_management: bool = Field(
        True,
        description="Convert colour profiles and HDR to sRGB; without, numbers are taken as they "
        "are.",
    )


class VLMSettings(Section, title="Model"):
    """The vision-language model that writes the labels."""

    model: str = Field("Qwen/Qwen3-VL-30B-A3B-Instruct", description="Registry name, id or folder.")
    revision: str | None = Field(None, description="Branch, tag or commit on the hub.")
    backend: Literal["auto", "transformers", "vllm", "openai"] = Field(
        "auto",
        description="auto: openai where an endpoint is given; vllm where it is installed and works "
        "with the GPU and the model; else transformers.",
    )
    endpoint: str | None = Field(
        None, description="An OpenAI-compatible server, such as http://localhost:8000/v1."
    )
    concurrency: int | None = Field(
        None, ge=1, description="Pairs in flight: 32 on a server, 256 in vLLM."
    )
    vllm: dict[str, Any] = Field(
        default_factory=dict, description="More arguments for vllm.LLM: a table [vlm.vllm]."
    )
    request_timeout: float = Field(
        300.0, gt=0, description="Seconds that a server may take for one answer."
    )
    dtype: Dtype = Field("auto", description="auto: as the checkpoint was saved.")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:N or mps.")
    batch_size: int | None = Field(
        None, ge=1, description="Pairs a batch; by default what the device takes."
    )
    max_new_tokens: int = Field(512, ge=1, description="Longest answer of a stage, in tokens.")
    thinking_tokens: int | None = Field(
        None,
        ge=0,
        description="Tokens that a reasoning model may think beside its answer; 0 asks it not to.",
    )
    reasoning_effort: str | None = Field(
        None,
        description="How much a server's reasoning model thinks, in its own words: none, low, …",
    )

    @property
    def token_limit(self) -> int:
        """New tokens of one answer, thoughts included."""
        return self.max_new_tokens + (self.thinking_tokens or 0)


class LabelSettings(Section, title="Labels"):
    """How labels are asked for and which ones become prompts."""

    preset: str | None = Field(
        None,
        description="Prompt templates: default, detail, lighting, video, compact; else the model's "
        "own.",
    )
    caption_prompt: Path | None = Field(None, description="Own template for stage 1.")
    cot_prompt: Path | None = Field(None, description="Own template for stage 2.")
    prompt: str | None = Field(
        None,
        description="One fixed prompt for every pair; {caption} in it is the pair's own caption.",
    )
    guard: bool = Field(True, description="Refuse degenerate answers.")
    retries: int = Field(2, ge=0, description="Further draws for an answer that was refused.")
    allow_caption_as_prompt: bool = Field(
        False, description="A label without a CoT trains on its caption."
    )


class VideoSettings(Section, title="Videos"):
    """The 2-frame videos."""

    codec: Codec = Field(
        "lossless",
        description="lossless: the pixels exact. h264: smaller. copy: JPEG files as they are, "
        "others lossless.",
    )
    chroma: Chroma = Field(
        "444", description="h264's colours at full size, or halved for players and browsers."
    )
    crf: int = Field(6, ge=0, le=51, description="h264's quality: 0 the best, 51 the smallest.")
    max_pixels: int | None = Field(
        None, ge=256, description="Larger frames are scaled down to so many pixels."
    )
    check: Check = Field(
        "sample",
        description="Videos to decode back before they count, beside reading each one's structure: "
        "all, the first of each kind and one in 20, or none.",
    )
    keep_clip: bool = Field(
        False, description="Of a clip: its own pictures, not encoded again, in place of two frames."
    )

    @model_validator(mode="after")
    def _of_one_codec(self) -> VideoSettings:
        unused = {"chroma", "crf"} & self.model_fields_set
        if unused and self.codec != "h264":
            raise ValueError(f"{' and '.join(sorted(unused))} without effect: codec is not h264")
        return self


class UMT5Settings(Section, title="Embeddings"):
    """The text encoder of the editor."""

    # Its models_t5_umt5-xxl-enc-bf16.pth is the very file that ChronoEdit's own script reads, and
    # the least to download of these weights: 11.4 GB, where encoder and decoder together take 4×.
    model: str = Field(
        "Wan-AI/Wan2.1-T2V-1.3B",
        description="Id or folder of umt5, a diffusers pipeline or Wan, or Wan's .pth.",
    )
    revision: str | None = Field(None, description="Branch, tag or commit on the hub.")
    tokenizer: str | None = Field(
        None, description="Folder or tokenizer.json, if not beside the weights."
    )
    dtype: UMT5Dtype = Field("bfloat16", description="Of the computation.")
    device: str = Field(
        "auto", description="auto (all GPUs), cpu, cuda:N, or several: cuda:0,cuda:1."
    )
    batch_tokens: int | None = Field(
        None, ge=1, description="Padded tokens a batch; by default what the memory holds."
    )


class VerifySettings(Section, title="Verification"):
    """When a label is doubted."""

    suspect_above: float = Field(
        0.5, ge=0, le=1, description="Labels of a higher score are suspects; 1 is the worst."
    )
    false_alarms: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Share of right labels that may be suspects, such as 0.05; needs 60 labels "
        "that a human accepted.",
    )
    passes: int = Field(
        3, ge=1, description="How often a model is asked about the labels of another one."
    )
    min_score: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Leave out labels that verify trusts less: 1 minus its score. Those that it "
        "has not judged are left out, those that a human accepted are kept.",
    )


class ReviewSettings(Section, title="Review"):
    """The page on which humans decide."""

    port: int = Field(8484, ge=0, le=65535, description="Of this machine; 0: any that is free.")
    reviewer: str | None = Field(None, description="Your name, for the journal.")
    browser: bool = Field(True, description="Open the page in this machine's browser.")
    follow_links: bool = Field(
        False, description="Show pictures that links lead to outside of the folder of pairs."
    )


class RunSettings(Section, title="Run"):
    """Where the work is done, and which part of it."""

    shard: str | None = Field(
        None,
        description="Do one part of the pairs, i/n from 0/n, into a dataset of its own under "
        "DATASET/shards; `merge` puts them together.",
    )
    keys: str | None = Field(
        None,
        description="Work on these pairs only: their keys, with commas between; * is anything.",
    )
    engine: Literal["local", "ray"] = Field(
        "local", description="Where stages run: in this process, or on a Ray cluster."
    )
    ray_address: str | None = Field(
        None, description="The cluster's, such as auto or ray://head:10001; else a local one."
    )
    workers: int | None = Field(
        None, ge=1, description="Workers on Ray; by default as many as GPUs, or else cores, allow."
    )
    gpus_per_worker: float | None = Field(
        None,
        ge=0,
        description="GPUs of a worker that has a model: below 1, or whole; by default 1 where "
        "there are any.",
    )

    @model_validator(mode="after")
    def _one_part(self) -> RunSettings:
        if self.keys is not None and self.shard is not None:
            raise ValueError("keys name pairs of a whole dataset, and a shard is a part of one")
        return self

    @field_validator("gpus_per_worker")
    @classmethod
    def _below_one_or_whole(cls, gpus: float | None) -> float | None:
        if gpus is not None and gpus > 1 and gpus != int(gpus):
            raise ValueError("GPUs are shared below 1, and whole from there on: 0.5, 1, 2, …")
        return gpus

    @field_validator("shard")
    @classmethod
    def _one_of_n(cls, text: str | None) -> str | None:
        if text is not None:
            parts = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
            if parts is None or int(parts[1]) >= int(parts[2]):
                raise ValueError("a shard is i/n, with i from 0 to n - 1, such as 0/4")
        return text


class ExportSettings(Section, title="Export"):
    """What other trainers are given."""

    text: Literal["caption", "cot"] = Field(
        "caption", description="The edit instruction, or the chain-of-thought prompt."
    )
    trigger: str | None = Field(
        None, description="A sentence around every text: 'ohwx style: {caption}'."
    )
    only: Literal["ok", "accepted"] = Field(
        "ok", description="All labels that stand, or those that a human accepted or edited."
    )
    split: str | None = Field(
        None,
        description="Shares, such as train=0.95,val=0.05; all edits of one source stay together.",
    )


class Settings(Section):
    """All settings of all commands. A name that two sections have is the first's on the command
    line."""

    pairs: PairSettings = PairSettings()
    vlm: VLMSettings = VLMSettings()
    labels: LabelSettings = LabelSettings()
    video: VideoSettings = VideoSettings()
    images: ImageSettings = ImageSettings()
    umt5: UMT5Settings = UMT5Settings()
    verify: VerifySettings = VerifySettings()
    export: ExportSettings = ExportSettings()
    review: ReviewSettings = ReviewSettings()
    run: RunSettings = RunSettings()

    @model_validator(mode="after")
    def _of_equal_times(self) -> Settings:
        if self.video.keep_clip and self.pairs.frames.replace(" ", "") != "first,last":
            raise ConfigError(
                f"--keep-clip and --frames {self.pairs.frames}: the video would show other times "
                "than the label tells of.",
                hint="Leave out one of them: a kept clip goes from its first frame to its last.",
            )
        return self


SECTIONS: dict[str, type[Section]] = {
    name: type(section) for name, section in Settings() if isinstance(section, Section)
}
