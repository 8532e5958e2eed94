"""MMSegmentation's own segmenters through every runtime, with random weights: what exports, how exactly, how fast.

One line of JSON per model and runtime is written as soon as it is known, so that a run that ends goes on where it was.
"""

import functools
import json
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from torch import nn

from .. import deploy
from ..demo.scenes import draw_scene
from ..deploy.backends import SUFFIXES, backend
from ..deploy.interface import given
from ..deploy.program import Unfused
from ..errors import ConfigError, EffsegError, first_line
from ..fusion.segmentor import fuse
from ..fusion.trained import Decoder, freeze_random_bases
from ..timing import time_in_turn
from .measure import machine, spec_of

TITLE = '# The zoo'
HEAD = """{title}

MMSegmentation's own light segmenters, from the configs in its package, with random weights and random
statistics, fused and exported for {height} x {width} by `tools/benchmark.py {options}`
({machine}).
Each file is kept only if it gives the logits and the labels of the model, on two drawn images: random
weights say nothing of accuracy on data. A row says the parts that the runtime delegated and the operators
outside of them, the largest difference of a logit relative to the largest logit, the share of the pixels
with the same label, and how much faster the fused file is than the unfused one of the same model and
runtime, on one thread. Core ML packages are converted, checked and evaluated in torch; they were not run,
and not timed. Under nine runs, or with other work on the machine, milliseconds and ratios are rough.

## What was done
"""
FPN = 'sem_fpn/fpn_r50_4xb4-160k_ade20k-512x512.py'


def _timm(name: str, widths: Sequence[int]) -> dict:
    """A config's backbone exchanged for one of timm's, and its neck for the widths of that."""
    return {
        'backbone': dict(type='TIMMBackbone', model_name=name, pretrained=False),
        'neck': dict(type='FPN', in_channels=list(widths), out_channels=256, num_outs=4),
    }


# the config in MMSegmentation's package, and the parts of it that are exchanged
MODELS: dict[str, tuple[str, dict]] = {
    'SegFormer-B0': ('segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py', {}),
    'SegNeXt-T': ('segnext/segnext_mscan-t_1xb16-adamw-160k_ade20k-512x512.py', {}),
    'PoolFormer-S12 + FPN (timm)': (FPN, _timm('poolformer_s12', (64, 128, 320, 512))),
    'ResNet-50 + FPN': (FPN, {}),
    'MobileNetV3 LRASPP': ('mobilenet_v3/mobilenet-v3-d8_lraspp_4xb4-320k_cityscapes-512x1024.py', {}),
    'MobileNetV2 DeepLabV3+': ('mobilenet_v2/mobilenet-v2-d8_deeplabv3plus_4xb4-160k_ade20k-512x512.py', {}),
    'FastSCNN': ('fastscnn/fast_scnn_8xb4-160k_cityscapes-512x1024.py', {}),
    'BiSeNetV2': ('bisenetv2/bisenetv2_fcn_4xb4-160k_cityscapes-1024x1024.py', {}),
    'STDC1': ('stdc/stdc1_4xb12-80k_cityscapes-512x1024.py', {}),
    'DDRNet23-slim': ('ddrnet/ddrnet_23-slim_in1k-pre_2xb6-120k_cityscapes-1024x1024.py', {}),
    'PIDNet-S': ('pidnet/pidnet-s_2xb6-120k_1024x1024-cityscapes.py', {}),
    'UPerNet ResNet-18': ('upernet/upernet_r18_4xb4-160k_ade20k-512x512.py', {}),
    'RepViT-M1.1 + FPN (timm)': (FPN, _timm('repvit_m1_1', (64, 128, 256, 512))),
}


def score_zoo(
    out: str,
    size: tuple[int, int] = (512, 512),
    runs: int = 5,
    models: Sequence[str] | None = None,
    runtimes: Sequence[str] = tuple(SUFFIXES),
) -> None:
    """Exports every model of :data:`MODELS` through every runtime, and writes what came of it as a page.

    Args:
        out: the page, Markdown; beside it ``NAME.jsonl`` keeps what is known already.
        size: (H, W) of the images.
        runs: of each file that count, the fused one and the unfused in turn, on one thread.
        models, runtimes: those alone.

    Raises:
        ConfigError: when ``out``, or what lies where the rows are kept, is a file of another kind.
    """
    if Path(out).exists() and not Path(out).read_bytes().startswith(TITLE.encode()):
        raise ConfigError(f'{out} is no page of the zoo, and would be replaced: give another name')
    known = Path(out).with_suffix('.jsonl')
    if Path(out) == known:
        raise ConfigError(f'{out} is where the rows are kept: give the page another name, such as zoo.md')
    try:
        rows = [json.loads(line) for line in known.read_text().splitlines()] if known.exists() else []
        done = {(row['model'], row['runtime'], *row['size']) for row in rows}
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f'{known} does not hold rows of the zoo ({first_line(error)}): remove the line that was cut, or the file'
        ) from error
    for name in models or MODELS:
        missing = [runtime for runtime in runtimes if (name, runtime, *size) not in done]
        if not missing:
            continue
        model = build(name, size)
        network = fuse(model, size)  # a FuseError ends the run: every model here fuses
        for runtime in missing:
            row = {'model': name, 'runtime': runtime, 'size': size, 'parts': network.parts}
            row.update(_export(model, network.exportable(), runtime, size, runs))
            print(json.dumps({**row, 'parts': ()}), flush=True)
            rows.append(row)
            with known.open('a') as file:
                file.write(json.dumps(row) + '\n')
    Path(out).write_text(page([row for row in rows if tuple(row['size']) == tuple(size)], size, runs))


