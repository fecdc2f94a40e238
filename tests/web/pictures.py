"""Pictures of pages as tests saw them, for people who look at them afterwards."""

import os
import re
from pathlib import Path

from playwright.sync_api import Page

_ROOT = Path(__file__).resolve().parents[2]
_ID = re.compile(r"(?<![a-z])[0-9a-f]{8}[0-9a-f-]{8,}(?![a-z])|x{20,}")
_LONGEST = 80


def keep_picture(page: Page, name: str) -> None:
    """Keep what is seen of a page in the directory `PICTURES`; under `CI` in `build/pictures`; else nowhere."""
    directory = os.environ.get("PICTURES") or ("build/pictures" if os.environ.get("CI") else "")
    if not directory:
        return
    readable = re.sub(r"[^A-Za-z0-9]+", "-", _ID.sub("", name)).strip("-")[:_LONGEST]
    page.screenshot(path=_ROOT / directory / f"{readable}.png")
