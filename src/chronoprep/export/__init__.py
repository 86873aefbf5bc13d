"""Other trainers of image editors: what each reads. It knows texts and paths, and writes nothing.

One file a trainer. To add one, write a class of `Trainer` and name it here.
"""

from chronoprep.errors import ConfigError
from chronoprep.export.ai_toolkit import AiToolkit
from chronoprep.export.diffsynth import DiffSynth
from chronoprep.export.diffusion_pipe import DiffusionPipe
from chronoprep.export.imagefolder import Diffusers, ImageFolder
from chronoprep.export.musubi import Musubi
from chronoprep.export.simpletuner import SimpleTuner
from chronoprep.export.trainer import (
    CONTROL,
    TABLE,
    TARGET,
    Place,
    Sample,
    Trainer,
    file_name,
    readme,
    start_of,
)

__all__ = [
    "CONTROL",
    "TABLE",
    "TARGET",
    "TRAINERS",
    "Place",
    "Sample",
    "Trainer",
    "file_name",
    "readme",
    "start_of",
    "trainer_of",
]

TRAINERS: dict[str, Trainer] = {
    trainer.name: trainer
    for trainer in (
        AiToolkit(),
        Musubi(),
        DiffSynth(),
        SimpleTuner(),
        DiffusionPipe(),
        Diffusers(),
        ImageFolder(),
    )
}


def trainer_of(name: str) -> Trainer:
    """A trainer by its name.

    Raises:
        ConfigError: There is none of that name.
    """
    if name not in TRAINERS:
        raise ConfigError(
            f"--to {name}: no such trainer.", hint=f"There are: {', '.join(TRAINERS)}."
        )
    return TRAINERS[name]
