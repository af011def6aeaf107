"""The pages of the documentation site that are not in `docs/`: made when the site is built.

README, CONTRIBUTING, CHANGELOG, SECURITY and Grafana's README become pages as they are. The
reference of `dlq` comes from the commands themselves. If a page links to a file of the repository,
that file becomes a page too, so no link leaves the site.
"""

import posixpath
import re
from pathlib import Path

import commands
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "reporting.md",
    "grafana/README.md": "grafana.md",
}
"""Files of the repository that are pages, and where."""

LINK = re.compile(r"(?<=\]\()(?!https?:|#)([^)#\s]+)")
LANGUAGES = {".py": "python", ".sql": "sql", ".toml": "toml", ".yml": "yaml", ".conf": "text"}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List all decisions."""
    decisions = sorted(Path(config.docs_dir).glob("decisions/*.md"))
    for section in config.nav or []:
        if "Decisions" in section:
            section["Decisions"] += [f"decisions/{file.name}" for file in decisions]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not files of `docs/`."""
    texts = {page: (ROOT / file).read_text() for file, page in PAGES.items()}
    texts |= {f"commands/{name}.md": text for name, text in commands.pages().items()}
    for page, text in texts.items():
        files.append(File.generated(config, page, content=text))
    linked = {
        _target(link, _original(file.src_uri))
        for file in files.documentation_pages()
        for link in LINK.findall(file.content_string)
    }
    for target in sorted(linked):
        page = _page_of(target)
        if page.startswith("source/") and (ROOT / target).exists():
            files.append(File.generated(config, page, content=_source(target)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001  (signature of MkDocs)
    """Change links into the repository to the pages that show the files."""
    uri = page.file.src_uri

    def turned(link: re.Match[str]) -> str:
        target = _target(link[1], _original(uri))
        is_there = (ROOT / target).exists()
        return posixpath.relpath(_page_of(target), posixpath.dirname(uri)) if is_there else link[1]

    return LINK.sub(turned, markdown)


def _original(uri: str) -> str:
    """The file of the repository that a page was made from."""
    return next((file for file, page in PAGES.items() if page == uri), f"docs/{uri}")


def _target(link: str, original: str) -> str:
    """The path in the repository that a link in one of its files means."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(original), link))


def _page_of(target: str) -> str:
    """The page of the site for a file of the repository."""
    if target.startswith("docs/"):
        return target.removeprefix("docs/")
    return PAGES.get(target, f"source/{target}.md")


def _source(target: str) -> str:
    """A page with the text of a file, or of the files of a folder."""
    path = ROOT / target
    files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
    parts = [f"# {target}"]
    for file in files:
        parts += [f"## {file.name}"] if path.is_dir() else []
        parts += [f"````{LANGUAGES.get(file.suffix, 'text')}\n{file.read_text().rstrip()}\n````"]
    return "\n\n".join(parts) + "\n"
