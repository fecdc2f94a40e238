"""What goes wrong with vitals, in the words that callers are told, and what a calibration may be."""

from typing import Literal

VITALS_MISSING = 'Vitals support is not installed (pip install "lifesign[vitals]")'
VIDEO_MISSING = 'Video support is not installed (pip install "lifesign[vitals-video]")'

VideoCode = Literal["not_found", "unsupported", "decode_failed", "empty"]


class ExtraMissing(ImportError):
    """What was asked for needs an extra that is not installed; the message names it."""


class InvalidTraces(ValueError):
    """Traces that cannot be analysed. The message is for whoever sent them."""


class TooManySamples(InvalidTraces):
    """Traces of more samples than one analysis takes."""


class VideoError(Exception):
    """A file that is no video that can be read. `code`: why, for programs."""

    def __init__(self, code: VideoCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class ModelError(Exception):
    """A model file is not the one that this version was made for."""
