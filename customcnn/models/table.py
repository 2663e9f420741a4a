"""The table of networks: one row of plain data each. Nothing heavy is imported here.

To add a network, write a function `(classes, input_size, **options) -> keras.Model` and give it a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

SOFTMAX = "softmax"
SIGMOID_FOR_TWO = "sigmoid when two classes"

HEADS = ("plain", "transfer", "dense128", "report")
"""What can stand on a backbone, see models/heads.py."""

EVERYWHERE: Mapping[str, object] = {"freeze": "none", "normalize": "own", "center_crop": 0}
"""Options of every network."""

ON_BACKBONES: Mapping[str, object] = {
    "head": "plain",
    "pooling": "avg",
    "classifier_activation": "softmax",
    "dropout": None,
    "weights": "none",
}
"""Further options of every backbone; a dropout of None is the head's own."""

SCALINGS: Mapping[str, str] = {
    "unit": "x / 255",
    "symmetric": "x / 127.5 - 1",
    "bgr": "blue, green, red, each less ImageNet's mean",
    "imagenet": "(x / 255 - mean) / deviation of ImageNet",
    "raw": "inside the network",
}
"""What the layer `rescale` does, in words; blocks.py has the numbers."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One network of the table.

    Attributes:
        name: what `--model` takes; also the name of the Keras model.
        builder: "module:function" of the function that builds it.
        title: one line for people.
        input_size: height and width of the default input, in pixels.
        minimum_size: least height and width that the network accepts, in pixels.
        scaling: what its first layer does to pixels 0..255.
        parameters: number of weights at `input_size` with `classes` classes.
        citation: where the network comes from.
        classes: the number of classes that `parameters` holds for.
        output: "softmax", one probability a class, or "sigmoid when two classes": for two classes the one
            probability of the second class, softmax for more.
        options: what `build_model` takes beside classes and input size, with the defaults.
        recipe: recipe keys in which the training of its study differs from the defaults of this package.
        arguments: what the builder is given beside the options, where one function builds several networks.
        depthwise: whether it has depthwise convolutions, which bfloat16 slows down on a CPU.
    """

    name: str
    builder: str
    title: str
    input_size: int
    minimum_size: int
    scaling: str
    parameters: int
    citation: str
    classes: int = 2
    output: str = SOFTMAX
    options: Mapping[str, object] = field(default_factory=lambda: EVERYWHERE, hash=False)
    recipe: Mapping[str, object] = field(default_factory=dict, hash=False)
    arguments: Mapping[str, object] = field(default_factory=dict, hash=False)
    depthwise: bool = False


_REPORT = 'the report "ALL detection with a 14-convolution network, compared with four classical networks" (2019)'
_DENSENET = "Huang, Liu, van der Maaten and Weinberger, Densely Connected Convolutional Networks, arXiv:1608.06993"
_EFFICIENTNET = "Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, arXiv:1905.11946"
_RESNET = "He, Zhang, Ren and Sun, Deep Residual Learning for Image Recognition, arXiv:1512.03385"
_VGG = "Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, arXiv:1409.1556"

