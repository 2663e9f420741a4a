"""The recipes under experiments/: each is read, opens with its command, and trains."""

from pathlib import Path

import pytest

from customcnn.recipe import load_recipe

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "experiments").rglob("*.toml"))
NAMES = [str(path.relative_to(ROOT)) for path in RECIPES]


@pytest.mark.parametrize("path", RECIPES, ids=NAMES)
def test_a_recipe_is_read_and_opens_with_its_command(path):
    load_recipe(path, {})
    heading = path.read_text().split("\n\n")[0]
    assert all(line.startswith("#") for line in heading.splitlines())
    assert "customcnn train " in heading
    if path.parent.name != "experiments":
        assert f"--recipe {path.relative_to(ROOT)}" in heading
        assert "# Takes: " in heading and "# Published: " in heading


def test_the_readme_lists_every_recipe():
    text = (ROOT / "experiments" / "README.md").read_text()
    assert all(f"({path.relative_to(ROOT / 'experiments')})" in text for path in RECIPES)


@pytest.mark.slow
@pytest.mark.parametrize("path", RECIPES, ids=NAMES)
def test_a_recipe_trains_for_an_epoch(path, tmp_path):
    """On a few drawn cells, at the recipe's own input size."""
    from customcnn.manifest import scan
    from customcnn.runs import RunDir
    from customcnn.samples import draw_samples
    from customcnn.split import shares, split_folder
    from customcnn.train import train

    draw_samples(tmp_path / "cells", subjects=2, cells=4, size=64)
    split_folder(scan(tmp_path / "cells"), tmp_path / "parts", shares(0.5))
    recipe = load_recipe(path, {"epochs": 1, "batch_size": 4})
    result = train(scan(tmp_path / "parts"), RunDir(tmp_path / "run"), recipe)
    assert len(result.history) == 1 and result.run.best.is_file()
