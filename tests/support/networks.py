"""Which networks of the table stand for others in tests that take long."""

import tomllib

from customcnn.models import list_models
from tests.support import ROOT

SIBLINGS = ("vgg19", "resnet152", "mobilenet", "densenet169", *(f"efficientnetb{size}" for size in "13457"))
"""Networks that differ from another of the table in depth or width alone: most tests take the other one."""

COVERED = (*SIBLINGS, "vgg16", "inceptionv3", "densenet161", "efficientnetv2b0")
"""Networks whose kinds of layers all stand in AlexNet, GoogLeNet, DenseNet-121 or EfficientNet-B0, too."""

WITH_HEADS = tuple(spec.name for spec in list_models() if "head" in spec.options)
"""Backbones under one of the heads of customcnn/models/heads.py: those of keras.applications, and DenseNet-161."""

OF_THOSE = "mobilenetv2"
"""Stands for WITH_HEADS where a test asks for what the head does, whatever is below it."""

WITH_RECIPES = {tomllib.loads(path.read_text("utf-8")).get("model") for path in (ROOT / "experiments").rglob("*.toml")}
"""Networks that a recipe of experiments/ trains; tests/studies/test_experiments.py takes a step of each."""
