"""One self-contained HTML page: headings, tables, pictures and the warnings that belong to its figures."""

import html
import os
import re
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from urllib.parse import quote

from customcnn.errors import printable
from customcnn.html.style import STYLE

LONG_WORD, PROSE = 22, 40  # letters


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


def escape(text: object) -> Html:
    """Return text as markup; what is markup already stays as it is."""
    return text if isinstance(text, Html) else Html(html.escape(printable(text)))


def data_uri(content: bytes, kind: str = "png") -> str:
    """Return the bytes of an image file as an address that holds the picture itself; `kind` is "png" or "jpeg"."""
    return f"data:image/{kind};base64," + b64encode(content).decode("ascii")


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
    # What is in the page already has nothing to wait for.
    shape = "" if inside else ' loading="lazy"'
    shape += (f' width="{width}"' if width else "") + (' class="sharp"' if sharp else "")
    picture = f'<img src="{escape(address)}" alt="{escape(alt)}"{shape}>'
    if not inside:
        picture = f'<a href="{escape(address)}">{picture}</a>'
    words = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return Html(f"<figure>{picture}{words}</figure>")


def score(name: str, value: float | None, low: float | None, high: float | None, about: str = "") -> Html:
    """Return a score between 0 and 1 in large figures, its interval in words and as a bar.

    Args:
        name: what is scored.
        value: None where it is undefined.
        low, high: the ends of its interval; None for no interval.
        about: a few words under it.
    """
    figures = "undefined" if value is None else f"{value:.3f}"
    words, bar = "no interval", ""
    if value is not None and low is not None and high is not None:
        words = f"{low:.3f} to {high:.3f}"
        left, right, place = (min(max(share, 0.0), 1.0) * 100 for share in (low, high, value))
        bar = (
            f'<span class="range" aria-hidden="true"><span style="left:{left:.1f}%;width:{right - left:.1f}%"></span>'
            f'<b style="left:{place:.1f}%"></b></span>'
        )
    under = f'<span class="about">{escape(about)}</span>' if about else ""
    return Html(
        f'<div class="score"><span class="name">{escape(name)}</span><span class="value">{figures}</span>'
        f'<span class="interval">{words}</span>{bar}{under}</div>'
    )


def group(kind: str, *blocks: Html) -> Html:
    """Return blocks in a box of a kind: "scores" and "charts" beside each other, "gallery" as a grid of cards."""
    return Html(f'<div class="{escape(kind)}">' + "".join(blocks) + "</div>")


