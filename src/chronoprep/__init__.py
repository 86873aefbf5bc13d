"""chronoprep: folders of before/after image pairs → a training set for ChronoEdit."""


def __getattr__(name: str) -> str:
    # Looked up on demand: importlib.metadata costs a sixth of `chronoprep --help`.
    if name == "__version__":
        from importlib.metadata import version

        return version("chronoprep")
    raise AttributeError(name)
