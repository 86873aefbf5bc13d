"""bghira/SimpleTuner: a JSON list of datasets that name each other, and one of settings. Every line
of a text file is a text of its own there, so each text is brought into one line."""

from __future__ import annotations

import json

from chronoprep.export.trainer import CONTROL, TARGET, Place, Trainer, line, quoted


class SimpleTuner(Trainer):
    name = "simpletuner"
    source = "documentation/quickstart/QWEN_EDIT.md, helpers/prompts.py (2026-08)"
    needs = "what your GPU asks for (`base_model_precision` in config.json)"
    same_suffix = True

    def caption(self, text: str) -> str:
        return line(text)

    def configs(self, place: Place) -> dict[str, str]:
        def images(name: str, **more: object) -> dict[str, object]:
            return {
                "id": f"edit-{name}",
                "type": "local",
                "instance_data_dir": str(place.train / name),
                "resolution": 1024,
                "resolution_type": "pixel_area",
                "cache_dir_vae": str(place.folder / "cache" / "vae" / name),
                **more,
            }

        data = [
            images(TARGET, caption_strategy="textfile", conditioning_data=[f"edit-{CONTROL}"]),
            images(
                CONTROL,
                dataset_type="conditioning",
                conditioning_type="reference_strict",
                caption_strategy=None,
            ),
            {
                "id": "edit-texts",
                "type": "local",
                "dataset_type": "text_embeds",
                "default": True,
                "cache_dir": str(place.folder / "cache" / "text"),
            },
        ]
        config = {
            "model_type": "lora",
            "model_family": "qwen_image",
            "model_flavour": "edit-v2",
            "train_batch_size": 1,
            "gradient_accumulation_steps": 4,
            "mixed_precision": "bf16",
            "gradient_checkpointing": True,
            "base_model_precision": "int8-quanto",
            "quantize_via": "cpu",
            "flow_schedule_shift": 1.73,
            "caption_dropout_probability": 0.0,
            "optimizer": "adamw_bf16",
            "learning_rate": 1e-4,
            "max_train_steps": 3000,
            "num_train_epochs": 0,
            "validation_disable": True,
            "output_dir": str(place.folder / "output"),
            "data_backend_config": str(place.folder / "multidatabackend.json"),
        }
        written = {"multidatabackend.json": data, "config.json": config}
        return {name: json.dumps(value, indent=2) + "\n" for name, value in written.items()}

    def start(self, place: Place) -> str:
        config, data = place.folder / "config.json", place.folder / "multidatabackend.json"
        return f"simpletuner train --config {quoted(config)} --data {quoted(data)}"
