"""Which networks of the table stand for others in tests that take long."""

SIBLINGS = ("vgg19", "resnet152", "mobilenet", "densenet169", *(f"efficientnetb{size}" for size in "13457"))
"""Networks that differ from another of the table in depth or width alone: most tests take the other one."""
