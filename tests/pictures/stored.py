"""The script that draws the pictures of the documentation, and the pictures that it draws."""

import importlib.util
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


@cache
def script():
    """docs/pictures.py, by itself: nothing is left on the path."""
    spec = importlib.util.spec_from_file_location("docs_pictures", DOCS / "pictures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def drawn() -> dict[Path, str]:
    """What the script would write, by path."""
    return script().files()


MASKS = ("mask-window", "mask-csa", "mask-hca")
NAMES = ("architecture", "architecture41", *MASKS, "streams", "overlap", "cache", "stale-keys")

SVGS = [DOCS / "pictures" / f"{name}-{theme}.svg" for name in NAMES for theme in ("light", "dark")]
