"""The files that slimming writes: a config and its checkpoint, and a config that fine-tunes them with the original as
the teacher."""

import os
import shlex
from pathlib import Path
from pprint import pformat

import torch
from mmengine.config import Config
from torch import nn

from .. import files
from ..checkpoint.read import local_file
from .slicing import Network

CONFIG, CHECKPOINT, RECOVERY, ORIGINAL = 'slim.py', 'slim.pth', 'recover.py', 'original.py'
BACKBONE = 'backbone.pth'  # in the place of the checkpoint
FILES = (CONFIG, CHECKPOINT, RECOVERY, ORIGINAL, BACKBONE)


def write_segmenter(
    folder: Path, config: str, cfg_options: dict | None, checkpoint: str, model: nn.Module, network: Network
) -> list[str]:
    """Writes config, checkpoint, and the config that fine-tunes them with the original as the teacher.

    Args:
        folder: to write into.
        config: the original's, path or ``effseg::NAME.py``.
        cfg_options: overrides of it; with any, it is written whole, to be the base.
        checkpoint: the original's.
        model: the original, with ``cfg`` and ``dataset_meta``.
        network: slimmed.

    Returns:
        The commands that fine-tune it, with the teacher and without.
    """
    base = _base(folder, config, cfg_options, model.cfg)
    save_file(dict(meta=dict(dataset_meta=dict(model.dataset_meta)), state_dict=network.state), folder / CHECKPOINT)
    files.write(folder / CONFIG, config_text(base, network, folder))
    teacher = dict(config=base, checkpoint=str(local_file(checkpoint).resolve()))
    recovery = f"model = dict(type='DistilledEncoderDecoder', teacher={pformat(teacher, width=100)})\n"
    files.write(folder / RECOVERY, f'# fine-tunes with the original as the teacher\n_base_ = [{CONFIG!r}]\n{recovery}')
    return [_train(folder / RECOVERY), _train(folder / CONFIG)]


def write_backbone(folder: Path, config: str, cfg_options: dict | None, cfg: Config, network: Network) -> list[str]:
    """Writes sliced weights of a backbone and a config that starts from them; returns the command that trains it.

    Args:
        folder, config, cfg_options, network: see :func:`write_segmenter`.
        cfg: the config, read.
    """
    base = _base(folder, config, cfg_options, cfg)
    state = {key.removeprefix('backbone.'): value for key, value in network.state.items()}
    save_file(dict(state_dict=state), folder / BACKBONE)
    files.write(folder / CONFIG, config_text(base, network, folder, folder / BACKBONE))
    return [_train(folder / CONFIG)]


def _base(folder: Path, config: str, cfg_options: dict | None, cfg: Config) -> str:
    if cfg_options:
        cfg.dump(folder / ORIGINAL)
        return str(folder / ORIGINAL)
    return config if '::' in config else str(Path(config).resolve())


def _train(config: Path) -> str:
    return f'python tools/train.py {shlex.quote(str(config))}'


def config_text(base: str, network: Network, folder: Path, backbone: Path | None = None) -> str:
    """The config of a slimmed network, a few lines over the original.

    Args:
        base: the original, path or ``effseg::NAME.py``.
        network: slimmed.
        folder: that the config will lie in, beside its checkpoint.
        backbone: weights of the backbone alone, where there is no checkpoint of the whole.
    """
    name = base if '::' in base else os.path.relpath(base, folder)
    start = dict(type='Pretrained', checkpoint=str(backbone)) if backbone else None
    arch = pformat(network.arch.as_config(), width=100)
    lines = {'backbone': f'dict(arch=dict(_delete_=True, **{arch}), init_cfg={start!r})'}
    if network.shape.neck:
        neck = network.model['neck']
        lines['neck'] = f'dict(in_channels={list(neck["in_channels"])}, out_channels={network.shape.neck})'
    head = network.model['decode_head']
    lines['decode_head'] = f'dict(in_channels={list(head["in_channels"])}, channels={network.shape.head})'
    body = ''.join(f'    {key}={value},\n' for key, value in lines.items())
    load = '' if backbone else f'load_from = {str(folder / CHECKPOINT)!r}\n'
    of = Path(base.rpartition('::')[2]).name
    return f'# what effseg slim left of {of}\n_base_ = [{name!r}]\nmodel = dict(\n{body})\n{load}'


def save_file(content: dict, path: Path) -> None:
    """Writes a file of torch whole, or leaves what was there."""
    partial = path.with_name(f'{path.name}.partial')
    torch.save(content, partial)
    partial.replace(path)
