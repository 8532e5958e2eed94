"""A part of a segmenter as it was trained, in inference form: what stands where no exact form is registered.

Nothing is known of such a part but what it computes. It is run once on an image and watched: a BatchNorm that reads the
result of a conv, which nothing else reads, folds into the conv, whatever their names and their order of registration,
and whether torch can trace the part or not. timm's networks are put into the inference form that timm has for them
first. Dropout goes, and bases that a head draws anew for every image (SegNeXt's) are drawn once.
"""

import copy
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from .folding import fold_norm
from .layers import Layer

BATCH_NORMS = (torch.ops.aten.native_batch_norm.default, torch.ops.aten.cudnn_batch_norm.default)
# what computes a BatchNorm and nothing besides
PLAIN_NORMS = (nn.modules.batchnorm._BatchNorm.forward, nn.SyncBatchNorm.forward)
DROPOUTS = ('Dropout', 'Dropout2d', 'DropPath')


class Trained(Layer):
    """A trained module under the names that a fused segmenter calls. Takes and returns what the module does."""

    def __init__(self, module: nn.Module):
        super().__init__()
        module.eval()  # which not every module returns
        self.module = module

    def forward(self, x: Any) -> Any:
        # trained modules may view a map as they are used to have it
        return self.module(x if self.portable else tree_map(Tensor.contiguous, x))

    def strip(self) -> None:
        """Drops what other sizes take: nothing that is known of."""

    def strip_to(self, grids: Sequence[Sequence[int]]) -> None:
        """As :meth:`strip`."""


class Decoder(nn.Module):
    """The neck and the heads of an EncoderDecoder or a CascadeEncoderDecoder: maps to logits.

    Args:
        model: has ``decode_head``, one or a list of which each reads the logits of the one before, and may have a
            ``neck``.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.neck = getattr(model, 'neck', None)
        head = model.decode_head
        self.heads = head if isinstance(head, nn.ModuleList) else nn.ModuleList([head])

    def forward(self, maps: Any) -> Any:
        if self.neck is not None:
            maps = self.neck(maps)
        first, *others = self.heads
        logits = first(maps)
        for head in others:
            logits = head(maps, logits)
        return logits


def deciding_head(model: nn.Module) -> nn.Module:
    """The head that gives the labels: the one, or a cascade's last."""
    return model.decode_head[-1] if isinstance(model.decode_head, nn.ModuleList) else model.decode_head


def as_trained(module: nn.Module, run: Callable[[nn.Module], object]) -> tuple[Trained, str]:
    """The inference form of any module; the module itself is left as it is.

    Args:
        module: in eval mode.
        run: gives a module like it an input.

    Returns:
        The form, and in words what was done.
    """
    module = copy.deepcopy(module).requires_grad_(False)
    done = ['reparameterized by timm'] if _reparameterize(module) else []
    for parent in module.modules():
        for name, child in parent.named_children():
            if type(child).__name__ in DROPOUTS:
                setattr(parent, name, nn.Identity())
    total = _batch_norms(module)
    fold_batch_norms(module, run)
    if total:
        done.append(f'{total - _batch_norms(module)} of {total} BatchNorms folded')
    return Trained(module), ', '.join(done) or 'nothing to fold'


