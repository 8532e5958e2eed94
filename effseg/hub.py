"""Trained models in the layout of the Hugging Face Hub: config.json, model.safetensors, and a card with what was
measured.

What comes from a hub is data: weights in a format that holds no code, and a config of plain values in which only the
types of :data:`TYPES` may be named.
"""

import json
import tempfile
from pathlib import Path

from . import __version__
from .errors import ConfigError, WeightsError

FORMAT = 1
CONFIG, WEIGHTS, CARD = 'config.json', 'model.safetensors', 'README.md'
TYPES = frozenset(
    (
        'EncoderDecoder',
        'SegDataPreProcessor',
        'EfficientFormer',
        'EfficientFormerV2',
        'FPN',
        'FPNHead',
        'CrossEntropyLoss',
        'DiceLoss',
        'FocalLoss',
        'LovaszLoss',
        'BN',
        'SyncBN',
        'GN',
        'LN',
        'ReLU',
        'ReLU6',
        'GELU',
        'HSwish',
        'SiLU',
        'LoadImageFromFile',
        'Resize',
        'ResizeToMultiple',
        'Pad',
        'PackSegInputs',
    )
)
# where files and types were found at home; nothing of it holds elsewhere
_LEFT_OUT = ('init_cfg', 'pretrained', 'backend_args', 'file_client_args', '_scope_')


def save(
    config: str, checkpoint: str, folder: str, metrics: dict[str, float] | None = None, cfg_options: dict | None = None
) -> Path:
    """Writes a trained model into a folder that can be pushed as it is.

    Args:
        config: path, or ``effseg::NAME.py``.
        checkpoint: trained weights.
        folder: made if missing; the three files are replaced.
        metrics: for the card, in percent by name; scored on the config's test data when left out.
        cfg_options: overrides of the config.

    Returns:
        The folder.

    Raises:
        EffsegError: for a config or checkpoint that cannot be used, or a model with parts that the layout has no names
            for.
    """
    from safetensors.torch import save_file

    from .apis.segmenter import build_segmentor
    from .report.facts import environment, gmacs, parameters

    model = build_segmentor(config, checkpoint, cfg_options, 'cpu')
    content = {
        'effseg_hub': FORMAT,
        'effseg': __version__,
        'model': _portable(model.cfg.model.to_dict()),
        'test_pipeline': [
            _portable(dict(step)) for step in _test_pipeline(model.cfg) if step['type'] != 'LoadAnnotations'
        ],
        'classes': list(model.dataset_meta['classes']),
        'palette': [list(map(int, colour)) for colour in model.dataset_meta['palette']],
    }
    _check_types(content, config, ConfigError)
    if metrics is None:
        from .report.scoring import Candidate, score

        with tempfile.TemporaryDirectory() as scratch:
            metrics = score(config, Candidate(checkpoint, Path(checkpoint)), Path(scratch), cfg_options).metrics
    size = tuple(model.cfg.model.data_preprocessor.get('size') or (512, 512))
    facts = {
        'parameters': f'{parameters(model) / 1e6:.2f} M',
        f'work at {size[0]}x{size[1]}': f'{gmacs(model._forward, size, "cpu"):.2f} GMAC',
        'measured with': ', '.join(f'{name} {value}' for name, value in environment().items()),
    }
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: tensor.contiguous().clone() for name, tensor in model.state_dict().items()},
        str(target / WEIGHTS),
        {'format': 'pt'},
    )
    (target / CONFIG).write_text(json.dumps(content, indent=1) + '\n')
    (target / CARD).write_text(_card(content, metrics, facts, Path(config).stem))
    return target


def load(source: str, device: str | None = None):
    """A trained model in eval mode, as MMSegmentation's ``inference_model`` and :func:`effseg.fuse` take it.

    Args:
        source: a folder, or ``OWNER/NAME`` of the Hugging Face Hub, which is downloaded once.
        device: ``'cpu'``, ``'cuda'``, ...; the GPU if there is one when left out.

    Returns:
        The model, with ``cfg.test_pipeline`` and ``dataset_meta`` (classes and palette).

    Raises:
        WeightsError: when a file is missing or damaged, or names what it may not.
    """
    import torch
    from mmengine.config import Config
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    from .checkpoint.load import load_segmentor

    folder = Path(source)
    if not folder.is_dir():
        folder = _downloaded(source)
    content = _read_config(folder / CONFIG)
    init_default_scope('mmseg')
    cfg = Config(dict(model=content['model'], test_pipeline=content['test_pipeline']))
    try:
        model = MODELS.build(cfg.model)
    except (TypeError, KeyError, ValueError, AssertionError) as error:
        raise WeightsError(f'{folder / CONFIG} describes no model that can be built: {error}') from error
    load_segmentor(model, str(folder / WEIGHTS))
    model.cfg, model.dataset_meta = cfg, {'classes': tuple(content['classes']), 'palette': content['palette']}
    return model.to(device or ('cuda' if torch.cuda.is_available() else 'cpu')).eval()


