"""The tables of a reproduced study: published beside measured, as text, Markdown, HTML and CSV."""

from collections.abc import Iterable
from typing import Any

from customcnn.data.manifest import PARTS
from customcnn.html.page import Section, beside, figure, page, preformatted
from customcnn.html.page import table as html_table
from customcnn.io.atomic import write_text
from customcnn.metrics.scores import format_report, recall_names
from customcnn.runs.run_dir import RunDir, rows_to_csv
from customcnn.studies.results import DONE, FAILED, NOT_RUN, Reproduction, Result, Value
from customcnn.studies.study_file import PLACES, Row, label

MARKDOWN, HTML, CSV = "study.md", "study.html", "study.csv"
NONE = "–"
INTERVALS = "In brackets: the 95 % interval of what was measured; behind ±: the standard deviation over the folds."
WHOLE = ("parameters", "trainable", "non_trainable", "epochs")

Table = list[list[str]]
"""Rows of text, the heading first."""


def heading(found: Reproduction) -> str:
    """Return the study's title, and behind it what was made smaller: options, and rows that were left out."""
    rows = sum(result.status != NOT_RUN for result in found.results.values())
    left = [f"{rows} of {len(found.results)} rows"] if rows < len(found.results) else []
    words = ", ".join([*([found.changes.words] if found.changes.words else []), *left])
    return f"{found.study.title} ({words})" if words else found.study.title


def summaries(found: Reproduction) -> dict[str, Table]:
    """Return the tables that matter by their headings: each scored part, and the folds and the search if there are."""
    tables = {f"Scores of the {part} part": _summary(found, part, "train") for part in found.study.parts}
    for kind, place, title in (("crossval", "folds", "Cross-validation"), ("tune", "search", "Search")):
        if any(row.kind == kind for row in found.study.rows):
            tables[title] = _summary(found, place, kind)
    return tables


def _summary(found: Reproduction, place: str, kind: str) -> Table:
    rows = [row for row in found.study.rows if row.kind == kind]
    rows += [mark for mark in found.study.marks if place in mark.published]
    head, columns = ["row"], []
    for score in PLACES.get(place, found.study.scores):
        name = _label(place, score, found.results.values())
        if any(score in row.published.get(place, {}) for row in rows):
            head.append(f"{name}, published")
            columns.append((score, True))
        head.append(f"{name}, measured")
        columns.append((score, False))
    table = [[*head, "remarks"]]
    for row in rows:
        result = found.results.get(row.name, _published_only(row))
        cells = [row.name]
        for score, published in columns:
            if published:
                cells.append(number(row.published.get(place, {}).get(score), score))
            else:
                cells.append(interval(result.measured.get(place, {}).get(score), score))
        table.append([*cells, remarks(result, place)])
    return table


def _label(place: str, score: str, results: Iterable[Result]) -> str:
    """Return what a score is called; of sensitivity and specificity also the class whose recall they are."""
    for metrics in (each for result in results for each in result.metrics.values() if each.get("positive")):
        return recall_names(metrics["positive"], metrics["classes"]).get(score) or label(place, score)
    return label(place, score)


def _published_only(mark: Row) -> Result:
    return Result(mark.name, "not trained here")


def remarks(result: Result, place: str) -> str:
    """Return the few words that stand behind a row's scores: why they are missing, or why not to trust them."""
    if result.status != DONE:
        return result.status
    if place not in result.measured:
        return f"the data has no {place} part"
    metrics = result.metrics.get("out of fold" if place == "folds" else place, {})
    words = []
    if metrics.get("leakage", {}).get("warning"):
        words.append("inflated by leakage")
    if metrics.get("chosen_on_this_part"):
        words.append("best epoch chosen here")
    if metrics.get("drawn"):
        words.append("drawn cells")
    return ", ".join(words)


def number(value: float | None, score: str) -> str:
    """Return a number as the tables show it: counts with commas, everything else with four places."""
    if value is None:
        return NONE
    return f"{value:,.0f}" if score in WHOLE else f"{value:.4f}"


def interval(value: Value | None, score: str) -> str:
    """Return a measured number with its interval, where it has one."""
    if value is None or value.get("value") is None:
        return NONE
    text = number(value["value"], score)
    if value.get("deviation") is not None:
        return f"{text} ± {number(value['deviation'], score)}"
    if value.get("low") is None or value.get("high") is None:
        return text
    return f"{text} ({number(value['low'], score)} to {number(value['high'], score)})"


def costs(found: Reproduction) -> Table:
    """Return what every row took: the size of the network, the epochs, the time."""
    table = [["row", "parameters", "trained parameters", "best epoch", "seconds per epoch"]]
    for row in found.study.rows:
        result = found.results[row.name]
        network = result.measured.get("network", {})
        sizes = [number(network.get(key, {}).get("value"), key) for key in ("parameters", "trainable")]
        epochs = f"{result.epoch} of {result.epochs}" if result.epochs else NONE
        table.append([row.name, *sizes, epochs, f"{result.seconds:.1f}" if result.seconds else NONE])
    return table


def details(row: Row, result: Result) -> Table:
    """Return every published number of a row beside the measured one."""
    table = [["where", "what", "published", "measured"]]
    for place, scores in row.published.items():
        for score, published in scores.items():
            measured = result.measured.get(place, {}).get(score)
            where = _part(place)
            table.append([where, _label(place, score, [result]), number(published, score), interval(measured, score)])
    return table


