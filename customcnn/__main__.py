"""The program: the console script `customcnn` and `python -m customcnn`."""

import os
import sys


def main() -> None:
    """Run the command line as a process of its own; Ctrl-C ends it with one line and status 130 from the beginning."""
    leave_out_working_directory()  # first: what is imported before it could come from there
    from customcnn.io import interrupts

    interrupts.install()
    try:
        from customcnn.cli import main as run

        run()
    except KeyboardInterrupt:
        if sys.stderr is not None:
            print("Stopped.", file=sys.stderr)
        sys.exit(130)
    finally:
        interrupts.uninstall()


def leave_out_working_directory() -> None:
    """Import nothing from the working directory, here or in the Python processes that this one starts.

    It may hold anybody's files, and `python -m` looks there first: a `struct.py` beside the images would be run. Where
    the package itself was found there, it comes last.
    """
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        here = os.getcwd()
    except OSError:  # it was deleted
        return
    if sys.flags.safe_path or os.path.abspath(sys.path[0]) != here:
        return
    del sys.path[0]
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if root not in sys.path:
        sys.path.append(root)


if __name__ == "__main__":
    main()
