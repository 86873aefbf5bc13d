"""modelscope/DiffSynth-Studio: a table of texts and paths. As JSON lines, for a CSV is read with
pandas, which takes `NA` for nothing, and can hold no lists."""

from __future__ import annotations

from chronoprep.export.trainer import TABLE, Place, Sample, Trainer, quoted

_START = """\
accelerate launch examples/qwen_image/model_training/train.py \\
  --dataset_base_path {base} --dataset_metadata_path {table} \\
  --data_file_keys "image,edit_image" --extra_inputs "edit_image" \\
  --max_pixels 1048576 --dataset_repeat 50 \\
  --model_id_with_origin_paths "{models}" \\
  --learning_rate 1e-4 --num_epochs 5 --remove_prefix_in_ckpt "pipe.dit." --output_path {output} \\
  --lora_base_model "dit" --lora_rank 32 \\
  --lora_target_modules "{modules}" \\
  --use_gradient_checkpointing --dataset_num_workers 8 --find_unused_parameters --zero_cond_t"""
_MODELS = ",".join(
    (
        "Qwen/Qwen-Image-Edit-2511:transformer/diffusion_pytorch_model*.safetensors",
        "Qwen/Qwen-Image:text_encoder/model*.safetensors",
        "Qwen/Qwen-Image:vae/diffusion_pytorch_model.safetensors",
    )
)
_MODULES = ",".join(
    (
        *("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj", "to_out.0"),
        *("to_add_out", "img_mlp.net.2", "img_mod.1", "txt_mlp.net.2", "txt_mod.1"),
    )
)


class DiffSynth(Trainer):
    name = "diffsynth"
    source = "diffsynth/core/data/unified_dataset.py, examples/*/model_training (2026-08)"
    home = "DiffSynth-Studio"
    needs = (
        "for FLUX.1 Kontext, examples/flux/model_training/train.py with "
        '--data_file_keys "image,kontext_images" --extra_inputs "kontext_images" (each row has '
        "both names), and its models as in examples/flux/model_training/lora"
    )

    def row(self, sample: Sample) -> dict[str, object]:
        return {
            "image": sample.target,
            "prompt": sample.text,
            "edit_image": sample.source,
            "kontext_images": sample.source,
        }

    def start(self, place: Place) -> str:
        return _START.format(
            base=quoted(place.train),
            table=quoted(place.train / TABLE),
            output=quoted(place.folder / "output"),
            models=_MODELS,
            modules=_MODULES,
        )