_WRITTEN_HERE = (
    ModelSpec(
        name="proposed",
        builder="customcnn.models.proposed:proposed",
        title="the report's network as its text tells it: 14 convolutions with batch norm, 3 dense layers",
        input_size=150,
        # 'same' pooling never leaves less than one pixel; from 17 on each of the five still has two to choose from.
        minimum_size=17,
        scaling=SCALINGS["unit"],
        parameters=64_104_122,
        citation=f"{_REPORT}, its text",
        options={"dropout": 0.5, **EVERYWHERE},
    ),
    ModelSpec(
        name="proposed-figures",
        builder="customcnn.models.proposed:proposed_figures",
        title="the same network as the report's figures print it: 13 convolutions",
        input_size=150,
        minimum_size=17,
        scaling=SCALINGS["unit"],
        parameters=64_066_938,
        citation=f"{_REPORT}, its figures 18 and 19",
        options={"dropout": 0.5, **EVERYWHERE},
    ),
    ModelSpec(
        name="alexnet",
        builder="customcnn.models.alexnet:alexnet",
        title="AlexNet in a single tower, with local response normalisation",
        input_size=227,
        minimum_size=67,
        scaling=SCALINGS["unit"],
        parameters=58_289_538,
        citation="Krizhevsky, Sutskever and Hinton, ImageNet Classification with Deep Convolutional Neural Networks, "
        "NeurIPS 2012",
        options={"dropout": 0.5, **EVERYWHERE},
    ),
    ModelSpec(
        name="small",
        builder="customcnn.models.small:small",
        title="the baseline of the three-convolution study: 3 convolutions, 2 dense layers",
        input_size=224,
        minimum_size=22,
        scaling=SCALINGS["unit"],
        parameters=2_825_345,
        citation="the three-convolution study of C-NMC 2019",
        output=SIGMOID_FOR_TWO,
        options={"dropout": 0.0, **EVERYWHERE},
        # Epochs and rate are the best of the study's grid search. It names neither optimizer nor batch size:
        # Adam (of which 1e-3 is the usual rate) and 32 are our choice.
        recipe={"optimizer": "adam", "learning_rate": 1e-3, "epochs": 20, "batch_size": 32},
    ),
    ModelSpec(
        name="one-conv",
        builder="customcnn.models.small:one_conv",
        title="a baseline of one convolution, as the pretrained study has one; the shape is our choice",
        input_size=128,
        minimum_size=4,
        scaling=SCALINGS["unit"],
        parameters=254_914,
        citation="the study of pretrained networks on C-NMC 2019, which gives its accuracy only",
    ),
    ModelSpec(
        name="residual",
        builder="customcnn.models.residual:residual",
        title="a small residual network of our own, for few images and trainings from scratch",
        input_size=96,
        minimum_size=17,
        scaling=SCALINGS["unit"],
        parameters=888_936,
        citation="He, Zhang, Ren and Sun, arXiv:1512.03385; shortcuts as in He et al., arXiv:1812.01187",
        options={**EVERYWHERE, "dropout": 0.3},
        recipe={"optimizer": "adamw", "learning_rate": 2e-3, "weight_decay": 0.05, "batch_size": 32},
    ),
    ModelSpec(
        name="googlenet",
        builder="customcnn.models.googlenet:googlenet",
        title="GoogLeNet (Inception v1): 9 inception modules, two auxiliary classifiers on request",
        input_size=224,
        minimum_size=32,
        scaling=SCALINGS["unit"],
        parameters=5_975_602,
        citation="Szegedy et al., Going Deeper with Convolutions, arXiv:1409.4842",
        options={**ON_BACKBONES, "auxiliary": False, "batch_norm": False, **EVERYWHERE},
    ),
    ModelSpec(
        name="densenet161",
        builder="customcnn.models.densenet161:densenet161",
        title="DenseNet of 161 layers, which keras.applications lacks: growth 48, blocks of 6, 12, 36 and 24",
        input_size=224,
        minimum_size=32,
        scaling=SCALINGS["imagenet"],
        parameters=26_696_354,
        citation=_DENSENET,
        options={**ON_BACKBONES, **EVERYWHERE},
    ),
)


def _backbone(
    application: str, title: str, size: int, minimum: int, scaling: str, parameters: int, citation: str
) -> ModelSpec:
    """Return the row of a network of keras.applications; its name is that of the function in lower case."""
    return ModelSpec(
        name=application.lower(),
        builder="customcnn.models.backbones:backbone",
        title=title,
        input_size=size,
        minimum_size=minimum,
        scaling=SCALINGS[scaling],
        parameters=parameters,
        citation=citation,
        options={**ON_BACKBONES, **EVERYWHERE},
        arguments={"application": application, "scaling": scaling},
        depthwise=application.startswith(("Xception", "MobileNet", "EfficientNet", "ConvNeXt")),
    )


