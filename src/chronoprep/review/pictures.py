"""The pictures of a page: those of pairs that the dataset knows, decoded and coded anew.

A leaf: imports Pillow and what else opens pictures at its top.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from chronoprep import video
from chronoprep.config import Settings
from chronoprep.data import Remote
from chronoprep.dataset import Entry
from chronoprep.errors import PairError
from chronoprep.gallery.thumbnails import Kept, Thumbnails
from chronoprep.images.colours import nearest
from chronoprep.images.difference import Difference, measure
from chronoprep.images.load import load_image, load_pair
from chronoprep.images.refs import file_of, parse
from chronoprep.images.regions import Region
from chronoprep.images.room import room
from chronoprep.images.sources import files_stamp

Side = Literal["source", "target"]
View = Literal["frame", "file", "video", "thumb"]

_THUMB = 96  # pixels, of a row's
_KEPT = 192_000_000  # bytes of pictures that are kept
_QUALITY = 92


class Pictures:
    """Pictures of pairs as files for a browser, of which the last ones are kept.

    Args:
        settings: How images are read and fitted, and how frames are scaled.
        follow_links: Whether a link may lead out of the folders of pairs.
    """

    def __init__(self, settings: Settings, *, follow_links: bool = False) -> None:
        self._settings = settings
        self._follow = follow_links
        self._small = Thumbnails(settings.images)
        self._kept = Kept(_KEPT)

    def of(self, entry: Entry, side: Side, view: View, written: Path) -> tuple[bytes, str]:
        """A picture's file and its media type.

        Args:
            view: `frame`, as both are fitted to one frame; `file`, as it is; `video`, as the
                trainer reads it; `thumb`, small.
            written: The pair's video.

        Raises:
            PairError: It can't be shown.
        """
        for ref in (entry.source, entry.target):
            self._require_inside(ref, entry.origin)
        which = 0 if side == "source" else 1
        if view == "thumb":
            return self._small.of_pair(entry.pair, _THUMB)[which], "image/webp"
        name: tuple[object, ...] = (view, *entry[:3], files_stamp(entry.source, entry.target))
        if view == "video":
            name = (view, entry.key, _stamp(written))
        return self._kept.taken(name, lambda: self._made(entry, view, written))[which], "image/jpeg"

    def difference(self, entry: Entry) -> dict[str, Any]:
        """What changed between the images, as measured for verify.

        Raises:
            PairError: One of them can't be used.
        """
        for ref in (entry.source, entry.target):
            self._require_inside(ref, entry.origin)
        with room():
            loaded = load_pair(entry.pair, self._settings.images)
            seen = measure(np.asarray(loaded.source), np.asarray(loaded.target))
        return _difference(seen) | {"size": loaded.source.size, "notes": loaded.notes}

    @room()
    def _made(self, entry: Entry, view: View, written: Path) -> tuple[bytes, ...]:
        images = self._settings.images
        if view == "video":
            if not written.is_file():
                raise PairError(
                    "no video was written of this pair yet", hint="Run `chronoprep pair2video`."
                )
            frames = video.read_frames(written)
            return tuple(_jpeg(Image.fromarray(frame)) for frame in (frames[0], frames[-1]))
        if view == "file":
            return tuple(
                _jpeg(load_image(parse(ref), images).image) for ref in (entry.source, entry.target)
            )
        loaded = load_pair(entry.pair, images)
        return _jpeg(loaded.source), _jpeg(loaded.target)

    def _require_inside(self, ref: str, origin: str | None) -> None:
        """Refuse a link that leads out of the folders of pairs.

        The folders are where PAIRS lies, itself perhaps a link, and those that its table names.

        Raises:
            PairError: It does; or the image would have to be fetched from elsewhere.
        """
        if isinstance(parse(ref), Remote):
            if not self._settings.pairs.allow_urls:
                raise PairError(f"{ref}: is on the web", hint="--allow-urls downloads it.")
            return
        file = Path(file_of(ref)).absolute()
        home = Path(origin or "").absolute()
        # A table's own folder is its home, and of a row that names another folder, that one is.
        home = home if home.is_dir() and file.is_relative_to(home) else file.parent
        if not self._follow and not file.resolve().is_relative_to(home.resolve()):
            raise PairError(
                f"{file}: a link that leads out of the folder of pairs",
                hint="If that is meant, `chronoprep review --follow-links` shows it.",
            )


def _jpeg(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.convert("RGB").save(file, "JPEG", quality=_QUALITY, subsampling=0)
    return file.getvalue()


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _difference(seen: Difference) -> dict[str, Any]:
    regions = [_region(region) for region in seen.regions or seen.beside]
    shares = {name: round(getattr(seen, name), 4) for name in ("changed", "rest")}
    return {"identical": seen.identical, "view": seen.view, "regions": regions, **shares}


def _region(region: Region) -> dict[str, Any]:
    """A region's box and share of the area, and what its colour was and is called."""
    return {
        "box": [round(edge, 4) for edge in region.box],
        "share": round(region.share, 5),
        "appears": round(region.appears, 2),
        "before": nearest(region.before.lab),
        "after": nearest(region.after.lab),
    }
