"""chronoprep: folders of before/after image pairs → a training set for ChronoEdit."""

from importlib.metadata import version

__version__ = version("chronoprep")
