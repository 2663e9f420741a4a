"""Real tasks on a Ray of this machine, without a training: used by test_remote_trainings.py as a program.

One task is lost once, one fails. Prints as JSON what a user is told and what the tasks return.
"""

import json
import os
import sys
from pathlib import Path

from customcnn.cluster.ray_cluster import connect
from customcnn.cluster.remote_trainings import Spread
from customcnn.cluster.status_files import Post
from customcnn.errors import CustomCNNError


def work(post: Post, number: int) -> int:
    post.say(f"Epoch 1/1  loss {number}  (1 images/s)")
    mark = post.folder / "lost"
    if number == 2 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), 9)
    if number == 3:
        raise CustomCNNError("Three is no number.")
    assert "OMP_NUM_THREADS" not in os.environ and Path.cwd() == post.home
    return number * number


def main(folder: Path) -> None:
    said: list[str] = []
    found: dict[str, int] = {}
    error = ""
    with connect("ray") as cluster, Spread(cluster, gpus=0).crew(folder, said.append) as crew:
        for number in (1, 2):
            crew.start(f"task-{number}", f"Task {number}", "", work, number)
        while crew.running:
            key, value = crew.wait()
            crew.end(key, "done")
            found[key] = value
        crew.start("task-3", "Task 3", "fails", work, 3)
        try:
            crew.wait()
        except CustomCNNError as caught:
            error = str(caught)
    print(json.dumps({"said": said, "found": found, "error": error}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
