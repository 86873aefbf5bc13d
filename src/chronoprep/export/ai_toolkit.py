"""ostris/ai-toolkit: folders of equal names, texts beside the targets, one YAML file."""

from __future__ import annotations

from chronoprep.export.trainer import CONTROL, TARGET, Place, Trainer, literal, quoted, whole

_CONFIG = """\
job: extension
config:
  name: {name}
  process:
    - type: diffusion_trainer
      training_folder: {output}
      device: cuda:0
      network:
        type: lora
        linear: 16
        linear_alpha: 16
      save:
        dtype: float16
        save_every: 250
        max_step_saves_to_keep: 4
      datasets:
        - folder_path: {target}    # after the edit, with the texts
          control_path: {control}  # before the edit
          caption_ext: txt
          caption_dropout_rate: 0.05
          resolution: [512, 768, 1024]
      train:
        batch_size: 1
        cache_text_embeddings: true
        steps: 3000
        gradient_accumulation: 1
        timestep_type: weighted
        train_unet: true
        train_text_encoder: false
        gradient_checkpointing: true
        noise_scheduler: flowmatch
        optimizer: adamw8bit
        lr: 1.0e-4
        dtype: bf16
        disable_sampling: true
      model:
        # Others: flux_kontext (black-forest-labs/FLUX.1-Kontext-dev), flux2_klein_9b,
        # boogu_image_edit, mageflow_edit.
        name_or_path: Qwen/Qwen-Image-Edit-2509
        arch: qwen_image_edit_plus
        quantize: true
        qtype: qfloat8
        quantize_te: true
        qtype_te: qfloat8
        low_vram: true
"""


class AiToolkit(Trainer):
    name = "ai-toolkit"
    source = "toolkit/data_loader.py, toolkit/dataloader_mixins.py, config/examples (2026-08)"
    home = "ai-toolkit"
    needs = "the model (`model` in train.yaml)"

    def caption(self, text: str) -> str:
        return whole(text)

    def configs(self, place: Place) -> dict[str, str]:
        config = _CONFIG.format(
            name=literal(place.folder.name),
            output=literal(place.folder / "output"),
            target=literal(place.train / TARGET),
            control=literal(place.train / CONTROL),
        )
        return {"train.yaml": config}

    def start(self, place: Place) -> str:
        return f"python run.py {quoted(place.folder / 'train.yaml')}"
