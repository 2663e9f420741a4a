"""A process of a job, as `launch` starts it: `python -m customcnn.cluster.rank_main` with the words of a command.

It reads standard input and leaves when that ends: with the worker that has started it, however that comes to its end.
"""

import os
import runpy
import sys
import threading

GONE = 143
"""Exit status of a process whose worker has left."""


def main() -> None:
    """Run the command line, as `python -m customcnn` does."""

    def watch() -> None:
        while os.read(0, 1):
            pass
        os._exit(GONE)

    threading.Thread(target=watch, daemon=True).start()
    sys.argv[0] = "customcnn"
    runpy.run_module("customcnn", run_name="__main__")


if __name__ == "__main__":
    main()