def build(name: str, size: tuple[int, int]) -> nn.Module:
    """A model of the zoo with random weights and random statistics, in eval mode; random bases are frozen."""
    import mmseg
    from mmseg.registry import MODELS as REGISTRY

    init_default_scope('mmseg')
    path, exchanged = MODELS[name]
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of losses and pretrained weights, which matter in training alone
        cfg = Config.fromfile(Path(mmseg.__file__).parent / '.mim/configs' / path).model
        whole = dict(test_cfg=dict(mode='whole'), pretrained=None)
        model = revert_sync_batchnorm(REGISTRY.build(ConfigDict({**cfg, **whole, **exchanged}))).eval()
    with torch.no_grad():
        for layer in model.modules():
            _draw(layer)
        image = torch.randn(1, 3, *size)
        freeze_random_bases(model, lambda model: Decoder(model)(model.backbone(image)))
    return model.requires_grad_(False)


def _draw(layer: Any) -> None:
    """Numbers as a trained layer might have them: fresh ones make half of the folding a no-op."""
    if isinstance(layer, (nn.Conv2d, nn.Linear)):
        layer.weight.normal_(0, layer.weight[0].numel() ** -0.5)
    if isinstance(layer, (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)) and layer.weight is not None:
        layer.weight.normal_(1, 0.3)
        layer.bias.normal_(0, 0.3)
    if isinstance(layer, nn.modules.batchnorm._BatchNorm):
        assert layer.running_mean is not None and layer.running_var is not None
        layer.running_mean.normal_(0, 0.3)
        layer.running_var.uniform_(0.3, 1.8)


def _export(model: nn.Module, network: nn.Module, runtime: str, size: tuple[int, int], runs: int) -> dict:
    """Exports and times one model in one runtime, and returns what came of it as plain data."""
    rng = np.random.default_rng(0)
    images = [draw_scene(size, rng)[0] for _ in range(2)]
    writer, spec = backend(runtime), spec_of(model, runtime, size)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        fused, unfused = (Path(folder) / f'{name}{SUFFIXES[runtime]}' for name in ('fused', 'unfused'))
        try:
            done = deploy.export(model, network, spec, fused, images)
        except EffsegError as error:
            return {'reason': first_line(error)[:300]}
        except Exception as error:  # whatever a runtime's converter ends in
            return {'reason': f'{type(error).__name__}: {first_line(error)[:300]}'}
        delegation, proof = done.delegation, done.parity
        row: dict[str, Any] = {
            'delegates': delegation.delegates,
            'left': delegation.left,
            'difference': (proof.largest or 0) / max(proof.scale or 1, 1e-30),
            'agreement': proof.agreement,
            'interpreted': done.interpreted,
        }
        if done.interpreted:
            return row
        try:
            writer.export(Unfused(model), spec, unfused, [])
        except Exception as error:  # as above
            return {**row, 'unfused': f'{type(error).__name__}: {first_line(error)[:200]}'}
        opened = {name: writer.load(path, 1).run for name, path in (('fused', fused), ('unfused', unfused))}
        timings = time_in_turn(
            {name: functools.partial(run, given(images[0], spec)) for name, run in opened.items()}, runs
        )
        return {**row, 'ms': {name: 1e3 * timing.median for name, timing in timings.items()}}


def page(rows: Sequence[dict], size: tuple[int, int], runs: int) -> str:
    """The results as Markdown: what was done to each model, and a table per runtime."""
    options = f'--zoo docs/zoo.md --size {size[0]} {size[1]} --runs {runs}'
    lines = [HEAD.format(title=TITLE, height=size[0], width=size[1], options=options, machine=machine())]
    seen = {row['model']: row['parts'] for row in rows}
    for model, parts in seen.items():
        lines += [f'- {model}: ' + '; '.join(parts) + '.']
    for runtime in SUFFIXES:
        own = [row for row in rows if row['runtime'] == runtime]
        passed = sum('reason' not in row for row in own)
        lines += ['', f'## {runtime}: {passed} exported of {len(own)} that were run, of {len(MODELS)}', '']
        if not own:
            continue
        lines += [
            '| model | exported | delegates, left over | logits differ by | same label | ms unfused, fused | ratio |'
        ]
        lines += ['|---|---|---|---|---|---|---|']
        lines += [_line(row) for row in own]
    return '\n'.join(lines) + '\n'


def _line(row: dict) -> str:
    if 'reason' in row:
        reason = row['reason'].replace('|', '/')
        return f'| {row["model"]} | no: {reason} | | | | | |'
    left = ', '.join(f'{name} x{count}' for name, count in sorted(row['left'].items()))
    ms = row.get('ms')
    times = f'{ms["unfused"]:.0f}, {ms["fused"]:.0f} | {ms["unfused"] / ms["fused"]:.2f}' if ms else ' | '
    if row.get('unfused'):
        times = f'the unfused model does not export: {row["unfused"]} | '
    return (
        f'| {row["model"]} | yes | {row["delegates"]}{"; " + left if left else ""} | {row["difference"]:.1e} | '
        f'{100 * row["agreement"]:.3f} % | {times} |'
    )