def warnings(found: Reproduction) -> list[str]:
    """Return what belongs above every table: that it was changed, and the warnings of the rows, each once."""
    lines = []
    if found.changes.words:
        lines.append(f"Not as in the study: {found.changes.words}. These numbers say nothing about the published ones.")
    for result in found.results.values():
        lines += [note for note in result.notes if note not in lines]
    return lines


def write_tables(found: Reproduction) -> None:
    """Write study.csv, study.md and study.html, each whole or not at all."""
    found.out.mkdir(parents=True, exist_ok=True)
    write_text(found.out / CSV, rows_to_csv(csv_rows(found)))
    write_text(found.out / MARKDOWN, markdown(found))
    write_text(found.out / HTML, html(found))


def csv_rows(found: Reproduction) -> list[dict[str, object]]:
    """Return one row for each number: published, measured, or both."""
    rows = []
    for row in [*found.study.rows, *found.study.marks]:
        result = found.results.get(row.name, _published_only(row))
        places = [*row.published, *(place for place in result.measured if place not in row.published)]
        pairs = [
            (place, score)
            for place in places
            for score in {**row.published.get(place, {}), **result.measured.get(place, {})}
        ]
        for place, score in pairs or [("", "")]:
            measured = result.measured.get(place, {}).get(score, {})
            rows.append(
                {
                    "row": row.name,
                    "status": result.status,
                    "place": place,
                    "score": score,
                    "published": _csv(row.published.get(place, {}).get(score)),
                    "measured": _csv(measured.get("value")),
                    "low": _csv(measured.get("low")),
                    "high": _csv(measured.get("high")),
                    "deviation": _csv(measured.get("deviation")),
                    "remarks": remarks(result, place) if place in found.study.parts else "",
                    "changes": found.changes.words,
                    "reason": result.reason,
                }
            )
    return rows


def _csv(value: float | None) -> object:
    return "" if value is None else value


def markdown(found: Reproduction) -> str:
    """Return the page as Markdown."""
    blocks = [f"# {heading(found)}", *(f"> {line}" for line in warnings(found)), *found.study.notes]
    for title, table in summaries(found).items():
        blocks += [f"## {title}", INTERVALS, _markdown_table(table)]
    blocks += ["## What it took", _markdown_table(costs(found))]
    for row in (*found.study.rows, *found.study.marks):
        result = found.results.get(row.name, _published_only(row))
        blocks += [f"## {row.name}", *_words(found, row, result)]
        if len(details(row, result)) > 1:
            blocks.append(_markdown_table(details(row, result)))
        for part, metrics in result.metrics.items():
            blocks.append(f"```text\n{_part(part)}\n\n{format_report(dict(metrics))}\n```")
        for source, alt in _pictures(found, row, result):
            blocks.append(f"![{alt}]({source})")
    return "\n\n".join(blocks) + "\n"


def _markdown_table(table: Table) -> str:
    head, *rows = [[cell.replace("|", "\\|") for cell in row] for row in table]
    rule = ["---"] * len(head)
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, rule, *rows])


def _words(found: Reproduction, row: Row, result: Result) -> list[str]:
    if row.recipe is None:
        return [row.note] if row.note else []
    recipe = f"Recipe: {row.recipe.relative_to(found.study.path.parent)}."
    lines = [" ".join(part for part in (recipe, row.note) if part)]
    if result.status == FAILED:
        lines.append(f"Failed: {result.reason}")
    elif result.status != DONE:
        lines.append("Not run.")
    return lines


def _part(name: str) -> str:
    return f"{name} part" if name in PARTS else name


def _pictures(found: Reproduction, row: Row, result: Result) -> Iterable[tuple[str, str]]:
    """Yield the pictures of a row that are there: their path relative to the page, and what they show."""
    run = found.run(row)
    named = [
        (run.curves, f"Loss and accuracy of {row.name} over the epochs"),
        (run.path / "folds.png", f"The folds of {row.name}"),
        (run.path / "trials.png", f"The trials of {row.name}"),
    ]
    for part, folder in result.folders.items():
        named.append((RunDir(run.path / folder).confusion, f"Confusion matrix of {row.name}, {_part(part)}"))
    for path, alt in named:
        if path.is_file():
            yield path.relative_to(found.out).as_posix(), alt


def html(found: Reproduction) -> str:
    """Return the page as HTML; its pictures lie in the runs."""
    sections = []
    for title, table in summaries(found).items():
        sections.append(Section(title, [_html_table(table, f"{heading(found)}. {INTERVALS}")]))
    sections.append(Section("About this study", found.study.notes))
    sections.append(Section("What it took", [_html_table(costs(found), heading(found))]))
    for row in (*found.study.rows, *found.study.marks):
        result = found.results.get(row.name, _published_only(row))
        blocks: list[Any] = _words(found, row, result)
        if len(details(row, result)) > 1:
            blocks.append(_html_table(details(row, result)))
        pictures = list(_pictures(found, row, result))
        if pictures:
            blocks.append(beside(*(figure(source, alt, alt, width=420) for source, alt in pictures)))
        for part, metrics in result.metrics.items():
            blocks.append(preformatted(f"{_part(part)}\n\n{format_report(dict(metrics))}"))
        sections.append(Section(row.name, blocks))
    return page(heading(found), sections, warnings(found))


def _html_table(table: Table, caption: str = "") -> Any:
    return html_table(table[0], table[1:], caption)


def text(found: Reproduction, draw: Any) -> str:
    """Return the summaries as aligned text.

    Args:
        found: the reproduction.
        draw: draws a table of text, as `customcnn.cli.output.table` does.
    """
    blocks = [heading(found)]
    blocks += [f"{title}\n{draw(table)}" for title, table in summaries(found).items()]
    return "\n\n".join(blocks)
