"""Virtual environments for contenders whose requirements do not agree with tfstream's."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import venv
from pathlib import Path

REQUIREMENTS = {
    "ray": (
        "ray[data]==2.60.0",
        "tensorflow==2.21.0",
        "crc32c==2.9.post0",
    ),
    "grain": ("grain==0.2.18", "array-record"),
    "mosaic": ("mosaicml-streaming==0.13.0",),
    "petastorm": ("petastorm==0.13.1", "tensorflow==2.17.1", "pyarrow<15"),
    "tfio": ("tensorflow-io==0.37.1", "tensorflow==2.16.2", "pyarrow<26"),
    "tfx-bsl": ("tfx-bsl==1.21.0", "tensorflow==2.21.0"),
}
"""What each of them holds; crc32c and TensorFlow are what Ray's writer asks for.

tensorflow-io's needs NumPy 1, so pyarrow below 26; petastorm calls what pyarrow 15 took away.
"""

_CHILD = ("numpy", "psutil>=5.9", "pyarrow", "rich>=13.7")
"""What a child imports, whichever contender it runs."""

_PACKAGES = (
    "tfstream",
    "tensorflow",
    "keras",
    "numpy",
    "pyarrow",
    "dask",
    "ray",
    "grain",
    "array-record",
    "mosaicml-streaming",
    "petastorm",
    "tensorflow-io",
    "tfx-bsl",
)
_DONE = "requirements.txt"
_FAILED = "why-not.txt"


def versions() -> dict[str, str]:
    """The versions of the packages that matter, as far as they are installed here."""
    installed = {found.name.lower(): found.version for found in importlib.metadata.distributions()}
    return {name: installed[name] for name in _PACKAGES if name in installed}


def name_of(contender: str) -> str | None:
    """The environment that a contender needs: that which its name begins with, if any."""
    return next((name for name in REQUIREMENTS if f"{contender}-".startswith(f"{name}-")), None)


def interpreter(root: Path, contender: str) -> str | None:
    """The Python that runs a contender: this one, its environment's, or None if that is not there.

    Args:
        root: the folder of all benchmarks.
        contender: its name.
    """
    name = name_of(contender)
    if name is None:
        return sys.executable
    return str(_python(root / name)) if (root / name / _DONE).exists() else None


def why_not(root: Path, name: str) -> str | None:
    """Why the environment of that name could not be made when that was tried; None if not so."""
    path = root / name / _FAILED
    return path.read_text(encoding="utf-8") if path.exists() else None


def set_up(root: Path, name: str) -> str | None:
    """Make the environment of that name; what is there already is brought up to date.

    Returns:
        What pip said if it failed, else None; `why_not` tells it from then on.
    """
    place = root / name
    for kept in (_DONE, _FAILED):
        (place / kept).unlink(missing_ok=True)
    venv.create(place, symlinks=True, with_pip=True)
    wanted = (*REQUIREMENTS[name], *_CHILD)
    # Isolated, or modules of the working directory would be taken for pip's.
    command = [str(_python(place)), "-I", "-m", "pip", "install", "--quiet", *wanted]
    ended = subprocess.run(command, check=False, stderr=subprocess.PIPE, text=True)
    if ended.returncode == 0:
        (place / _DONE).write_text("\n".join(wanted) + "\n", encoding="utf-8")
        return None
    lines = ended.stderr.strip().splitlines() or [f"pip ended with status {ended.returncode}"]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    # The first error is the reason, where the last one only says that there was one.
    (place / _FAILED).write_text((errors or lines[-1:])[0], encoding="utf-8")
    return why_not(root, name)


def _python(place: Path) -> Path:
    return place / "bin" / "python"
