"""The command that starts one training on several nodes of a cluster: launch."""

import click

from customcnn.cli.output import say, say_how_to_go_on

ALLOWED = ("train",)


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--nodes", required=True, type=click.IntRange(1), help="How many processes: one on each node.")
@click.option(
    "--on",
    default="ray",
    show_default=True,
    metavar="PLACE",
    help="The cluster: ray (this machine, or RAY_ADDRESS), ray://HOST:PORT or HOST:PORT.",
)
@click.option("--cpus", default=1.0, show_default=True, help="Processors that each process holds.")
@click.option("--gpus", type=float, help="GPUs that each process holds.  [default: as many as each node has]")
@click.option("--restarts", default=3, show_default=True, type=click.IntRange(0), help="How often all may start again.")
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- train ...")
def launch(nodes: int, on: str, cpus: float, gpus: float | None, restarts: int, words: tuple[str, ...]) -> None:
    """Train one network on several nodes of a Ray cluster. Needs customcnn[cluster,jax].

    Behind -- stands a command line of customcnn train. Each node runs one process of it. DATA and the run lie in
    folders that every node sees. Where a process or a node is lost, all start again from the last checkpoint.

    \b
    Example: customcnn launch --nodes 4 --on 10.0.0.5:6379 -- train parts --model small --out runs/four
    """
    from customcnn.cluster import connect, parse_place
    from customcnn.cluster.launch import Needs
    from customcnn.cluster.launch import launch as run

    if words[0] not in ALLOWED:
        raise click.UsageError(
            f"launch starts customcnn train. Received: {words[0]}. Write: launch --nodes N -- train ..."
        )
    taken = {"--hosts", "--rank", "--world", "--devices", "--replace"} & {word.partition("=")[0] for word in words}
    if taken:
        raise click.UsageError(f"launch itself says where each process stands. Received: {', '.join(sorted(taken))}.")
    place = parse_place(on)
    assert place is not None
    try:
        with connect(place):
            run(words, Needs(nodes, cpus, gpus, restarts), out=click.echo, say=say)
    except KeyboardInterrupt:
        say_how_to_go_on("--resume")
        raise


COMMANDS = (launch,)
