"""Export narrow networks with both of PyTorch's exporters.

Run ``python -m tests.importer.exports.from_torch FOLDER`` to write the files anew.
"""

import sys
from pathlib import Path

import onnx
import torch
from torch import nn
from torch.nn import functional

SIZE = 32


def networks():
    """Return the networks by name, each with the channels of its faces."""
    return {
        "bn_before_relu": Network("conv bn relu"),
        "bn_after_relu": Network("conv relu bn"),
        "permute_reshape": Network("conv relu", head="permute"),
        "log_softmax": Network("conv relu", head="view"),
        "adaptive_average": Network("conv relu bn", head="adaptive"),
        "global_average": Network("conv relu bn", head="global"),
        "mean": Network("conv relu", head="mean"),
        "convolution_head": Network("conv relu", head="convolution"),
        "bn_head": Network("conv relu", head="bn"),
        "leaky_relu": Network("conv relu bn", activation=lambda: nn.LeakyReLU(0.05)),
        "relu6": Network("conv relu bn", activation=nn.ReLU6),
        "prelu": Network("conv bn relu", activation=nn.PReLU),
        "average_pooling": Network("conv relu", pooling=nn.AvgPool2d),
        "normalized_rgb": Network("conv relu", channels=3, normalized=True),
    }


class Network(nn.Module):
    """A small VGG as people write it."""

    def __init__(
        self, order, head="flatten", activation=nn.ReLU, channels=1, pooling=nn.MaxPool2d,
        normalized=False,
    ):  # fmt: skip
        super().__init__()
        torch.manual_seed(0)
        steps, width = [], channels
        for filters in (4, 6, 6):
            for step in order.split():
                if step == "conv":
                    steps.append(nn.Conv2d(width, filters, 3, padding=1))
                else:
                    steps.append(nn.BatchNorm2d(filters) if step == "bn" else activation())
            steps += [pooling(2), nn.Dropout(0.25)]
            width = filters
        self.features, self.head, self.normalized = nn.Sequential(*steps), head, normalized
        side = SIZE // 8
        self.classifier = {
            "flatten": lambda: nn.Sequential(
                nn.Linear(width * side**2, 16), activation(), nn.Dropout(), nn.Linear(16, 7)
            ),
            "permute": lambda: nn.Linear(width * side**2, 7),
            "view": lambda: nn.Linear(width * side**2, 7),
            "adaptive": lambda: nn.Linear(width * 4, 7),
            "global": lambda: nn.Linear(width, 7),
            "mean": lambda: nn.Linear(width, 7),
            "convolution": lambda: nn.Conv2d(width, 7, side),
            "bn": lambda: nn.Sequential(
                nn.BatchNorm1d(width * side**2), nn.Linear(width * side**2, 16), nn.ReLU(),
                nn.BatchNorm1d(16), nn.Linear(16, 7),
            ),
        }[head]()  # fmt: skip
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                module.weight.data[0] *= -1  # which turns the order of values around
                nn.init.normal_(module.bias, 0, 0.2)
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 1.5)
        self.channels = channels
        self.eval()

    def forward(self, x):
        """Return scores, or what the head makes of them."""
        if self.normalized:
            x = (x / 255 - self.mean) / self.std
        x = self.features(x)
        if self.head == "permute":
            return self.classifier(x.permute(0, 2, 3, 1).reshape(x.shape[0], -1))
        if self.head == "view":
            return functional.log_softmax(self.classifier(x.view(x.size(0), -1)), dim=1)
        if self.head == "adaptive":
            return self.classifier(torch.flatten(functional.adaptive_avg_pool2d(x, 2), 1))
        if self.head == "global":
            x = functional.adaptive_avg_pool2d(x, 1).squeeze(-1).squeeze(-1)
            return functional.softmax(self.classifier(x), 1)
        if self.head == "mean":
            return self.classifier(x.mean(dim=(2, 3)))
        if self.head == "convolution":
            return self.classifier(x)[:, :, 0, 0]
        return self.classifier(torch.flatten(x, 1))


def write(folder):
    """Export every network in each of the two ways."""
    for name, model in networks().items():
        faces = torch.rand(2, model.channels, SIZE, SIZE) * 255
        named = {"input_names": ["input"], "output_names": ["output"], "verbose": False}
        torch.onnx.export(
            model, (faces,), folder / f"torchscript_{name}.onnx", dynamo=False, opset_version=17,
            dynamic_axes={"input": {0: "batch"}, "output": {0: "batch"}}, **named,
        )  # fmt: skip
        torch.onnx.export(
            model, (faces,), folder / f"dynamo_{name}.onnx", dynamo=True, opset_version=18,
            dynamic_shapes=({0: torch.export.Dim("batch")},), external_data=False, **named,
        )  # fmt: skip
        _forget_source(folder / f"dynamo_{name}.onnx")


def _forget_source(path):
    """Take out the stack traces, which name the folders of the machine that exported."""
    model = onnx.load(path)
    for each in (model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        del each.metadata_props[:]
    onnx.save(model, path)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
