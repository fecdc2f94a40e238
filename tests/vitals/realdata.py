"""`python -m tests.vitals.realdata`: fetch the two real clips and write what may be kept of them to tests/data/vitals.

They are examples in the source distribution of the MIT-licensed package `vitallens` 0.1.2, and not ours to ship: kept
are the mean colours of three regions of a face and the contact sensor, never a face. What is fetched is checked and
gone afterwards.
"""

import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from lifesign.vitals.video import datasets
from tests.vitals.derived import write_derived

PACKAGE = "vitallens==0.1.2"
DERIVED = Path(__file__).parents[1] / "data" / "vitals"
_ARCHIVE = ("vitallens-0.1.2.tar.gz", "99005976b6b4")
_EXAMPLES = {
    "sample_video_1.mp4": "b8d9eb0fa002",
    "sample_video_2.mp4": "cd8ec0269cfc",
    "sample_vitals_1.csv": "9b56f8390d63",
    "sample_vitals_2.csv": "93274d6c2a31",
}


def main() -> int:
    """Fetch, check, derive."""
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", PACKAGE]
        if subprocess.run([*fetch, "--dest", directory], check=False).returncode:
            return _refused(f"{PACKAGE} cannot be fetched")
        name, begin = _ARCHIVE
        if not _is_it(folder / name, begin):
            return _refused(f"{name} is another than it was")
        with tarfile.open(folder / name) as archive:
            for member in archive.getmembers():
                if (wanted := Path(member.name).name) in _EXAMPLES and (file := archive.extractfile(member)):
                    (folder / wanted).write_bytes(file.read())
        for wanted, begin in _EXAMPLES.items():
            if not _is_it(folder / wanted, begin):
                return _refused(f"{wanted} is missing, or another than it was")
        DERIVED.mkdir(parents=True, exist_ok=True)
        for number, (samples, ppg) in enumerate(datasets.LAYOUTS["vitallens"](folder), 1):
            write_derived(DERIVED / f"clip_{number}.csv", samples, ppg)
            sys.stdout.write(f"clip_{number}.csv: {len(ppg)} frames\n")
    return 0


def _is_it(path: Path, begin: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest().startswith(begin)


def _refused(why: str) -> int:
    sys.stderr.write(f"realdata: {why}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