def matrix(names: Sequence[str], counts: Sequence[Sequence[int]], caption: str = "") -> Html:
    """Return a confusion matrix: in each cell the count and its share of the row, which also sets the colour.

    Args:
        names: the N class names.
        counts: N rows, the true classes, of N columns, the predicted ones.
        caption: text above it.
    """
    head = "".join(f'<th scope="col"{_room(name)}>{escape(name)}</th>' for name in names)
    rows = []
    for name, row in zip(names, counts, strict=True):
        total = sum(row)
        shares = [count / total if total else 0.0 for count in row]
        cells = "".join(
            f'<td style="--share:{share:.3f}">{count:,}<small>{share:.1%}</small></td>'
            for count, share in zip(row, shares, strict=True)
        )
        rows.append(f'<tr><th scope="row"{_room(name)}>{escape(name)}</th>{cells}</tr>')
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    corner = '<th scope="col">true class ↓ predicted →</th>'
    return Html(
        f'<div class="wide"><table class="matrix">{title}<thead><tr>{corner}{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


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
    names, rows = list(header), list(rows)
    body = []
    for row in rows:
        if len(row) != len(names):
            raise ValueError(f"A row has one cell for each of {len(names)} columns. Received: {len(row)} cells.")
        cells = "".join(_cell(value) for value in row[1:])
        body.append(f'<tr><th scope="row"{_room(row[0])}>{escape(row[0])}</th>{cells}</tr>')
    # The name of a column of numbers stands over them.
    right = [place > 0 and bool(rows) and all(_figures(row[place]) for row in rows) for place in range(len(names))]
    kinds = [' class="number"' if figures else _room(name) for name, figures in zip(names, right, strict=True)]
    head = "".join(f'<th scope="col"{kind}>{escape(name)}</th>' for name, kind in zip(names, kinds, strict=True))
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return Html(
        f'<div class="wide"><table>{title}<thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'
    )


def _cell(value: object) -> str:
    text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else value
    kind = ' class="number"' if _figures(value) else _room(value)
    return f"<td{kind}>{escape(text)}</td>"


def _figures(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number or (not isinstance(value, Html) and _looks_like_number(str(value)))


def _looks_like_number(text: str) -> bool:
    """Tell whether it is a number, or two with "to" between them, as intervals have them."""
    number = r"[-+−]?[\d,]*\.?\d+(e[-+]?\d+)?\s?%?"
    return re.fullmatch(f"–|{number}( to {number})?", text) is not None


def _room(value: object) -> str:
    """Return the class of a cell that needs room: "long" for a word that must be broken, "prose" for sentences."""
    text = re.sub(r"<[^>]*>", "", value) if isinstance(value, Html) else str(value)
    if max(map(len, text.split()), default=0) > LONG_WORD:
        return ' class="long"'
    return ' class="prose"' if len(text) > PROSE else ""


def facts(values: Mapping[str, object], caption: str = "") -> Html:
    """Return a table of two columns without a header: what a thing is called, and what it is."""
    rows = "".join(
        f'<tr><th scope="row"{_room(k)}>{escape(k)}</th><td{_room(v)}>{escape(v)}</td></tr>' for k, v in values.items()
    )
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return Html(f'<div class="wide"><table>{title}<tbody>{rows}</tbody></table></div>')


def bars(shares: Mapping[str, float], caption: str = "") -> Html:
    """Return a table of shares between 0 and 1 as percentages, each with a bar."""
    rows = []
    for name, share in shares.items():
        length = min(max(share, 0.0), 1.0) * 100 if share == share else 0.0  # NaN has no length
        bar = f'<span class="bar" aria-hidden="true"><span style="width:{length:.1f}%"></span></span>'
        rows.append(
            f'<tr><th scope="row"{_room(name)}>{escape(name)}</th><td class="number">{share:.1%}</td>'
            f'<td class="bars">{bar}</td></tr>'
        )
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return Html(f'<div class="wide"><table>{title}<tbody>{"".join(rows)}</tbody></table></div>')


def subheading(text: str) -> Html:
    """Return a heading inside a section, which the list of links leaves out."""
    return Html(f"<h3>{escape(text)}</h3>")


def preformatted(text: str) -> Html:
    """Return lines as they are, in a typewriter font: a command, a file."""
    return Html("<pre><code>" + "\n".join(escape(line) for line in text.splitlines()) + "</code></pre>")


def page(
    title: str,
    sections: Sequence[Section],
    notes: Sequence[str] = (),
    *,
    lead: Sequence[str] = (),
    footer: str = "",
) -> str:
    """Return a whole HTML page that needs nothing from elsewhere, for light and dark screens and for paper.

    Args:
        title: its title and first heading.
        sections: its parts, in order; a page of more than two has a list of links to them.
        notes: warnings, shown in a banner above everything else.
        lead: blocks between the banner and the list of links: what matters most.
        footer: text or markup at its end.

    Returns:
        The page, which UTF-8 can hold whatever the names of files are.
    """
    anchors = _anchors(section.heading for section in sections)
    parts = [f"<h1>{escape(title)}</h1>", _banner(notes), *map(_block, lead), _contents(sections, anchors)]
    for section, anchor in zip(sections, anchors, strict=True):
        blocks = map(_block, section.blocks)
        heading = f'<h{section.level} id="{anchor}">{escape(section.heading)}</h{section.level}>'
        parts.append("\n".join(["<section>", heading, *blocks, "</section>"]))
    end = f"<footer>{escape(footer)}</footer>" if footer else ""
    body = "\n".join(part for part in parts if part)
    return _PAGE.format(title=escape(title), style=STYLE, body=body, footer=end)


def _block(block: str) -> str:
    return block if isinstance(block, Html) else f"<p>{escape(block)}</p>"


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
</main>{footer}
</body>
</html>
"""
