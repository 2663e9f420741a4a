"""The pictures of docs/serve.md: python -m tests.programs.serve_screenshots RUN OUT IMAGE..."""

import sys
import tempfile
from pathlib import Path

from customcnn.runs.run_dir import RunDir
from tests.serve.test_browser import cards, drop, show
from tests.support.browsers import open_browser, screenshot
from tests.support.served import in_process

VIEWS = ((1280, "light"), (375, "dark"))


def main(run: Path, out: Path, images: list[Path]) -> None:
    """Write serve-WIDTH-SCHEME.png into a folder."""
    with (
        tempfile.TemporaryDirectory() as home,
        open_browser(Path(home) / "profile") as browser,
        in_process(RunDir(run), home=Path(home)) as (client, *_),
    ):
        for width, scheme in VIEWS:
            show(browser, client, scheme=scheme, width=width)
            drop(browser, *(path.resolve() for path in images))
            cards(browser, len(images), len(images))
            screenshot(browser, out / f"serve-{width}-{scheme}.png", width)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), [Path(name) for name in sys.argv[3:]])
