"""Nothing is sent anywhere, also not by a library: what each extra does is watched from outside, call by call."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

NETWORK = """
import numpy as np
from customcnn.models import build_model
model = build_model("small", classes=2, input_size=32)
"""

ACTIONS = {
    "tensorflow": NETWORK + "model.predict_on_batch(np.zeros((1, 32, 32, 3), np.uint8))",
    "openvino": NETWORK + "from customcnn.export.openvino import convert; convert(model)",
    "onnx": "from customcnn.inference.runtimes.onnx import load_onnxruntime as load; load().InferenceSession; "
    "from onnxruntime import quantization; import tf2onnx",
    "serve": "from customcnn.serve import quiet_environment\n"
    "with quiet_environment():\n import gradio as gr\n gr.Blocks(analytics_enabled=False)",
    "mlflow": "from customcnn.recipe.recipe import load_recipe\nfrom customcnn.training.loggers import require\n"
    "require(load_recipe(None, {'mlflow': 'logs'}))",
    "download": "import kagglehub",
    "albumentations": "from customcnn.augmentation import make_transform\n"
    "from customcnn.augmentation.settings import Augmentation\nimport numpy as np\n"
    "make_transform(Augmentation(engine='albumentations', flip='both'))(np.zeros((1, 8, 8, 3), np.uint8), (0,))",
    "tune": "import optuna; optuna.create_study()",
    "litert": "import ai_edge_litert.interpreter",
    "tensorboard": "import tensorboard",
    "deep": "import cv2, faiss",
}
"""By extra, what the package does with it; run in a process of its own."""

TRACKERS = ("intel", ".cache/Microsoft", ".config/matomo", ".ray_usage")


def addresses(trace: str) -> list[str]:
    """Return the hosts outside this machine that the calls in a log of strace speak to."""
    found = re.findall(r'inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)"', trace)
    hosts = {one or other for one, other in found}
    return sorted(host for host in hosts if not re.match(r"127\.|0\.0\.0\.0$|::1?$|::ffff:127\.", host))


@pytest.mark.backend
@pytest.mark.parametrize("extra", ACTIONS)
def test_no_extra_speaks_to_anybody(extra, tmp_path):
    """Without CI in the environment, which some libraries take for "send nothing", and with an empty HOME."""
    assert watched(ACTIONS[extra], tmp_path) == []
    assert not [name for name in TRACKERS if (tmp_path / "home" / name).exists()]


RAY = """
import time
from customcnn.cluster.ray_cluster import connect
from customcnn.io.atomic import sha256
with connect("ray") as cluster:
    assert len(list(cluster.map(sha256, [b"1", b"2"]))) == 2
    time.sleep(5)  # it would ask some seconds after its start
"""


@pytest.mark.ray
def test_a_ray_of_our_own_asks_nobody_and_imports_nothing_of_the_working_directory(tmp_path):
    pytest.importorskip("ray")
    for name in ("customcnn", "struct", "socket", "numpy"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write('{name} ')")
    assert watched(RAY, tmp_path, "-P") == []
    assert not (tmp_path / "ran").exists()
    assert not [name for name in (*TRACKERS, ".ray") if (tmp_path / "home" / name).exists()]


def watched(code: str, tmp_path: Path, *flags: str) -> list[str]:
    """Run Python code in a folder, with an empty HOME, and return the addresses that it and what it starts speak to."""
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    home, log, said = tmp_path / "home", tmp_path / "calls", tmp_path / "said"
    home.mkdir()
    kept = {key: value for key, value in os.environ.items() if key in ("PATH", "PYTHONPATH", "LANG", "LD_LIBRARY_PATH")}
    calls = "trace=connect,sendto,sendmsg,sendmmsg"
    with said.open("w") as streams:  # no pipe: what Ray starts would keep it open
        done = subprocess.run(
            ["strace", "-f", "--seccomp-bpf", "-qq", "-o", log, "-e", calls, sys.executable, *flags, "-c", code],
            env={**kept, "HOME": str(home), "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""},
            stdin=subprocess.DEVNULL,
            stdout=streams,
            stderr=streams,
            timeout=300,
            cwd=tmp_path,
        )
    assert done.returncode == 0, said.read_text()[-2000:]
    return addresses(log.read_text(errors="replace"))


def test_an_address_is_seen_in_a_trace():
    trace = 'connect(3, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("10.0.0.2")}, 16) = 0\n'
    trace += 'connect(4, {sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr("127.0.0.1")}, 16) = 0\n'
    trace += 'connect(5, {sa_family=AF_INET6, inet_pton(AF_INET6, "2a00::1", &sin6_addr), sin6_scope_id=0}, 28) = -1\n'
    assert addresses(trace) == ["10.0.0.2", "2a00::1"]
