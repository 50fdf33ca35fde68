"""The project's addresses, as pyproject.toml has them; run this to put them into all other files.

Links that lead from GitHub to Binder or to the site have to be whole, so they are copies.
"""

import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

ROOT = Path(__file__).parents[1]
URLS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]
SOURCE, SITE = URLS["Source"], URLS["Documentation"].rstrip("/") + "/"
BINDER = SOURCE.replace("https://github.com", "https://mybinder.org/v2/gh") + "/HEAD"
COPIES = {  # what a copy looks like, and what it should be
    r"https://github\.com/[\w-]+/[\w.-]*\w": SOURCE,
    r"https%3A%2F%2Fgithub\.com%2F[\w-]+%2F[\w.-]*\w": quote(SOURCE, safe=""),
    r"https://mybinder\.org/v2/gh/[\w-]+/[\w.-]*\w/\w+": BINDER,
    r"https://[\w-]+\.github\.io/[\w.-]+/": SITE,
    r"(?<=&& cd )[\w.-]*\w|(?<=%2Ftree%2F)[\w.-]*\w(?=%2F)": SOURCE.rpartition("/")[2],
}


def files() -> Iterator[tuple[Path, str]]:
    """Each file of the project that may hold a copy, and its text."""
    git = ["git", "-c", "safe.directory=*"]  # in a container, they may be somebody else's
    search = [*git, "grep", "-lIE", "github|mybinder"]
    for name in subprocess.check_output(search, cwd=ROOT, text=True).splitlines():
        yield ROOT / name, (ROOT / name).read_text(encoding="utf-8")


if __name__ == "__main__":
    for path, text in files():
        for copy, address in COPIES.items():
            text = re.sub(copy, address, text)
        path.write_text(text, encoding="utf-8", newline="\n")
