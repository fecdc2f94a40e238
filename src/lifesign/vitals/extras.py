"""Whether the libraries of an extra are there: the server runs without them."""

from functools import cache
from importlib.util import find_spec

from lifesign.vitals.rules import VIDEO_MISSING, VITALS_MISSING, ExtraMissing


@cache
def _are_there(*modules: str) -> bool:
    return all(find_spec(each) is not None for each in modules)


def require_vitals() -> None:
    """Raises ExtraMissing, which names the extra, unless traces can be analysed here."""
    if not _are_there("numpy", "scipy"):
        raise ExtraMissing(VITALS_MISSING)


def require_video() -> None:
    """Raises ExtraMissing, which names the extra, unless images and videos can be, too."""
    if not _are_there("numpy", "scipy", "cv2", "av"):
        raise ExtraMissing(VIDEO_MISSING)
