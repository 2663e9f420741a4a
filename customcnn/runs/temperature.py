"""A temperature inside a network: plain Keras layers behind its probabilities, put in and taken out."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras
from customcnn.metrics.calibration import TINY

BEFORE, SCALE, AFTER = "uncalibrated", "temperature", "calibrated"
"""Names of the layers that `with_temperature` adds, in their order."""

EDGE = 1e-7
"""A sigmoid in float32 is 1 from a logit of 17 on: its probability is kept so far from 0 and 1 here."""


def with_temperature(model: "keras.Model", temperature: float) -> "keras.Model":
    """Return the network with probabilities softmax(log(p) / T), or sigmoid(logit(p) / T) where it has one output.

    Three plain Keras layers in float32 are added: `uncalibrated`, which changes nothing, `temperature`, which
    multiplies by 1 / T, and `calibrated`, the softmax or sigmoid. No weight is added, and no class changes its rank.

    Args:
        model: of this package, calibrated or not; its layers become those of the new one, not copied.
        temperature: T, above 0.
    """
    import keras

    model = without_temperature(model)
    own, *others = model.outputs
    shares = keras.layers.Identity(dtype="float32", name=BEFORE)(own)
    if shares.shape[-1] == 1:
        shares = keras.ops.clip(shares, EDGE, 1 - EDGE)
        logits, kind = keras.ops.log(shares) - keras.ops.log(1 - shares), "sigmoid"
    else:
        logits, kind = keras.ops.log(keras.ops.maximum(shares, TINY)), "softmax"
    scaled = keras.layers.Rescaling(1 / temperature, dtype="float32", name=SCALE)(logits)
    mended = keras.layers.Activation(kind, dtype="float32", name=AFTER)(scaled)
    return keras.Model(model.input, [mended, *others] if others else mended, name=model.name)


def without_temperature(model: "keras.Model") -> "keras.Model":
    """Return the network before `with_temperature`; the same one where it is not calibrated."""
    import keras

    added = {layer.name: layer for layer in model.layers}.get(BEFORE)
    if added is None:
        return model
    own, others = added.input, model.outputs[1:]
    return keras.Model(model.input, [own, *others] if others else own, name=model.name)
