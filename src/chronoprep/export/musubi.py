"""kohya-ss/musubi-tuner: folders of equal names in one TOML file; three programs, one after the
other."""

from __future__ import annotations

from chronoprep.export.trainer import CONTROL, TARGET, Place, Trainer, literal, quoted, whole

_CONFIG = """\
[general]
resolution = [1024, 1024]
caption_extension = ".txt"
batch_size = 1
enable_bucket = true
bucket_no_upscale = false

[[datasets]]
image_directory = {target}     # after the edit, with the texts
control_directory = {control}  # before the edit
cache_directory = {cache}
# As Qwen-Image-Edit's own code has it. For FLUX.2: [2024, 2024] and no_resize_control = true.
control_resolution = [1024, 1024]
"""
_START = """\
DIT=qwen_image_edit_2511_bf16.safetensors
VAE=qwen_image_vae.safetensors
TEXT=qwen_2.5_vl_7b.safetensors
DATA={config}
python src/musubi_tuner/qwen_image_cache_latents.py --dataset_config "$DATA" --vae "$VAE" \\
  --model_version edit-2511
python src/musubi_tuner/qwen_image_cache_text_encoder_outputs.py --dataset_config "$DATA" \\
  --text_encoder "$TEXT" --batch_size 1 --model_version edit-2511
accelerate launch --num_cpu_threads_per_process 1 --mixed_precision bf16 \\
  src/musubi_tuner/qwen_image_train_network.py --dataset_config "$DATA" \\
  --dit "$DIT" --vae "$VAE" --text_encoder "$TEXT" --model_version edit-2511 \\
  --sdpa --mixed_precision bf16 --timestep_sampling shift --weighting_scheme none \\
  --discrete_flow_shift 2.2 --optimizer_type adamw8bit --learning_rate 5e-5 \\
  --gradient_checkpointing --max_data_loader_n_workers 2 --persistent_data_loader_workers \\
  --network_module networks.lora_qwen_image --network_dim 16 --max_train_epochs 16 \\
  --save_every_n_epochs 1 --seed 42 --output_dir {output} --output_name edit"""


class Musubi(Trainer):
    name = "musubi"
    source = "docs/dataset_config.md, docs/qwen_image.md, dataset/datasources.py (2026-06)"
    home = "musubi-tuner"
    needs = "the weights (DIT, VAE and TEXT)"

    def caption(self, text: str) -> str:
        return whole(text)

    def configs(self, place: Place) -> dict[str, str]:
        config = _CONFIG.format(
            target=literal(place.train / TARGET),
            control=literal(place.train / CONTROL),
            cache=literal(place.train / "cache"),
        )
        return {"dataset.toml": config}

    def start(self, place: Place) -> str:
        return _START.format(
            config=quoted(place.folder / "dataset.toml"), output=quoted(place.folder / "output")
        )
