"""Find the dead links of a built site: files and anchors that are not there, and anything that it would fetch."""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """What a page points to, what it loads, and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.loads: set[str] = set()
        self.anchors: set[str] = {"", "top"}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value for name, value in attrs if value is not None}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if "src" in given:
            self.loads.add(given["src"])
        if "srcdoc" in given:  # a page within the page
            self.loads |= Page(given["srcdoc"]).loads
        if "href" in given:
            (self.loads if tag == "link" and given.get("rel") != "canonical" else self.links).add(given["href"])


def dead(site: Path) -> list[str]:
    """Return a line for each dead link of the pages of a folder."""
    paths = sorted(path for path in site.rglob("*.html") if "_static" not in path.parts)  # where templates lie
    pages = {path.resolve(): Page(path.read_text("utf-8")) for path in paths}
    found = []
    for path, page in pages.items():
        where = path.relative_to(site.resolve())
        for link in sorted(page.links | page.loads):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if link in page.loads and parts.scheme != "data":
                    found.append(f"{where}: it would fetch {link}")
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target /= "index.html"
            if not target.exists():
                found.append(f"{where}: there is no {link}")
            elif target in pages and unquote(parts.fragment) not in pages[target].anchors:
                found.append(f"{where}: there is no anchor {link}")
    return found


if __name__ == "__main__":
    lines = dead(Path(sys.argv[1]))
    print(*lines, sep="\n", end="\n" * bool(lines))
    sys.exit(bool(lines))
