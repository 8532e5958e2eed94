"""The original segmentation backbones as functions of their state dict, from the facts of
https://github.com/snap-research/EfficientFormer (segmentation/backbone.py, backbonev2.py), in eval mode.

Derived again here, under the original's own names and without any of effseg's modules, to check them against.
"""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor


class Original:
    """A backbone in eval mode.

    Args:
        weights: the original's state dict.
    """

    def __init__(self, weights: dict[str, Tensor]):
        self.weights = weights
        self.is_v2 = not any(key.endswith('qkv.weight') for key in weights)

    def __call__(self, x: Tensor) -> list[Tensor]:
        """The four maps of (N, 3, H, W)."""
        act = F.gelu if self.is_v2 else F.relu
        for conv, norm in ((0, 1), (3, 4)):
            x = act(self.norm(self.conv(x, f'patch_embed.{conv}', stride=2), f'patch_embed.{norm}'))
        maps = []
        for index in range(7):
            x = self.downsample(x, f'network.{index}') if index % 2 else self.stage(x, f'network.{index}')
            if index % 2 == 0:
                maps.append(x if self.is_v2 else F.group_norm(x, 1, *self.affine(f'norm{index}')))
        return maps

    def stage(self, x: Tensor, name: str) -> Tensor:
        for block in sorted({int(key.split('.')[2]) for key in self.weights if key.startswith(f'{name}.')}):
            if self.is_v2:
                x = self.block_v2(x, f'{name}.{block}', strided=name == 'network.4')
            elif f'{name}.{block}.token_mixer.qkv.weight' in self.weights:
                x = self.attention_block(x, f'{name}.{block}')
            else:
                x = self.pool_block(x, f'{name}.{block}')
        return x

    def pool_block(self, x: Tensor, name: str) -> Tensor:
        x = x + self.scale(name, 1) * (F.avg_pool2d(x, 3, 1, 1, count_include_pad=False) - x)
        hidden = F.gelu(self.norm(self.conv(x, f'{name}.mlp.fc1'), f'{name}.mlp.norm1'))
        return x + self.scale(name, 2) * self.norm(self.conv(hidden, f'{name}.mlp.fc2'), f'{name}.mlp.norm2')

    def attention_block(self, x: Tensor, name: str) -> Tensor:
        grid = x.shape[2:]
        x = x.flatten(2).transpose(1, 2)
        one, two = (self.scale(name, part).flatten() for part in (1, 2))
        x = x + one * self.attention(
            F.layer_norm(x, x.shape[-1:], *self.affine(f'{name}.norm1')), f'{name}.token_mixer'
        )
        hidden = F.layer_norm(x, x.shape[-1:], *self.affine(f'{name}.norm2'))
        hidden = F.gelu(F.linear(hidden, *self.affine(f'{name}.mlp.fc1')))
        x = x + two * F.linear(hidden, *self.affine(f'{name}.mlp.fc2'))
        return x.transpose(1, 2).reshape(len(x), -1, *grid)

    def attention(self, x: Tensor, name: str) -> Tensor:
        batch, length, _ = x.shape
        qkv = F.linear(x, *self.affine(f'{name}.qkv')).reshape(batch, length, 8, 192).permute(0, 2, 1, 3)
        q, k, v = qkv[..., :32], qkv[..., 32:64], qkv[..., 64:]
        logits = q @ k.transpose(2, 3) * 32**-0.5 + self.bias(name, length, length)
        return F.linear(
            (logits.softmax(3) @ v).transpose(1, 2).reshape(batch, length, -1), *self.affine(f'{name}.proj')
        )

    def block_v2(self, x: Tensor, name: str, strided: bool) -> Tensor:
        if f'{name}.layer_scale_1' in self.weights:
            x = x + self.scale(name, 1) * self.attention_v2(x, f'{name}.token_mixer', strided)
        hidden = F.gelu(self.norm(self.conv(x, f'{name}.mlp.fc1'), f'{name}.mlp.norm1'))
        hidden = F.gelu(self.norm(self.conv(hidden, f'{name}.mlp.mid'), f'{name}.mlp.mid_norm'))
        return x + self.scale(name, 2) * self.norm(self.conv(hidden, f'{name}.mlp.fc2'), f'{name}.mlp.norm2')

    def attention_v2(self, x: Tensor, name: str, strided: bool) -> Tensor:
        if strided:
            x = self.pair(x, f'{name}.stride_conv', stride=2)
        v = self.pair(x, f'{name}.v')
        q, k, heads = (
            part.unflatten(1, (8, -1)).flatten(3) for part in (self.pair(x, f'{name}.q'), self.pair(x, f'{name}.k'), v)
        )
        logits = q.transpose(2, 3) @ k * 32**-0.5 + self.bias(name, q.shape[3], k.shape[3])
        weights = self.conv(self.conv(logits, f'{name}.talking_head1').softmax(3), f'{name}.talking_head2')
        out = (weights @ heads.transpose(2, 3)).transpose(2, 3).reshape(v.shape) + self.pair(v, f'{name}.v_local')
        if strided:
            out = F.interpolate(out, scale_factor=2, mode='bilinear')
        return self.norm(self.conv(F.gelu(out), f'{name}.proj.1'), f'{name}.proj.2')

    def downsample(self, x: Tensor, name: str) -> Tensor:
        if f'{name}.attn.attention_biases_seg' not in self.weights:
            return self.norm(self.conv(x, f'{name}.proj', stride=2), f'{name}.norm')
        attn = f'{name}.attn'
        q = self.conv(x, f'{attn}.q.local.0', stride=2) + x[:, :, ::2, ::2]
        v = self.pair(x, f'{attn}.v')
        v_local = self.pair(v, f'{attn}.v_local', stride=2)
        q, k, heads = (
            part.unflatten(1, (8, -1)).flatten(3)
            for part in (self.pair(q, f'{attn}.q.proj'), self.pair(x, f'{attn}.k'), v)
        )
        logits = q.transpose(2, 3) @ k * 16**-0.5 + self.bias(attn, q.shape[3], k.shape[3])
        out = (logits.softmax(3) @ heads.transpose(2, 3)).transpose(2, 3).reshape(v_local.shape) + v_local
        out = self.norm(self.conv(F.gelu(out), f'{attn}.proj.1'), f'{attn}.proj.2')
        return out + self.norm(self.conv(x, f'{name}.conv', stride=2), f'{name}.bn')

    def bias(self, name: str, queries: int, keys: int) -> Tensor:
        table = self.weights[f'{name}.attention_biases_seg']
        matrix = table[:, offsets_met(round(table.shape[1] ** 0.5), 2 if name.endswith('.attn') else 1)]
        return F.interpolate(matrix[None], size=(queries, keys), mode='bicubic')

    def pair(self, x: Tensor, name: str, stride: int = 1) -> Tensor:
        return self.norm(self.conv(x, f'{name}.0', stride), f'{name}.1')

    def conv(self, x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight, bias = self.affine(name)
        return F.conv2d(x, weight, bias, stride, weight.shape[2] // 2, groups=x.shape[1] // weight.shape[1])

    def norm(self, x: Tensor, name: str) -> Tensor:
        return F.batch_norm(
            x, self.weights[f'{name}.running_mean'], self.weights[f'{name}.running_var'], *self.affine(name)
        )

    def affine(self, name: str) -> tuple[Tensor, Tensor]:
        return self.weights[f'{name}.weight'], self.weights[f'{name}.bias']

    def scale(self, name: str, part: int) -> Tensor:
        return self.weights[f'{name}.layer_scale_{part}'].reshape(-1, 1, 1)


@functools.cache
def offsets_met(side: int, query_stride: int) -> Tensor:
    """(queries, keys) numbers of the offsets |dy|, |dx|, counted in the order in which they are met."""
    numbers, rows = {}, []
    for y in range(0, side, query_stride):
        for x in range(0, side, query_stride):
            met = ((abs(y - v), abs(x - u)) for v in range(side) for u in range(side))
            rows.append([numbers.setdefault(offset, len(numbers)) for offset in met])
    return torch.tensor(rows)


def random_weights(shapes: dict[str, list[int]], seed: int = 0) -> dict[str, Tensor]:
    """Weights of these shapes, in fp64, such that activations neither vanish nor explode and every tensor matters."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for key, shape in shapes.items():
        value = torch.randn(shape, generator=generator, dtype=torch.float64)
        if 'bias_idxs' in key or key.endswith('num_batches_tracked'):
            value = torch.zeros(shape, dtype=torch.int64)
        elif key.endswith('running_var') or 'norm' in key and key.endswith('weight'):
            value = value.abs() + 0.5
        elif 'layer_scale' in key:
            value = value * 0.3
        elif 'talking_head2.bias' in key:  # adds up over all keys
            value = value * 0.01
        elif len(shape) > 1 and 'attention_biases' not in key:
            value = value / value[0].numel() ** 0.5
        weights[key] = value
    return weights
