"""Hugging Face's `datasets` and the scripts of `diffusers`: a folder of images and a table, in
which a name that ends in `_file_name` becomes a column of images.

The README says which files belong to a split. Left to itself, `datasets` guesses that by names: an
image called `test_01.png` would leave the training for a split of its own.
"""

from __future__ import annotations

import shlex

from chronoprep.export.trainer import Place, Sample, Trainer, literal, quoted

_START = """\
accelerate launch examples/dreambooth/train_dreambooth_lora_flux_kontext.py \\
  --pretrained_model_name_or_path black-forest-labs/FLUX.1-Kontext-dev \\
  --dataset_name {folder} --image_column edited_image --cond_image_column original_image \\
  --caption_column edit_prompt --instance_prompt "" --output_dir {output} \\
  --mixed_precision bf16 --resolution 1024 --train_batch_size 1 --guidance_scale 1 \\
  --gradient_accumulation_steps 4 --gradient_checkpointing --optimizer adamw --use_8bit_adam \\
  --cache_latents --learning_rate 1e-4 --lr_scheduler constant --lr_warmup_steps 0 \\
  --max_train_steps 1000 --rank 16 --seed 0"""


class ImageFolder(Trainer):
    name = "imagefolder"
    source = "datasets 5.2, packaged_modules/folder_based_builder"
    held_out = "`load_dataset`, as splits of these names"

    def row(self, sample: Sample) -> dict[str, object]:
        return {
            "source_file_name": sample.source,
            "target_file_name": sample.target,
            "prompt": sample.text,
            "key": sample.key,
        }

    def head(self, place: Place) -> str:
        files = (
            f"      - split: {literal(split or 'train')}\n"
            f"        path: {literal(f'{split}/**' if split else '**')}\n"
            for split in place.splits or ("",)
        )
        return (
            "---\nconfigs:\n  - config_name: default\n    data_files:\n" + "".join(files) + "---\n"
        )

    def start(self, place: Place) -> str:
        code = f"from datasets import load_dataset; print(load_dataset({literal(place.folder)}))"
        return f"python -c {shlex.quote(code)}"


class Diffusers(ImageFolder):
    name = "diffusers"
    source = "examples/dreambooth, examples/instruct_pix2pix (2026-08)"
    home = "diffusers"
    needs = (
        "for FLUX.2, train_dreambooth_lora_flux2_img2img.py or …_flux2_klein_img2img.py with the "
        "same columns; train_instruct_pix2pix.py finds them without any"
    )

    def row(self, sample: Sample) -> dict[str, object]:
        # In the order in which the script of InstructPix2Pix takes them where none is named.
        return {
            "original_image_file_name": sample.source,
            "edit_prompt": sample.text,
            "edited_image_file_name": sample.target,
            "key": sample.key,
        }

    def start(self, place: Place) -> str:
        return _START.format(folder=quoted(place.folder), output=quoted(place.folder / "output"))
