"""Settings: every default of chronoprep, once.

Precedence: flags > environment > `chronoprep.toml` > defaults. The file has one table a section
(`[vlm]`, `[images]`, …); the environment joins section and key: `CHRONOPREP_VLM_BATCH_SIZE=8`.
"""

from chronoprep.config.settings import (
    SECTIONS,
    Check,
    Codec,
    ExportSettings,
    ImageSettings,
    LabelSettings,
    PairSettings,
    ReviewSettings,
    RunSettings,
    Section,
    Settings,
    UMT5Settings,
    VerifySettings,
    VideoSettings,
    VLMSettings,
)
from chronoprep.config.sources import load_settings, variable

__all__ = [
    "SECTIONS",
    "Check",
    "Codec",
    "ExportSettings",
    "ImageSettings",
    "LabelSettings",
    "PairSettings",
    "ReviewSettings",
    "RunSettings",
    "Section",
    "Settings",
    "UMT5Settings",
    "VLMSettings",
    "VerifySettings",
    "VideoSettings",
    "load_settings",
    "variable",
]
