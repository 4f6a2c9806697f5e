"""Builds the package; setup.cfg says what is in it. The manual pages and the shells' completion are
made from the parser while it is built, for share/ of wherever it is installed.
"""

import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build import build

TREE = Path(__file__).resolve().parent


class Build(build):
    """As setuptools builds, and what goes into share/."""

    def run(self) -> None:
        super().run()
        sys.path[:0] = [str(TREE), str(TREE / "tools")]
        from manual import write_manual

        share = Path(self.build_base, "share")
        placed: dict[str, list[str]] = {}
        for path in write_manual(share):
            directory = Path("share", path.parent.relative_to(share))
            placed.setdefault(str(directory), []).append(str(path))
        self.distribution.data_files = [*placed.items()]


setup(cmdclass={"build": Build})
