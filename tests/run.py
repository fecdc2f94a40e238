"""What the processes of one test run have in common: pytest's own, and those that share its work with `-n`."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_MEMORY = Path("/dev/shm")  # noqa: S108 - what is made there has a name that nobody can foresee
_ENOUGH_BYTES = 2 * 1024**3


@dataclass(frozen=True, slots=True)
class Run:
    """A directory for what is made once in a run, whichever process needs it first."""

    directory: Path

    @classmethod
    def begun(cls) -> "Run":
        """A new run; whoever began it ends it, after all its processes."""
        return cls(Path(tempfile.mkdtemp(prefix="lifesign-run-")))

    def once(self, name: str, make: Callable[[], str]) -> str:
        """What `make` says of the thing that it makes; everybody after the first is only told."""
        told = self.directory / name
        with (self.directory / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not told.exists():
                told.write_text(make())
            return told.read_text()

    def told(self, name: str) -> str | None:
        """What was said of a thing; None when nobody needed it."""
        try:
            return (self.directory / name).read_text()
        except FileNotFoundError:
            return None

    def end(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)


def memory() -> Path | None:
    """A directory whose files are in memory only; None without one, or without much room in it.

    Thousands of databases that live for one test each are kept there: a commit that waits for a disk proves nothing
    more, and takes most of the time where disks are slow. What the tests of crashes make stays on disk, because its
    pace decides how much a crash finds half done. So does everything when TMPDIR says where it should be.
    """
    if "TMPDIR" in os.environ or not os.access(_MEMORY, os.W_OK) or shutil.disk_usage(_MEMORY).free < _ENOUGH_BYTES:
        return None
    return _MEMORY
