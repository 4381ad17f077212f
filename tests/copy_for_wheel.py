"""Copy what the tests need, but not the package, so that they import the wheel: `copy_for_wheel.py TARGET`."""

import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NEEDED = (
    "tests",
    "example_project",
    "benchmarks",
    "docs",
    "pyproject.toml",
    *(page.name for page in ROOT.glob("*.md")),
)
IGNORED = shutil.ignore_patterns("__pycache__", "var")


def copy(target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in NEEDED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=IGNORED)
        else:
            shutil.copy(source, target / name)


if __name__ == "__main__":
    copy(Path(sys.argv[1]))
