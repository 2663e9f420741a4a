"""On JAX and PyTorch the tests of what calls Keras itself pass as on TensorFlow: chosen ones, in one process each."""

import os
import subprocess
import sys

import pytest

from tests.support import ROOT

CHOSEN = {
    "augmentation/test_engines": "layers",
    "explain/test_gradcam": "by_hand or every_way or layers_of_an_ensemble or last_maps",
    "explain/test_occlusion": "quick_kinds or data_alone or network_looks or residual",
    "visualize/test_activations": "maps or channels_first or network or kind",
    "visualize/test_run": "quick_kinds or data_alone or residual",
    "visualize/test_top_activations": "by_hand or more_images",
}


@pytest.mark.backend
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_chosen_tests_pass(backend: str) -> None:
    pytest.importorskip(backend)
    files = [f"tests/{name}.py" for name in CHOSEN]
    chosen = " or ".join(f"({name.rpartition('/')[2]} and ({words}))" for name, words in CHOSEN.items())
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-k", chosen, *files]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-3000:]
    for name in CHOSEN:
        assert f"tests/{name}.py::" in ran.stdout, "no test of it was chosen"
