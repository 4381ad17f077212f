"""The package as it would be released: it is built, its metadata are checked, and what is in it is looked through."""

import re
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from importlib.util import find_spec
from pathlib import Path

import pytest

from django_multisession import __version__

from .test_docs import slug

ROOT = Path(__file__).parents[1]
NAME = f"django_multisession-{__version__}"
INFO = f"{NAME}.dist-info"
AT_THE_TOP = {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "LICENSE", "pyproject.toml", "tox.ini"}
AT_THE_TOP |= {"hatch_build.py"}
FOLDERS = {"django_multisession", "tests", "docs", "example_project", "benchmarks"}
LEFTOVERS = ("__pycache__", ".pyc", "sqlite3", "/var/", ".env")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, made from the sdist as `build` does by default."""
    directory = tmp_path_factory.mktemp("dist")
    run("build", "--no-isolation", "--outdir", str(directory), str(ROOT))
    return directory


@pytest.fixture(scope="module")
def wheel(dist: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(dist / f"{NAME}-py3-none-any.whl")


@pytest.fixture(scope="module")
def sdist(dist: Path) -> list[str]:
    with tarfile.open(dist / f"{NAME}.tar.gz") as archive:
        return [name.removeprefix(f"{NAME}/") for name in archive.getnames()]


def run(module: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def versioned(folder: str) -> set[str]:
    """The files of the checkout, without what running it leaves there."""
    files = (path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*") if path.is_file())
    return {name for name in files if not any(each in name for each in LEFTOVERS)}


def test_the_metadata_are_fit_to_be_published(dist: Path) -> None:
    done = run("twine", "check", "--strict", *map(str, dist.iterdir()))
    assert done.count("PASSED") == 2


def test_the_wheel_is_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    assert {name for name in names if not name.startswith(f"{INFO}/")} == versioned("django_multisession")
    assert {"django_multisession/py.typed", f"{INFO}/licenses/LICENSE"} <= names


def test_each_translation_is_compiled(wheel: zipfile.ZipFile) -> None:
    sources = [name for name in wheel.namelist() if name.endswith(".po")]
    assert len(sources) >= 11
    assert {name.removesuffix("po") + "mo" for name in sources} <= set(wheel.namelist())


def test_pytest_finds_the_fixture(wheel: zipfile.ZipFile) -> None:
    points = wheel.read(f"{INFO}/entry_points.txt").decode().split("\n")
    assert points[:2] == ["[pytest11]", "django_multisession = django_multisession.pytest_plugin"]
    assert find_spec("django_multisession.pytest_plugin")


def test_the_urls_and_the_version_are_told(wheel: zipfile.ZipFile) -> None:
    metadata = wheel.read(f"{INFO}/METADATA").decode()
    assert f"\nVersion: {__version__}\n" in metadata
    for label in ("Documentation", "Source", "Issues", "Changelog"):
        assert f"\nProject-URL: {label}, https://" in metadata


def test_the_links_of_the_description_lead_to_pages_that_are_published(wheel: zipfile.ZipFile) -> None:
    """An index shows it without the files beside it: neither links nor pictures may be relative."""
    metadata = message_from_bytes(wheel.read(f"{INFO}/METADATA"))
    [site] = [value.split(", ")[1] for value in metadata.get_all("Project-URL") if value.startswith("Documentation, ")]
    text = str(metadata.get_payload())
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    assert len(links) >= 20
    pictures = re.findall(r'<(?:img|source) [^>]*\bsrc(?:set)?="([^"]+)"', text)
    assert len(pictures) >= 4
    links += pictures
    assert [link for link in links if not link.startswith(("https://", "#"))] == []
    ours = {link.removeprefix(site) for link in links if link.startswith(site)}
    assert {link.partition("#")[0] for link in ours} <= published()
    for link in ours:
        page, _, anchor = link.partition("#")
        assert not anchor or anchor in anchors(page), link


def published() -> set[str]:
    """What Sphinx makes: a page of each, and a copy of each picture that a page shows."""
    pages = [*(ROOT / "docs").glob("*.md")]
    pictures = {name for page in pages for name in re.findall(r"\(images/([^)]+)\)", page.read_text())}
    pictures |= {name.replace("-light.", "-dark.") for name in pictures}  # `DarkPictures` in docs/conf.py
    return {f"{page.stem}.html" for page in pages} | {f"_images/{name}" for name in pictures}


def anchors(page: str) -> set[str]:
    text = (ROOT / "docs" / page.replace(".html", ".md")).read_text()
    return {slug(heading) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


def test_the_sdist_has_what_it_takes_to_test_it(sdist: list[str]) -> None:
    top = {name.partition("/")[0] for name in sdist}
    assert top == AT_THE_TOP | FOLDERS | {"PKG-INFO", ".gitignore"}
    for folder in FOLDERS:
        assert versioned(folder) <= set(sdist)
    assert not [name for name in sdist if any(each in name for each in LEFTOVERS)]
