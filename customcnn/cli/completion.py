"""The command completion, and what the Tab key finds: networks, recipe keys, studies. Nothing heavy is imported."""

from pathlib import Path

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
    get_completion_class,
)

ANYWHERE = ("--debug", "-q", "--quiet")
"""Options that may stand anywhere in the line: to a command they are unknown."""

VARIABLE = "_CUSTOMCNN_COMPLETE"
"""Tells the program to complete instead of run; click looks for this name."""

INSTALL = {
    "bash": 'To complete with the Tab key, put this line into ~/.bashrc: eval "$(customcnn completion bash)"',
    "zsh": "To complete with the Tab key, put this line into ~/.zshrc, below compinit: "
    'eval "$(customcnn completion zsh)"',
    "fish": "To complete with the Tab key, run once: "
    "customcnn completion fish > ~/.config/fish/completions/customcnn.fish",
}


class _Anywhere(ShellComplete):
    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        return super().get_completions([word for word in args if word not in ANYWHERE], incomplete)


class Bash(_Anywhere, BashComplete):
    """Bash takes an equals sign for the end of a word: `--set optimizer=a` comes as three words after --set."""

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the cursor, and the one at it with what stands before its equals sign."""
        args, incomplete = super().get_completion_args()
        words, self.before = [*args, incomplete], ""
        if incomplete == "=" and len(args) > 1:
            words[-2:] = [f"{args[-1]}="]
        elif len(args) > 1 and args[-1] == "=":
            words[-3:] = [f"{args[-2]}={incomplete}"]
        if words[-1] != incomplete:
            self.before = words[-1].partition("=")[0] + "="
        return words[:-1], words[-1]

    def format_completion(self, item: CompletionItem) -> str:
        """Return the line for one item, without what Bash takes for an earlier word."""
        return f"{item.type},{item.value.removeprefix(self.before)}"


class Zsh(_Anywhere, ZshComplete):
    """As click's own."""


class Fish(_Anywhere, FishComplete):
    """As click's own."""


for shell_class in (Bash, Zsh, Fish):
    add_completion_class(shell_class)


@click.command()
@click.argument("shell", type=click.Choice(tuple(INSTALL)))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that lets a shell complete commands, options, networks, recipe keys and files with the Tab key.

    Its last line says how to install it.

    \b
    Example: customcnn completion bash
             customcnn completion fish
    """
    found = get_completion_class(shell)
    assert found is not None
    script = found(context.find_root().command, {}, "customcnn", VARIABLE).source()
    click.echo(f"{script.rstrip()}\n\n# {INSTALL[shell]}")


def models(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the names of networks that begin so."""
    from customcnn.models import list_models

    return [CompletionItem(s.name, help=s.title) for s in list_models() if s.name.startswith(incomplete)]


def settings(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return `key=` for the recipe keys that begin so; for one key alone, with the values it is known to take."""
    from customcnn.recipe.recipe import KEYS

    key, equals, value = incomplete.partition("=")
    keys = [known for known in KEYS if known == key or (not equals and known.startswith(key))]
    if len(keys) != 1:
        return [CompletionItem(f"{known}=") for known in keys]
    return [CompletionItem(f"{keys[0]}={word}") for word in _values(keys[0]) if word.startswith(value)]


def _values(key: str) -> list[str]:
    from customcnn.augmentation.settings import ENGINES, FLIPS
    from customcnn.recipe.recipe import CHOICES, KEYS
    from customcnn.recipe.sampling import CLASS_WEIGHTS
    from customcnn.recipe.schedules import KINDS

    inside = {"schedule.kind": KINDS, "sampling.class_weights": CLASS_WEIGHTS}
    inside |= {"augmentation.engine": ENGINES, "augmentation.flip": FLIPS}
    default = KEYS[key].default
    if key == "model":
        from customcnn.models import list_models

        return [spec.name for spec in list_models()]
    if isinstance(default, bool):
        return ["false", "true"]
    # Of any other key the default: with a second way to go on, no shell puts a blank behind the equals sign.
    return [*(CHOICES | inside).get(key, ("", str(default)) if default != "" else ("",))]


def studies(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the studies below experiments/ whose path or name begins so; where there are none, let the shell look."""
    found = sorted(path.parent for path in Path("experiments").glob("*/study.toml"))
    names = [path.as_posix() for path in found if path.name.startswith(incomplete)]
    names = names or [path.as_posix() for path in found if path.as_posix().startswith(incomplete)]
    return [CompletionItem(name) for name in names] or [CompletionItem(incomplete, type="file")]


COMMANDS = (completion,)