# Sizes and least sizes are those that Keras documents, the parameters those with two classes and the head `plain`.
_BACKBONES = (
    _backbone("VGG16", "VGG with 13 convolutions", 224, 32, "bgr", 14_715_714, _VGG),
    _backbone("VGG19", "VGG with 16 convolutions", 224, 32, "bgr", 20_025_410, _VGG),
    _backbone("ResNet50", "ResNet of 50 layers", 224, 32, "bgr", 23_591_810, _RESNET),
    _backbone("ResNet152", "ResNet of 152 layers", 224, 32, "bgr", 58_375_042, _RESNET),
    _backbone(
        "InceptionV3",
        "Inception v3",
        299,
        75,
        "symmetric",
        21_806_882,
        "Szegedy, Vanhoucke, Ioffe, Shlens and Wojna, Rethinking the Inception Architecture for Computer Vision, "
        "arXiv:1512.00567",
    ),
    _backbone(
        "Xception",
        "Xception: depthwise separable convolutions",
        299,
        71,
        "symmetric",
        20_865_578,
        "Chollet, Xception: Deep Learning with Depthwise Separable Convolutions, arXiv:1610.02357",
    ),
    _backbone(
        "MobileNet",
        "MobileNet: depthwise separable convolutions, for telephones",
        224,
        32,
        "symmetric",
        3_230_914,
        "Howard et al., MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications, "
        "arXiv:1704.04861",
    ),
    _backbone(
        "MobileNetV2",
        "MobileNetV2: inverted residuals, the network of the four-class study",
        224,
        32,
        "symmetric",
        2_260_546,
        "Sandler, Howard, Zhu, Zhmoginov and Chen, MobileNetV2: Inverted Residuals and Linear Bottlenecks, "
        "arXiv:1801.04381",
    ),
    _backbone(
        "MobileNetV3Small",
        "MobileNetV3, the small one",
        224,
        32,
        "raw",
        940_274,
        "Howard et al., Searching for MobileNetV3, arXiv:1905.02244",
    ),
    _backbone("DenseNet121", "DenseNet of 121 layers", 224, 32, "imagenet", 7_039_554, _DENSENET),
    _backbone("DenseNet169", "DenseNet of 169 layers", 224, 32, "imagenet", 12_646_210, _DENSENET),
    _backbone("EfficientNetB0", "EfficientNet B0", 224, 32, "raw", 4_052_133, _EFFICIENTNET),
    _backbone("EfficientNetB1", "EfficientNet B1", 240, 32, "raw", 6_577_801, _EFFICIENTNET),
    _backbone("EfficientNetB3", "EfficientNet B3", 300, 32, "raw", 10_786_609, _EFFICIENTNET),
    _backbone("EfficientNetB4", "EfficientNet B4", 380, 32, "raw", 17_677_409, _EFFICIENTNET),
    _backbone("EfficientNetB5", "EfficientNet B5", 456, 32, "raw", 28_517_625, _EFFICIENTNET),
    _backbone("EfficientNetB7", "EfficientNet B7", 600, 32, "raw", 64_102_809, _EFFICIENTNET),
    _backbone(
        "EfficientNetV2B0",
        "EfficientNetV2 B0",
        224,
        32,
        "raw",
        5_921_874,
        "Tan and Le, EfficientNetV2: Smaller Models and Faster Training, arXiv:2104.00298",
    ),
    _backbone(
        "ConvNeXtTiny",
        "ConvNeXt, the tiny one",
        224,
        32,
        "raw",
        27_821_666,
        "Liu, Mao, Wu, Feichtenhofer, Darrell and Xie, A ConvNet for the 2020s, arXiv:2201.03545",
    ),
)

SPECS = (*_WRITTEN_HERE, *_BACKBONES)
