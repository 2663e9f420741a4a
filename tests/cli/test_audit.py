"""The command audit: its options, its statuses, and what it refuses before it begins."""

import json

import pytest
from click.testing import CliRunner

from customcnn.cli import cli
from customcnn.data.manifest import scan
from customcnn.data.split import check_files
from tests.support.audit_pictures import cell, save
from tests.support.commands import error_line


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "cells/all/a.png", cell(1))
    save(tmp_path / "cells/all/b.png", cell(1)[::-1])
    save(tmp_path / "cells/hem/c.png", cell(2))
    for part, name, number in (("train", "a", 1), ("validation", "b", 1), ("train", "c", 2)):
        save(tmp_path / f"parts/{part}/all/{name}.png", cell(number))
    return tmp_path


def run(*words):
    return CliRunner().invoke(cli, ["audit", *words, "--workers", "1"])


def test_a_folder_that_is_not_split_is_audited(here):
    result = run("cells")
    assert result.exit_code == 0
    assert "near-duplicates (turned, flipped or saved again): 1" in result.output


def test_every_damaged_image_is_named_and_skipped_on_demand(here):
    whole = (here / "cells/all/a.png").read_bytes()
    for name in ("all/x.png", "all/y.png", "hem/z.png"):
        (here / "cells" / name).write_bytes(whole[:200])
    for more in ((), ("--deep",)):
        result = run("cells", *more)
        assert result.exit_code == 1 and not result.stdout
        message = str(result.exception)
        assert all(f"{name}' (damaged" in message for name in ("all/x.png", "all/y.png", "hem/z.png"))
        assert message.endswith("Remove them or use --skip-bad.")
    result = run("cells", "--skip-bad")
    assert result.exit_code == 0 and "near-duplicates (turned, flipped or saved again): 1" in result.stdout
    assert all(f"{name}' (damaged" in result.stderr for name in ("all/x.png", "all/y.png", "hem/z.png"))


def test_what_changed_since_the_manifest_is_still_found_with_skip_bad(here):
    check_files(scan(here / "cells"))[0].write(here / "cells/manifest.csv")
    save(here / "cells/all/a.png", cell(5))
    result = run("cells", "--skip-bad", "--json")
    assert json.loads(result.stdout)["changed"] == ["all/a.png"]


def test_strict_ends_with_1_on_a_leak_only(here):
    assert run("parts", "--strict").exit_code == 1
    assert run("parts").exit_code == 0
    assert run("cells", "--strict").exit_code == 0, "copies in data that is not split leak nowhere yet"
    assert run("cells", "--strict", "--group-pattern", "/(.)").exit_code == 1
    assert run("cells", "--strict", "--group-pattern", "^(.)").exit_code == 0


def test_json_holds_everything(here):
    found = json.loads(run("parts", "--json", "--within").stdout)
    assert found["leaks"] is True
    assert found["identical"] == [["train/all/a.png", "validation/all/b.png"]]
    assert found["near_within"] == []
    assert found["quality"]["enough"] is False
    assert found["deep"] is None


def test_a_page_is_written(here):
    result = run("cells", "--page", "page.html", "--pictures", "1")
    assert result.exit_code == 0
    assert "Page: 'page.html'" in result.stderr
    assert (here / "page.html").read_text().startswith("<!DOCTYPE html>")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--page", "cells"], "--page names a file that ends in .html. Received: 'cells'."),
        (["--page", "page.txt"], "--page names a file that ends in .html."),
        (["--page", "no/page.html"], "--page names a file in a folder that exists."),
        (["--deep", "--groups-out", "cells/manifest.csv"], "--groups-out names a file that ends in .csv."),
    ],
)
def test_targets_are_refused_before_the_work(here, shell, monkeypatch, words, message):
    monkeypatch.setattr("customcnn.audit.audit", lambda *_, **__: pytest.fail("it has begun"))
    assert message in error_line(*shell("audit", "cells", *words))


def test_groups_out_needs_deep(here):
    result = run("cells", "--groups-out", "groups.csv")
    assert result.exit_code == 2
    assert "--groups-out needs --deep" in result.output


def test_two_ways_to_groups_exclude_each_other(here):
    (here / "groups.csv").write_text("path,group\n")
    result = run("cells", "--group-pattern", "/(.)", "--groups", "groups.csv")
    assert result.exit_code == 2
    assert "exclude each other" in result.output
