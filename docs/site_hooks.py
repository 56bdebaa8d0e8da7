"""What mkdocs needs to know of this repository: where the README stands, which links lead out, what a page shows."""

import logging
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]


def on_files(files: Any, config: Any) -> Any:
    """Add the README as the first page."""
    text = (ROOT / "README.md").read_text()
    pictures = config.repo_url.replace("github.com", "raw.githubusercontent.com") + "/main/docs/"
    # A package index shows the README too, so its links are absolute.
    text = text.replace(pictures, "").replace(f"{config.repo_url}/blob/main/docs/", "")
    files.append(File.generated(config, "index.md", content=text))
    return files


def on_page_markdown(markdown: str, config: Any, **_: Any) -> str:
    """Let links to files outside of docs/ lead to the repository."""
    return re.sub(r"\]\(\.\./([^)]+)\)", lambda link: f"]({_address(config.repo_url, link[1])})", markdown)


def on_page_content(html: str, page: Any, **_: Any) -> None:
    """Warn, which ends a strict build, if the Python page shows other names than it lists: an entry without a docstring
    is left out without a word."""
    if page.file.src_path != "reference.md":
        return
    listed = set()
    for name, options in re.findall(r"^::: (\S+)\n((?:    .*\n)*)", page.markdown, re.MULTILINE):
        members = re.search(r"members: \[(.*)\]", options)
        listed |= {name, *(f"{name}.{each}" for each in (members[1].split(", ") if members else ()))}
    shown = set(re.findall(r'<h[34] id="(epsagon_fast\.[^"]+)"', html))
    for name in sorted(listed ^ shown):
        logging.getLogger("mkdocs.hooks").warning(
            "reference.md: %s is %s", name, "missing" if name in listed else "too much"
        )


def _address(repository: str, path: str) -> str:
    kind = "tree" if (ROOT / path.partition("#")[0]).is_dir() else "blob"
    return f"{repository}/{kind}/main/{path}"
