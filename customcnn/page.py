"""One self-contained HTML page: headings, tables, pictures and the warnings that belong to its figures."""

import html
import os
import re
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from urllib.parse import quote


class Html(str):
    """Markup that is escaped already; every other string is text and gets escaped."""

    __slots__ = ()


@dataclass(frozen=True)
class Section:
    """One part of a page.

    Attributes:
        heading: its title, text.
        blocks: what stands under it; a plain string becomes a paragraph.
        level: 2 for a part of the page, 3 for a part of the part before it.
    """

    heading: str
    blocks: Sequence[str] = ()
    level: int = 2


def printable(text: object) -> str:
    """Return the text on one line, as UTF-8 can hold it: control characters and stray bytes become escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(text))


def escape(text: object) -> Html:
    """Return text as markup; what is markup already stays as it is."""
    return text if isinstance(text, Html) else Html(html.escape(printable(text)))


def data_uri(png: bytes) -> str:
    """Return the bytes of a PNG file as an address that holds the picture itself."""
    return "data:image/png;base64," + b64encode(png).decode("ascii")


def figure(
    source: str | PurePath, alt: str, caption: str = "", *, width: int | None = None, sharp: bool = False
) -> Html:
    """Return a picture with its caption.

    Args:
        source: a path relative to the page, which the picture also links to, or a `data_uri`.
        alt: what the picture shows, for who cannot see it.
        caption: text or markup under it.
        width: how wide to show it, in CSS pixels; None: as it is, at most the page's width.
        sharp: where it is shown enlarged, show its pixels as squares, not smoothed.

    Raises:
        ValueError: `alt` is empty.
    """
    if not alt.strip():
        raise ValueError("A picture needs an alternative text.")
    inside = isinstance(source, str) and source.startswith("data:image/")
    # "./" keeps a colon in a file's name from being read as the scheme of an address.
    address = source if inside else "./" + quote(os.fsencode(PurePath(source).as_posix()))
    shape = (f' width="{width}"' if width else "") + (' class="sharp"' if sharp else "")
    picture = f'<img src="{escape(address)}" alt="{escape(alt)}" loading="lazy"{shape}>'
    if not inside:
        picture = f'<a href="{escape(address)}">{picture}</a>'
    words = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return Html(f"<figure>{picture}{words}</figure>")


def beside(*blocks: Html) -> Html:
    """Return blocks side by side, one under the other where the window is narrow."""
    return Html('<div class="beside">' + "".join(blocks) + "</div>")


def table(header: Sequence[object], rows: Iterable[Sequence[object]], caption: str = "") -> Html:
    """Return a table whose first column names its rows; cells that hold a number are set flush right.

    Args:
        header: the names of the columns.
        rows: text, markup or numbers; each row as long as the header.
        caption: text above it.

    Raises:
        ValueError: a row is longer or shorter than the header.
    """
    names = list(header)
    body = []
    for row in rows:
        if len(row) != len(names):
            raise ValueError(f"A row has one cell for each of {len(names)} columns. Received: {len(row)} cells.")
        cells = "".join(_cell(value) for value in row[1:])
        body.append(f'<tr><th scope="row">{escape(row[0])}</th>{cells}</tr>')
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return Html(
        f'<div class="wide"><table>{title}<thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'
    )


def _cell(value: object) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    text = f"{value:,}" if isinstance(value, int) and number else value
    kind = ' class="number"' if number or (not isinstance(value, Html) and _looks_like_number(str(value))) else ""
    return f"<td{kind}>{escape(text)}</td>"


def _looks_like_number(text: str) -> bool:
    return re.fullmatch(r"[-+−]?[\d,]*\.?\d+(e[-+]?\d+)?\s?%?", text) is not None


def facts(values: Mapping[str, object], caption: str = "") -> Html:
    """Return a table of two columns without a header: what a thing is called, and what it is."""
    rows = "".join(f'<tr><th scope="row">{escape(k)}</th><td>{escape(v)}</td></tr>' for k, v in values.items())
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return Html(f'<div class="wide"><table>{title}<tbody>{rows}</tbody></table></div>')


def bars(shares: Mapping[str, float], caption: str = "") -> Html:
    """Return a table of shares between 0 and 1 as percentages, each with a bar."""
    rows = []
    for name, share in shares.items():
        length = min(max(share, 0.0), 1.0) * 100 if share == share else 0.0  # NaN has no length
        bar = f'<span class="bar" aria-hidden="true"><span style="width:{length:.1f}%"></span></span>'
        rows.append(
            f'<tr><th scope="row">{escape(name)}</th><td class="number">{share:.1%}</td>'
            f'<td class="bars">{bar}</td></tr>'
        )
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return Html(f'<div class="wide"><table>{title}<tbody>{"".join(rows)}</tbody></table></div>')


def preformatted(text: str) -> Html:
    """Return lines as they are, in a typewriter font: a command, a file."""
    return Html("<pre><code>" + "\n".join(escape(line) for line in text.splitlines()) + "</code></pre>")


def page(title: str, sections: Sequence[Section], notes: Sequence[str] = ()) -> str:
    """Return a whole HTML page that needs nothing from elsewhere, for light and dark screens and for paper.

    Args:
        title: its title and first heading.
        sections: its parts, in order; a page of more than two has a list of links to them.
        notes: warnings, shown in a banner above everything else.

    Returns:
        The page, which UTF-8 can hold whatever the names of files are.
    """
    anchors = _anchors(section.heading for section in sections)
    parts = [f"<h1>{escape(title)}</h1>", _banner(notes), _contents(sections, anchors)]
    for section, anchor in zip(sections, anchors, strict=True):
        blocks = [block if isinstance(block, Html) else f"<p>{escape(block)}</p>" for block in section.blocks]
        heading = f'<h{section.level} id="{anchor}">{escape(section.heading)}</h{section.level}>'
        parts.append("\n".join(["<section>", heading, *blocks, "</section>"]))
    return _PAGE.format(title=escape(title), style=_STYLE, body="\n".join(part for part in parts if part))


def _banner(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f'<aside class="notes" role="note" aria-label="Warnings"><strong>Warning</strong><ul>{items}</ul></aside>'


def _contents(sections: Sequence[Section], anchors: Sequence[str]) -> str:
    if len(sections) < 3:
        return ""
    links = "".join(
        f'<li><a href="#{anchor}">{escape(section.heading)}</a></li>'
        for section, anchor in zip(sections, anchors, strict=True)
    )
    return f'<nav aria-label="On this page"><ul>{links}</ul></nav>'


def _anchors(headings: Iterable[str]) -> list[str]:
    found: list[str] = []
    for heading in headings:
        name = re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-") or "part"
        count = 1
        while (anchor := name if count == 1 else f"{name}-{count}") in found:
            count += 1
        found.append(anchor)
    return found


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""

_STYLE = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --ink: #1c1e21; --faint: #5a6169; --line: #d8dce0; --band: #f4f6f8; --link: #0b5cad;
  --bar: #0072b2; --warn-paper: #fff3cd; --warn-ink: #6b2a00; --warn-line: #c2570c;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #15181b; --ink: #e6e8ea; --faint: #a3abb3; --line: #3a4047; --band: #1e2327; --link: #7fb9f2;
    --bar: #56b4e9; --warn-paper: #3a2a0a; --warn-ink: #ffd9a3; --warn-line: #e08a2e;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 1rem/1.55 system-ui, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 1.25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .75rem; padding-bottom: .3rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.75rem 0 .5rem; }
h2, h3, p, li, td, th { overflow-wrap: anywhere; }
p { max-width: 46rem; margin: .75rem 0; }
a { color: var(--link); }
.notes { background: var(--warn-paper); color: var(--warn-ink); border: 1px solid var(--warn-line);
  border-left-width: .4rem; border-radius: .3rem; padding: .75rem 1rem; margin: 0 0 1.5rem; }
.notes ul { margin: .25rem 0 0; padding-left: 1.2rem; }
nav { font-size: .9rem; margin-bottom: 1.5rem; }
nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: .25rem 1rem; margin: 0; padding: 0; }
figure { margin: 1rem 0; }
figure img { display: block; max-width: 100%; height: auto; border-radius: .2rem; }
figure img.sharp { image-rendering: pixelated; }
figcaption { color: var(--faint); font-size: .875rem; margin-top: .4rem; max-width: 46rem; }
.beside { display: flex; flex-wrap: wrap; gap: 0 2rem; align-items: flex-start; }
.beside > * { min-width: 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; font-size: .9375rem; }
caption { text-align: left; color: var(--faint); font-size: .875rem; padding-bottom: .35rem; }
th, td { padding: .35rem .8rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
thead th { background: var(--band); border-bottom: 2px solid var(--line); }
tbody th { font-weight: 600; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.bars { width: 12rem; vertical-align: middle; }
.bar { display: block; height: .6rem; background: var(--band); border: 1px solid var(--line); border-radius: .3rem; }
.bar > span { display: block; height: 100%; background: var(--bar); border-radius: .3rem; }
pre { background: var(--band); border: 1px solid var(--line); border-radius: .3rem; padding: .75rem 1rem;
  overflow-x: auto; font-size: .875rem; }
@media print {
  :root { --paper: #ffffff; --ink: #000000; --faint: #444444; --line: #999999; --band: #eeeeee; --link: #000000;
    --bar: #0072b2; --warn-paper: #fff3cd; --warn-ink: #6b2a00; --warn-line: #c2570c; color-scheme: light; }
  main { max-width: none; padding: 0; }
  nav { display: none; }
  figure, table, .notes { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  .notes, .bar, .bar > span { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