def push(folder: str, repository: str, private: bool = False) -> str:
    """Uploads a folder of :func:`save`, as the user that ``hf auth login`` knows.

    Args:
        folder: with the three files.
        repository: ``OWNER/NAME``; made if missing.
        private: of a repository that is made.

    Returns:
        The address of the commit.

    Raises:
        WeightsError: for a folder without the files, or when the hub refuses.
    """
    from huggingface_hub import HfApi

    _read_config(Path(folder) / CONFIG)
    if not (Path(folder) / WEIGHTS).is_file():
        raise WeightsError(f'no {WEIGHTS} in {folder}; tools/hub.py save writes it')
    api = HfApi()
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            allow_patterns=[CONFIG, WEIGHTS, CARD],
            commit_message=f'Upload with effseg {__version__}',
        )
    except Exception as error:  # the hub's errors and its HTTP client's share no base below Exception
        raise WeightsError(f'the hub did not take {folder} as {repository}: {_first_line(error)}') from error
    return str(commit.commit_url)


def _downloaded(source: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source, allow_patterns=[CONFIG, WEIGHTS]))
    except Exception as error:  # see push
        raise WeightsError(f'{source} is no folder, and the hub did not give it: {_first_line(error)}') from error


def _read_config(path: Path) -> dict:
    try:
        content = json.loads(path.read_text())
        if content['effseg_hub'] != FORMAT:
            raise ValueError('it was written by another version of effseg')
        missing = {'model', 'test_pipeline', 'classes', 'palette'} - set(content)
        if missing or len(content['classes']) != len(content['palette']) or not isinstance(content['model'], dict):
            raise ValueError('it is not complete')
    except FileNotFoundError as error:
        raise WeightsError(
            f'no {path.name} in {path.parent}; a folder that tools/hub.py save wrote was expected'
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f'{path} is not the config of an effseg model: {error}') from error
    _check_types(content, str(path), WeightsError)
    return content


def _check_types(value, origin: str, error: type[Exception]) -> None:
    """A registry imports what a dotted type names, and a type may read files: only known ones pass."""
    if isinstance(value, dict):
        if 'type' in value and value['type'] not in TYPES:
            raise error(f"{origin} names the type {value['type']!r}; the hub's layout takes {', '.join(sorted(TYPES))}")
        forbidden = set(value) & set(_LEFT_OUT)
        if forbidden:
            raise error(f'{origin} holds {sorted(forbidden)[0]!r}, which has no place in the layout')
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            _check_types(item, origin, error)


def _portable(value):
    if isinstance(value, dict):
        return {key: _portable(item) for key, item in value.items() if key not in _LEFT_OUT}
    if isinstance(value, (list, tuple)):
        return [_portable(item) for item in value]
    return value


def _test_pipeline(cfg) -> list:
    return cfg.test_pipeline if 'test_pipeline' in cfg else cfg.test_dataloader.dataset.pipeline


def _card(content: dict, metrics: dict[str, float], facts: dict[str, str], name: str) -> str:
    numbers = {key: float(value) for key, value in metrics.items() if key in ('mIoU', 'aAcc', 'mAcc')}
    rows = [f'| {key} | {value:.2f} % |' for key, value in numbers.items()] + [
        f'| {key} | {value} |' for key, value in facts.items()
    ]
    results = '\n'.join(f'  - type: {key}\n    value: {value:.2f}' for key, value in numbers.items())
    return f"""---
library_name: effseg
pipeline_tag: image-segmentation
tags:
- semantic-segmentation
- efficientformer
- mmsegmentation
model-index:
- name: {name}
  results:
  - task:
      type: image-segmentation
    dataset:
      name: test data of {name}
      type: {name}
    metrics:
{_indented(results)}
---

# {name}

{content['model']['backbone']['type']} with Semantic FPN, {len(content['classes'])} classes:
{', '.join(content['classes'])}.

| measured | |
|---|---|
{chr(10).join(rows)}

```python
from effseg import hub
from mmseg.apis import inference_model

model = hub.load('OWNER/NAME')  # or a folder
labels = inference_model(model, 'photo.jpg').pred_sem_seg.data[0]
```
"""


def _indented(text: str) -> str:
    return '\n'.join(f'  {line}' for line in text.splitlines())


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
