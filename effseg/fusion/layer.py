"""What the layers of a fused network share: a description in plain data, two forms, activations by name."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import FuseError

LAYERS: dict[str, type['Layer']] = {}
ACTIVATIONS = {'none': nn.Identity, 'relu': nn.ReLU, 'gelu': nn.GELU, 'hardswish': nn.Hardswish}


class Layer(nn.Module):
    """Base of the inference layers. A subclass names its constructor's arguments in ``ARGS`` and keeps each as an
    attribute: a plain value, a layer, a list of layers, or None."""

    ARGS: tuple[str, ...] = ()

    def __init_subclass__(cls):
        LAYERS[cls.__name__] = cls

    def __init__(self):
        super().__init__()
        self.portable = False
        self.train(False)

    def set_portable(self, portable: bool = True) -> 'Layer':
        """Chooses the form of this layer and all inside it; returns the layer."""
        for module in self.modules():
            if isinstance(module, Layer):
                module.portable = portable
        return self

    def strip(self) -> None:
        """Drops, in all layers inside, what only images of another size than the built one take."""
        for module in self.children():
            for layer in [module] if isinstance(module, Layer) else module.children():
                layer.strip()

    def describe(self) -> dict:
        """The layer's class and arguments as plain data."""
        return dict(layer=type(self).__name__, **{name: _describe(getattr(self, name)) for name in self.ARGS})


def _describe(value):
    if isinstance(value, Layer):
        return value.describe()
    if isinstance(value, (list, tuple, nn.ModuleList)):
        return [_describe(item) for item in value]
    return value


def build(description: dict) -> Layer:
    """The layer that gave ``description``, its weights yet to be loaded.

    Raises:
        FuseError: for a description that no layer of this version gives.
    """
    if not isinstance(description, dict) or description.get('layer') not in LAYERS:
        raise FuseError(
            f'a fused network describes a layer as {str(description)[:80]!r}, which this version of effseg does not '
            'know; fuse the trained model again'
        )
    cls = LAYERS[description['layer']]
    given = {name: value for name, value in description.items() if name != 'layer'}
    if set(given) != set(cls.ARGS):
        raise FuseError(
            f"a fused network's {cls.__name__} has the arguments {sorted(given)}; {sorted(cls.ARGS)} were expected; "
            'fuse the trained model again'
        )
    return cls(**{name: _build(value) for name, value in given.items()})


def _build(value):
    if isinstance(value, dict):
        return build(value)
    return [_build(item) for item in value] if isinstance(value, list) else value


def empty(*shape: int) -> nn.Parameter:
    """A weight of that shape, to be filled."""
    return nn.Parameter(torch.zeros(*shape, dtype=torch.float64), requires_grad=False)


def activation_name(module: nn.Module | None) -> str:
    """The name in :data:`ACTIVATIONS` of an activation layer.

    Raises:
        FuseError: for one that has no fused form.
    """
    for name, kind in ACTIVATIONS.items():
        if type(module) is kind and getattr(module, 'approximate', 'none') == 'none':
            return name
    if module is None:
        return 'none'
    raise FuseError(f'the activation {module} has no fused form; the fused layers know {", ".join(ACTIVATIONS)}')


def activate(x: Tensor, name: str, portable: bool) -> Tensor:
    """Applies an activation; the eager form overwrites ``x``, which saves allocating the largest maps twice."""
    if name == 'relu':
        return F.relu(x, inplace=not portable)
    if name == 'gelu':
        return F.gelu(x) if portable else torch.ops.aten.gelu_(x)
    if name == 'hardswish':
        return F.hardswish(x, inplace=not portable)
    return x
