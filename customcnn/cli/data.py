"""Commands on folders of images: samples, download, split, crop, augment, pack. None of them imports Keras."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from customcnn.cli.cluster_options import FOLDER_OR_ADDRESS, on_option, spread
from customcnn.cli.output import GROUPS_UNKNOWN, colour, json_option, print_json, say, say_skipped, show_folder
from customcnn.data.download import SOURCES
from customcnn.progress import is_quiet, terminal

if TYPE_CHECKING:
    from customcnn.data.manifest import Manifest
    from customcnn.io.remote_path import Folder

FOLDER = click.Path(path_type=Path)

workers_option = click.option("--workers", type=int, help="How many at a time.  [default: one a core]")
replace_option = click.option("--replace", is_flag=True, help="Write over a destination that is not empty.")
skip_bad_option = click.option(
    "--skip-bad", is_flag=True, help="Name and leave out what does not belong or cannot be decoded."
)
groups_option = click.option(
    "--groups", type=FOLDER, metavar="FILE.csv", help="Each image's group: a CSV with the columns path and group."
)
pattern_option = click.option(
    "--group-pattern",
    metavar="RE",
    help="Each image's group: a regular expression with one capturing group, searched in its path; or the name cnmc.",
)


@click.command()
@click.argument("dst", type=FOLDER)
@click.option("--subjects", default=8, show_default=True, help="Subjects of each class.")
@click.option("--cells", default=30, show_default=True, help="Cells of each subject.")
@click.option("--size", default=450, show_default=True, help="Edge of the images in pixels.")
@click.option("--seed", default=0, show_default=True, help="The same seed draws the same bytes.")
@click.option("--first-subject", default=1, show_default=True, help="Number of the first one; others are new.")
@json_option
@replace_option
@workers_option
def samples(
    dst: Path,
    subjects: int,
    cells: int,
    size: int,
    seed: int,
    first_subject: int,
    as_json: bool,
    replace: bool,
    workers: int | None,
) -> None:
    """Draw cells like those of C-NMC into DST/all and DST/hem: drawn, not photographed.

    Every subject has a stain, a brightness and a size of its own, as real ones do.

    \b
    Example: customcnn samples cells --subjects 12 --cells 40
    """
    from customcnn.data.manifest import scan
    from customcnn.data.synthetic import draw_samples

    draw_samples(
        dst,
        subjects=subjects,
        cells=cells,
        size=size,
        seed=seed,
        first_subject=first_subject,
        workers=workers,
        replace=replace,
        progress=terminal,
    )
    show_folder(scan(dst), as_json)


@click.command()
@click.argument("name", type=click.Choice([*SOURCES]))
@click.argument("dst", type=FOLDER, required=False)
@json_option
@replace_option
def download(name: str, dst: Path | None, as_json: bool, replace: bool) -> None:
    """Fetch a public data set from Kaggle into DST, or into kagglehub's cache, and print what to run next.

    It needs pip install 'customcnn[download]'. Where it fails, it says how to fetch the data by hand.

    \b
    Example: customcnn download blood-cells archive
    """
    from customcnn.data.download import NotDownloaded, manual_steps, next_command
    from customcnn.data.download import download as fetch

    source = SOURCES[name]
    say(f"{source.title}, {source.licence}: {source.page}")
    try:
        folder = fetch(name, dst, replace_dst=replace, bar=sys.stderr.isatty() and not is_quiet())
    except NotDownloaded as error:
        click.secho(f"Error: {error}", fg="red", err=True, color=colour())
        for line in manual_steps(name, dst):
            click.echo(line, err=True)  # they are the way out of the error: --quiet shows them, too
        raise SystemExit(1) from None
    if as_json:
        print_json({"folder": folder, "next": next_command(name, folder)})
        return
    click.echo(f"Fetched: {folder}")
    click.echo(f"Next, in a checkout of customcnn: {next_command(name, folder)}")


@click.command()
@click.argument("src", type=FOLDER_OR_ADDRESS)
@click.argument("dst", type=FOLDER_OR_ADDRESS)
@click.option("--ratio", type=float, help="Share of the training part.  [default: .8, or what --val and --test leave]")
@click.option("--val", type=float, help="Share of the validation part.  [default: the rest]")
@click.option("--test", type=float, help="Share of a test part.  [default: none, or what --ratio and --val leave]")
@click.option("--seed", default=120, show_default=True, help="The same seed gives the same split.")
@click.option(
    "--by",
    type=click.Choice(["image", "group"]),
    help="What is kept whole.  [default: group with --group-pattern or --groups, else image]",
)
@pattern_option
@groups_option
@click.option("--link", type=click.Choice(["copy", "hard", "symlink"]), help="How files get there.  [default: copy]")
@click.option("--copy", "link", flag_value="copy", help="The same as --link copy.")
@json_option
@replace_option
@skip_bad_option
@workers_option
@on_option
def split(
    src: "Folder",
    dst: "Folder",
    ratio: float | None,
    val: float | None,
    test: float | None,
    seed: int,
    by: str | None,
    group_pattern: str | None,
    groups: Path | None,
    link: str | None,
    as_json: bool,
    replace: bool,
    skip_bad: bool,
    workers: int | None,
    on: str | None,
) -> None:
    """Split the class folders in SRC into DST/train, DST/validation and perhaps DST/test.

    By image, each class is shuffled and the first int(ratio * n) images train, as in the report. By group, all
    images of a group (a subject, an original photograph) stay in one part: only then a score holds for new ones.
    Giving groups means by group, unless --by image is given too. Groups that are known from a manifest.csv or from
    names like those of C-NMC alone do not: the split is by image, with a warning.
    SRC and DST may be addresses such as s3://bucket/cells.

    \b
    Example: customcnn split cells parts --group-pattern cnmc
    """
    from customcnn.data.split import shares, split_folder

    parts = shares(ratio, val, test)
    manifest = read_data(src, group_pattern, groups)
    with spread(on, workers, [src], [dst]) as pool:
        result = split_folder(
            manifest,
            dst,
            parts,
            by=by or ("group" if group_pattern or groups else "image"),
            seed=seed,
            link=link or "copy",
            replace_dst=replace,
            skip_bad=skip_bad,
            workers=pool,
            progress=terminal,
        )
    say_skipped(result.skipped)
    warnings = [leakage.warning for leakage in result.leakage if leakage.warning]
    leakages = [leakage.as_dict() for leakage in result.leakage]
    show_folder(result.manifest, as_json, skipped=result.skipped, leakages=leakages, notes=warnings)
    for warning in warnings:
        say(f"Warning: {warning}")
    if not result.manifest.groups_known:
        say(GROUPS_UNKNOWN)


@click.command()
@click.argument("src", type=FOLDER_OR_ADDRESS)
@click.argument("dst", type=FOLDER_OR_ADDRESS)
@click.option("--size", default=400, show_default=True, help="Edge of the square in pixels.")
@click.option(
    "--about",
    type=click.Choice(["centre", "nucleus"]),
    default="centre",
    show_default=True,
    help="The square's middle.",
)
@click.option("--check/--no-check", default=True, show_default=True, help="Refuse to cut foreground away.")
@click.option(
    "--max-cut", default=0.05, show_default=True, metavar="SHARE", help="Of an image's foreground: so much may be cut."
)
@json_option
@replace_option
@skip_bad_option
@workers_option
@on_option
def crop(
    src: "Folder",
    dst: "Folder",
    size: int,
    about: str,
    check: bool,
    max_cut: float,
    as_json: bool,
    replace: bool,
    skip_bad: bool,
    workers: int | None,
    on: str | None,
) -> None:
    """Crop every image in SRC to a square in DST.

    About its centre, without loss and in the same format: what is cut is background, judged by each image's border.
    Images that lose some foreground are named, and refused where that is more than --max-cut. Or about its largest
    stained nucleus: then the background is made evenly white, the square may pass the edges, and PNG is written. SRC
    and DST may be addresses such as s3://bucket/parts.

    \b
    Example: customcnn crop parts cropped --size 400
             customcnn crop blood cells --about nucleus --size 128
    """
    from customcnn.data.crop import crop_folder, cut_text

    manifest = read_data(src)
    with spread(on, workers, [src], [dst]) as pool:
        result = crop_folder(
            manifest,
            dst,
            size,
            about=about,
            check=check,
            max_cut=max_cut,
            replace_dst=replace,
            skip_bad=skip_bad,
            workers=pool,
            progress=terminal,
        )
    say_skipped(result.skipped)
    if result.reformatted and about == "centre":
        say(f"Note: {result.reformatted:,} images are now PNG: their own format cannot be saved again without loss.")
    if result.cut:
        images = f"{len(result.cut):,} image{'s' * (len(result.cut) != 1)}"
        say(f"Note: some foreground was cut away from {images}: {cut_text(result.cut)}.")
    cut = [{"path": path, "share": share} for path, share in result.cut]
    show_folder(result.manifest, as_json, skipped=result.skipped, reformatted=result.reformatted, cut=cut)


@click.command()
@click.argument("src", type=FOLDER_OR_ADDRESS)
@click.argument("dst", type=FOLDER_OR_ADDRESS)
@click.option("--count", type=int, help="How many training images to write.  [default: 20000]")
@click.option("--seed", default=7, show_default=True, help="The same seed gives the same bytes.")
@click.option("--balance", is_flag=True, help="As many for each class, instead of the classes' own shares.")
@click.option("--minority", is_flag=True, help="Keep all originals; add copies where a class has fewer than others.")
@click.option("--probability", default=0.5, show_default=True, help="Of each operation, independently.")
@click.option("--turns/--no-turns", default=True, show_default=True, help="rotate90 and rotate270.")
@click.option("--flips/--no-flips", default=True, show_default=True, help="flip_left_right and flip_top_bottom.")
@click.option("--rotate", default=0, metavar="DEGREES", help="Turn by up to so much, at most 25.")
@click.option("--zoom", default=1.0, metavar="FACTOR", help="Enlarge by up to so much, at most 4.")
@click.option("--shear", default=0, metavar="DEGREES", help="Shear by up to so much, at most 25.")
@click.option("--shift", default=0.0, metavar="SHARE", help="Move by up to this share of the edges, at most .5.")
@click.option("--brightness", default=0.0, metavar="X", help="Multiply by 1 - X to 1 + X.")
@click.option("--contrast", default=0.0, metavar="X", help="Multiply by 1 - X to 1 + X.")
@click.option("--random-erasing", default=0.0, metavar="SHARE", help="A rectangle of noise, edges up to this share.")
@json_option
@replace_option
@workers_option
@on_option
def augment(
    src: "Folder",
    dst: "Folder",
    count: int | None,
    seed: int,
    balance: bool,
    minority: bool,
    as_json: bool,
    replace: bool,
    workers: int | None,
    on: str | None,
    **operations: Any,
) -> None:
    """Write COUNT augmented training images into DST with Augmentor's operations; other parts are carried over.

    SRC is a split folder, or a folder of class folders that are training images as a whole. Each name tells its
    original. A run that was killed goes on where it stopped. With --minority every training image stays as it is, and
    the smaller classes get augmented copies until each has as many as the largest. SRC and DST may be addresses such
    as s3://bucket/parts.

    \b
    Example: customcnn augment cropped augmented --count 20000 --seed 7
             customcnn augment cropped balanced --minority --rotate 15 --shift .1
    """
    from customcnn.data.augment import augment_folder
    from customcnn.data.augmentor import Operations

    manifest = read_data(src, skip_bad=False)
    with spread(on, workers, [src], [dst]) as pool:
        result = augment_folder(
            manifest,
            dst,
            count,
            seed=seed,
            operations=Operations(**operations),
            balance=balance,
            minority=minority,
            replace_dst=replace,
            workers=pool,
            progress=terminal,
        )
    if result.converted:
        say(f"Note: {result.converted:,} samples come from images that were converted to 8-bit RGB.")
    show_folder(result.manifest, as_json, converted=result.converted)


@click.command()
@click.argument("data", type=FOLDER_OR_ADDRESS)
@click.option("--size", metavar="N|HxW", help="Edge in pixels, or height x width: a network's input.")
@click.option("--upload", is_flag=True, help="Lay it beside the images, too, where DATA is an address.")
@click.option(
    "--clean", is_flag=True, help="Remove all caches of DATA that no process is using, instead of making one."
)
@json_option
@skip_bad_option
@workers_option
@on_option
def pack(
    data: "Folder",
    size: str | None,
    upload: bool,
    clean: bool,
    as_json: bool,
    skip_bad: bool,
    workers: int | None,
    on: str | None,
) -> None:
    """Decode all images in DATA once, and say where they lie: train would do so at its start, and finds them there.

    They lie in DATA/.customcnn, or where that cannot be, as of an address, in the system's temporary folder, which the
    variable TMPDIR names: one array of uint8 that is mapped into memory. A new one replaces what is out of date.
    With --upload they lie at the address, too, and whoever packs or trains from there copies that one file instead of
    decoding all images.

    \b
    Example: customcnn pack augmented --size 224
             customcnn pack s3://bucket/augmented --size 120x160 --upload --on ray
             customcnn pack augmented --clean
    """
    if clean:
        if size or upload:
            raise click.UsageError("--clean makes no cache: leave out --size and --upload.")
        _clean(data, as_json)
        return
    if not size:
        raise click.UsageError("Missing option '--size'.")
    from customcnn.data.pack import pack as make_pack
    from customcnn.data.pack import parse_size, refuse_upload
    from customcnn.data.pack import upload as upload_pack
    from customcnn.images.decode import converted_note

    wanted = parse_size(size)
    if upload:
        refuse_upload(data)
    manifest = read_data(data, skip_bad=skip_bad, workers=workers)
    with spread(on, workers, [data]) as pool:
        packed = make_pack(manifest, wanted, workers=pool, progress=terminal)
    uploaded = upload_pack(packed, progress=terminal) if upload else None
    if packed.converted:
        say(converted_note(packed.converted))
    count, size_in_bytes = len(packed.images), packed.images.nbytes
    if as_json:
        print_json({"pack": packed.path, "uploaded": uploaded, "images": count, "size": wanted, "bytes": size_in_bytes})
        return
    click.echo(f"Pack: {packed.path}")
    if uploaded:
        click.echo(f"Uploaded: {uploaded}")
    click.echo(f"{count:,} images of {wanted[0]} x {wanted[1]} pixels, {size_in_bytes:,} bytes")


def _clean(data: "Folder", as_json: bool) -> None:
    from customcnn.data.pack_places import clean

    done = clean(data)
    if as_json:
        print_json({"removed": done.count, "bytes": done.bytes, "in_use": done.in_use})
        return
    click.echo(f"Removed {done.count:,} caches of images, {done.bytes:,} bytes")
    if done.in_use:
        say(f"Note: {done.in_use:,} are in use, or may not be removed by you, and stay.")


def read_data(
    src: "Folder",
    group_pattern: str | None = None,
    groups: Path | None = None,
    *,
    skip_bad: bool | None = None,
    workers: int | None = None,
) -> "Manifest":
    """Scan a folder and give its images the groups that the options name.

    Args:
        src: the folder.
        group_pattern: as from --group-pattern.
        groups: as from --groups.
        skip_bad: whether to name and leave out what does not belong or cannot be decoded, or to refuse what does not
            belong; None leaves that to a command that decodes all images anyway, so that it names everything at once.
        workers: threads for decoding; None for one a core.
    """
    from customcnn.data.manifest import scan

    _require_one(group_pattern, groups)
    manifest = scan(src, skip_bad=skip_bad is not False)
    if skip_bad:
        manifest = without_bad(manifest, workers)
    return with_groups(manifest, group_pattern, groups)


def without_bad(manifest: "Manifest", workers: int | None) -> "Manifest":
    """Name and leave out what `scan` left out and what cannot be decoded; the other records stay as they are."""
    from dataclasses import replace

    from customcnn.data.split import check_files

    good, bad = check_files(manifest, skip_bad=True, workers=workers, progress=terminal)
    say_skipped(bad)
    kept = {record.path for record in good.records}
    return replace(manifest, records=tuple(record for record in manifest.records if record.path in kept))


def with_groups(manifest: "Manifest", group_pattern: str | None, groups: Path | None) -> "Manifest":
    """Give the images the groups that --group-pattern or --groups names; without either, those that are known."""
    from customcnn.data.manifest import with_group_file, with_group_pattern, with_known_groups

    _require_one(group_pattern, groups)
    if group_pattern:
        return with_group_pattern(manifest, group_pattern)
    return with_group_file(manifest, groups) if groups else with_known_groups(manifest)


def _require_one(group_pattern: str | None, groups: Path | None) -> None:
    if group_pattern and groups:
        raise click.UsageError("--group-pattern and --groups exclude each other.")


COMMANDS = (samples, download, split, crop, augment, pack)
