"""A saved network: what loading it says where the network is not to blame."""

import tempfile

import pytest

from customcnn.models import build_model
from customcnn.runs.saved_model import ModelInfo, load_model, save_model


def test_a_full_temporary_folder_is_no_damaged_network(tmp_path, tiny_disk, monkeypatch):
    """Keras unpacks the network there; "Train it again" would be the wrong way out."""
    path = tmp_path / "best.keras"
    save_model(build_model("small", classes=2, input_size=22), ModelInfo("small", ["a", "b"], (22, 22), "b"), path)
    monkeypatch.setattr(tempfile, "tempdir", str(tiny_disk))
    with pytest.raises(OSError, match="No space left on device"):
        load_model(path)
