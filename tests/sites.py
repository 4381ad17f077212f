"""A site of its own, as `startproject` makes it, on which `manage.py` is run in a new process."""

import os
import re
import subprocess
import sys
from pathlib import Path

from django.core.management import call_command

ROOT = Path(__file__).parents[1]


class Site:
    """With the app installed, and with the settings that are given."""

    def __init__(self, directory: Path, **settings: object) -> None:
        call_command("startproject", "mysite", str(directory))
        self.directory = directory
        self.settings = directory / "mysite" / "settings.py"
        self.write("INSTALLED_APPS += ['django_multisession']", *(f"{name} = {settings[name]!r}" for name in settings))

    def write(self, *lines: str) -> None:
        self.settings.write_text("\n".join([self.settings.read_text(), *lines, ""]))

    def manage(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.python("manage.py", *arguments)

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        of_this_run = "DJANGO_SETTINGS_MODULE", "PYTEST_"
        environment = {name: value for name, value in os.environ.items() if not name.startswith(of_this_run)}
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.directory,
            env={**environment, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=120,
        )

    def check(self, *options: str) -> str:
        """The numbers of our messages."""
        done = self.manage("check", *options)
        assert "System check identified" in done.stdout + done.stderr, done.stderr
        return " ".join(sorted(set(re.findall(r"\(django_multisession\.([EW]\d{3})\)", done.stdout + done.stderr))))
