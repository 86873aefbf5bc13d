"""tdrussell/diffusion-pipe: folders of equal names in one TOML file, the rest in another."""

from __future__ import annotations

from chronoprep.export.trainer import CONTROL, TARGET, Place, Trainer, literal, quoted, whole

_DATA = """\
resolutions = [1024]
enable_ar_bucket = true
min_ar = 0.5
max_ar = 2.0
num_ar_buckets = 9
num_repeats = 1

[[directory]]
path = {target}           # after the edit, with the texts
control_path = {control}  # before the edit
"""
_CONFIG = """\
output_dir = {output}
dataset = {data}
{held_out}
epochs = 100
micro_batch_size_per_gpu = 1
pipeline_stages = 1
gradient_accumulation_steps = 1
gradient_clipping = 1.0
warmup_steps = 100
save_every_n_epochs = 2
checkpoint_every_n_minutes = 120
activation_checkpointing = true
partition_method = 'parameters'
save_dtype = 'bfloat16'
caching_batch_size = 1
steps_per_print = 1

[model]
type = 'qwen_image'
diffusers_path = 'Qwen-Image-Edit'  # the folder that you downloaded
dtype = 'bfloat16'
transformer_dtype = 'float8'
timestep_sample_method = 'logit_normal'

[adapter]
type = 'lora'
rank = 32
dtype = 'bfloat16'

[optimizer]
type = 'adamw_optimi'
lr = 2e-5
betas = [0.9, 0.99]
weight_decay = 0.01
eps = 1e-8
"""


class DiffusionPipe(Trainer):
    name = "diffusion-pipe"
    source = "utils/dataset.py, examples/*.toml, docs/supported_models.md (2026-08)"
    home = "diffusion-pipe"
    needs = "the folder of the model (`diffusers_path` in train.toml)"
    held_out = "the evaluation (`eval_datasets` in train.toml)"

    def caption(self, text: str) -> str:
        return whole(text)

    def configs(self, place: Place) -> dict[str, str]:
        files = {}
        for split in place.splits or ("",):
            folder = place.of(split)
            target, control = literal(folder / TARGET), literal(folder / CONTROL)
            files[_data(split)] = _DATA.format(target=target, control=control)
        held_out = ", ".join(
            f"{{name = {literal(split)}, config = {literal(place.folder / _data(split))}}}"
            for split in place.held_out
        )
        files["train.toml"] = _CONFIG.format(
            output=literal(place.folder / "output"),
            data=literal(place.folder / _data(place.trained)),
            held_out=f"eval_datasets = [{held_out}]\neval_every_n_epochs = 1",
        )
        return files

    def start(self, place: Place) -> str:
        config = quoted(place.folder / "train.toml")
        return f"deepspeed --num_gpus=1 train.py --deepspeed --config {config}"


def _data(split: str) -> str:
    """The name of the file that describes a split."""
    return f"dataset-{split}.toml" if split else "dataset.toml"