@torch.no_grad()
def freeze_random_bases(model: nn.Module, run: Callable[[nn.Module], object]) -> int:
    """Draws the bases of matrix decompositions (SegNeXt's Hamburger) once and for all, where they are drawn for every
    image.

    Args:
        model: changed in place.
        run: gives it an image.

    Returns:
        How many there were.
    """

    def freeze(module: nn.Module, inputs: tuple[Tensor]) -> None:
        (x,) = inputs
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)  # of the CPU, which draws them; manual_seed seeds GPUs as well
            bases = module._build_bases(1, module.S, x.shape[1] // module.S, module.R, device=x.device)
        module.register_buffer('bases', bases.to(x.dtype))
        module.rand_init = False

    random = [module for module in model.modules() if draws_bases(module)]
    hooks = [module.register_forward_pre_hook(freeze) for module in random]
    if hooks:
        run(model)
    for hook in hooks:
        hook.remove()
    return len(hooks)


def draws_bases(module: nn.Module) -> bool:
    """Whether a module is a matrix decomposition that starts from other random bases for every image."""
    return getattr(module, 'rand_init', False) is True and hasattr(module, '_build_bases')


def fold_batch_norms(module: nn.Module, run: Callable[[nn.Module], object]) -> None:
    """Folds in place every BatchNorm that alone reads what a conv gives."""
    flow = _Flow()
    with flow, torch.no_grad():
        returned = run(module)
    flow.uses.update(map(id, tree_leaves(returned)))
    places: dict[int, list[tuple[nn.Module, str]]] = {}
    owners: dict[int, nn.Module] = {}
    for parent in module.modules():
        for name, child in parent.named_children():
            places.setdefault(id(child), []).append((parent, name))
            if isinstance(child, nn.Conv2d) and 'weight' in child._parameters:  # not computed, as by a spectral norm
                owners[id(child.weight)] = child
            if isinstance(child, nn.modules.batchnorm._BatchNorm) and child.running_mean is not None:
                owners[id(child.running_mean)] = child
    for result, weight, statistics in flow.pairs:
        conv, norm = owners.get(id(weight)), owners.get(id(statistics))
        once = all(flow.uses[id(tensor)] == 1 for tensor in (result, weight, statistics))
        if conv is None or norm is None or not once:
            continue
        if type(norm).forward not in PLAIN_NORMS and not hasattr(norm, 'act'):  # as of timm's BatchNormAct2d
            continue
        part, like = fold_norm(conv, norm), conv.weight
        conv.weight = nn.Parameter(part.weight.to(like.dtype), requires_grad=False)
        conv.bias = nn.Parameter(part.bias.to(like.dtype), requires_grad=False)
        for parent, name in places[id(norm)]:
            setattr(parent, name, getattr(norm, 'act', nn.Identity()))


class _Flow(TorchDispatchMode):
    """Watches which BatchNorm reads which conv's result.

    Attributes:
        pairs: the conv's result, its weight, and the BatchNorm's running mean.
        uses: how often tensors were read, by id.
    """

    def __init__(self):
        super().__init__()
        self.pairs: list[tuple[Tensor, Tensor, Tensor]] = []
        self.uses: Counter[int] = Counter()
        self._convs: dict[int, tuple[Tensor, Tensor]] = {}  # holds the results, so that no other tensor gets their id

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.uses.update(id(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor))
        if func is torch.ops.aten.convolution.default:
            self._convs[id(result)] = result, args[1]
            self.uses[id(result)] = 0  # of another tensor that is gone
        if func in BATCH_NORMS and id(args[0]) in self._convs:
            self.pairs.append((*self._convs[id(args[0])], args[3]))
        return result


def _reparameterize(module: nn.Module) -> bool:
    """Puts timm's networks inside a module into their inference form, where that changes anything."""
    before, default = sum(1 for _ in module.modules()), torch.get_default_dtype()
    for name, child in module.named_children():
        if not type(child).__module__.startswith('timm.') or not any(True for _ in child.parameters()):
            continue
        dtype = next(child.parameters()).dtype
        try:
            torch.set_default_dtype(torch.float64)  # of the layers that timm makes
            # not imported: who has a network of timm's has timm, and nothing else here takes it
            child = sys.modules['timm'].utils.reparameterize_model(child.double(), inplace=True)
        finally:
            torch.set_default_dtype(default)
        setattr(module, name, child.to(dtype).eval().requires_grad_(False))
    return sum(1 for _ in module.modules()) != before


def _batch_norms(module: nn.Module) -> int:
    return sum(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in module.modules())
