"""Copy what the tests need, but not the package, so that they import the wheel: `copy_for_wheel.py TARGET`."""

import shutil
import sys
from importlib.util import find_spec
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


def installed() -> bool:
    spec = find_spec("django_multisession")
    return spec is not None and "site-packages" in Path(spec.origin or "").parts


if __name__ == "__main__":
    copy(Path(sys.argv[1]))
    sys.exit(None if installed() else "django_multisession is not installed as a wheel")
