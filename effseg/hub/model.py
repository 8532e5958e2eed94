"""Trained models in the layout of the Hugging Face Hub: config.json, model.safetensors, and a card with what was
measured.

What comes from a hub is data: weights in a format that holds no code, and a config in which
:mod:`effseg.hub.schema` knows every type, every argument and the values it may have.
"""

import contextlib
import html
import importlib.util
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from .. import __version__
from ..errors import ConfigError, MissingRuntimeError, WeightsError, first_line
from . import schema

FORMAT = 1
CONFIG, WEIGHTS, CARD = 'config.json', 'model.safetensors', 'README.md'
LARGEST_CONFIG = 10**6  # bytes
SPARE, SPARE_TENSORS = 2**24, 100  # numbers and tensors of layers that a constructor makes and drops, as classifiers
# where files were found at home, and what takes part in training alone: neither belongs to a model that is given away
_AT_HOME = ('init_cfg', 'pretrained', 'checkpoint_path', 'backend_args', 'file_client_args', '_scope_')
_TRAINING = ('loss_decode', 'sampler', 'train_cfg')
_CARD = """---
{{ card_data }}
---

# {{ title }}

{{ backbone }} with {{ head }}, {{ classes|length }} classes: {{ classes|join(', ') }}.

| measured | |
|---|---|
{%- for name, value in facts.items() %}
| {{ name }} | {{ value }} |
{%- endfor %}

```python
from effseg import hub
from mmseg.apis import inference_model

model = hub.load('OWNER/NAME')  # or a folder
labels = inference_model(model, 'photo.jpg').pred_sem_seg.data[0]
```
"""


def save(
    config: str,
    checkpoint: str,
    folder: str,
    metrics: dict[str, float] | None = None,
    cfg_options: dict | None = None,
    license: str = 'unknown',
) -> Path:
    """Writes a trained model into a folder that can be pushed as it is; returns the folder.

    Args:
        config, cfg_options: path, or ``effseg::NAME.py``, and overrides of it.
        checkpoint: trained weights.
        folder: made if missing; the three files of an earlier call are replaced.
        metrics: for the card, in percent by name; scored on the config's test data when left out.
        license: for the card, by the hub's name for it (``apache-2.0``, ``cc-by-nc-4.0``, ...).

    Raises:
        EffsegError: for a config or checkpoint that cannot be used, a model with parts that the layout has no names
            for, or a folder that holds other files under these names.
    """
    _require('huggingface_hub', 'safetensors', 'jinja2')
    from safetensors.torch import save_file

    from ..apis.opening import open_segmenter
    from ..report.facts import environment, gmacs, parameters

    target = Path(folder)
    _check_target(target)
    segmenter = open_segmenter(config, checkpoint, cfg_options=cfg_options, device='cpu')
    model = segmenter.trained
    try:
        content = _content(model.cfg, model.dataset_meta)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{config} cannot be said in the hub's layout: {error}") from error
    target.mkdir(parents=True, exist_ok=True)  # or it would be known after the scoring that it cannot be made
    if metrics is None:
        from ..report.scoring import score

        with tempfile.TemporaryDirectory() as scratch:
            metrics = score(config, segmenter, Path(scratch), cfg_options).metrics
    size = tuple(model.cfg.model.data_preprocessor.get('size') or (512, 512))
    device = next(model.parameters()).device  # scoring puts it on the GPU where there is one
    facts = {
        'parameters': f'{parameters(model) / 1e6:.2f} M',
        f'work at {size[0]}x{size[1]}': f'{gmacs(model._forward, size, device):.2f} GMAC',
        'measured with': ', '.join(f'{name} {value}' for name, value in environment().items()),
    }
    card = _card(content, metrics, facts, Path(config).stem, license)
    # first: it says that the folder is ours, whatever happens to the rest
    (target / CONFIG).write_text(json.dumps(content, indent=1) + '\n')
    save_file(
        {name: tensor.contiguous().clone() for name, tensor in model.state_dict().items()},
        str(target / WEIGHTS),
        {'format': 'pt'},
    )
    card.save(target / CARD)
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
    from mmengine.config import Config
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    from ..apis.opening import to_device
    from ..checkpoint.load import load_segmentor
    from ..checkpoint.read import read_checkpoint
    from ..datasets import transforms  # noqa: F401  registers the backend on_white

    _require('safetensors')
    folder = Path(source)
    if not folder.is_dir():
        folder = _downloaded(source)
    content = _read_config(folder / CONFIG)
    weights = read_checkpoint(folder / WEIGHTS)
    init_default_scope('mmseg')
    for step in content['test_pipeline']:
        if step['type'] == 'LoadImageFromFile':
            step['backend_args'] = dict(backend='on_white')
    model = content['model']
    for name in ('backbone', 'neck', 'decode_head'):
        if isinstance(model.get(name), dict):
            model[name] = schema.with_tuples(model[name])
    if model['backbone']['type'] == 'TIMMBackbone':
        model['backbone']['pretrained'] = False  # or it fetches what timm knows under the name
    cfg = Config(dict(model=model, test_pipeline=content['test_pipeline']))
    try:
        with _no_larger_than(weights.state_dict):
            model = MODELS.build(cfg.model)
    except Exception as error:  # constructors raise what they like
        raise WeightsError(f'{folder / CONFIG} describes no model that can be built: {first_line(error)}') from error
    load_segmentor(model, weights)
    model.cfg, model.dataset_meta = cfg, {'classes': tuple(content['classes']), 'palette': content['palette']}
    return to_device(model, device).eval()


def push(folder: str, repository: str, private: bool = False) -> str:
    """Uploads a folder of :func:`save`, as the user that ``hf auth login`` knows; returns the address of the commit.

    Args:
        folder: with the three files.
        repository: ``OWNER/NAME``; made if missing.
        private: of a repository that is made.

    Raises:
        WeightsError: for a folder without the files, or when the hub refuses.
    """
    _require('huggingface_hub')
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
        raise WeightsError(f'the hub did not take {folder} as {repository}: {first_line(error)}') from error
    return str(commit.commit_url)


@contextlib.contextmanager
def _no_larger_than(held: Mapping) -> Iterator[None]:
    """Stops what builds a network as soon as it has far more parameters than a file of weights: what a config asks for
    costs no more than the file did. Some more there may be, of layers that a constructor makes and drops.

    Raises:
        ValueError: inside, from the constructor that goes beyond.
    """
    from torch.nn.modules.module import register_module_parameter_registration_hook

    numbers, tensors = 2 * sum(tensor.numel() for tensor in held.values()) + SPARE, 2 * len(held) + SPARE_TENSORS

    def count(module, name, parameter):
        nonlocal numbers, tensors
        numbers, tensors = numbers - (0 if parameter is None else parameter.numel()), tensors - 1
        if numbers < 0 or tensors < 0:
            raise ValueError(f'it takes more than twice the numbers that {WEIGHTS} holds')

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


def _downloaded(source: str) -> Path:
    _require('huggingface_hub')
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source, allow_patterns=[CONFIG, WEIGHTS]))
    except Exception as error:  # see push
        raise WeightsError(f'{source} is no folder, and the hub did not give it: {first_line(error)}') from error


def _read_config(path: Path) -> dict:
    """The content of a config. Raises WeightsError unless it is one of the layout."""
    if not path.is_file():
        raise WeightsError(f'no {path.name} in {path.parent}; a folder that tools/hub.py save wrote was expected')
    try:
        if path.stat().st_size > LARGEST_CONFIG:
            raise ValueError(f'it is larger than {LARGEST_CONFIG} bytes')
        content = json.loads(path.read_text(encoding='utf-8'))
        if not isinstance(content, dict) or 'effseg_hub' not in content:
            raise ValueError('it does not say effseg_hub')
        if content['effseg_hub'] != FORMAT:
            raise ValueError('it was written by another version of effseg')
        if 'model' in content:
            content['model'] = _without(content['model'], _TRAINING)  # earlier versions wrote them
        schema.check(content)
        heads = content['model']['decode_head']
        labels = (heads[-1] if isinstance(heads, list) else heads).get('num_classes')
        if labels != len(content['classes']):
            raise ValueError(f'it names {len(content["classes"])} classes, and its decode head has {labels}')
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f'{path} is not the config of an effseg model: {error}') from error
    return content


def _check_target(folder: Path) -> None:
    """Raises ConfigError when a file of ours would replace one of somebody else's."""
    there = [name for name in (CONFIG, WEIGHTS, CARD) if (folder / name).exists()]
    try:
        ours = 'effseg_hub' in json.loads((folder / CONFIG).read_text(encoding='utf-8'))
    except (OSError, ValueError, TypeError, RecursionError):
        ours = False
    if there and not ours:
        raise ConfigError(
            f'{folder} holds a {there[0]} that tools/hub.py did not write; give a folder that is new, or one of an '
            'earlier save'
        )


def _require(*packages: str) -> None:
    """Raises MissingRuntimeError when one is not installed."""
    for package in packages:
        if not importlib.util.find_spec(package):
            raise MissingRuntimeError(
                f"a model of the hub's layout takes {package}, which is not installed: pip install {package}"
            )


def _content(cfg, dataset_meta: dict) -> dict:
    """What the config says of a model. Raises TypeError or ValueError for what has no place in the layout."""
    content = {
        'effseg_hub': FORMAT,
        'effseg': __version__,
        'model': _portable(cfg.model.to_dict()),
        'test_pipeline': [
            _portable(dict(step))
            for step in (cfg.test_pipeline if 'test_pipeline' in cfg else cfg.test_dataloader.dataset.pipeline)
            if step['type'] not in ('LoadAnnotations', 'LoadLabelMap')
        ],
        'classes': list(dataset_meta['classes']),
        'palette': [list(map(int, color)) for color in dataset_meta['palette']],
    }
    content = json.loads(json.dumps(content))  # as it will be read: tuples are lists
    schema.check(content)
    return content


def _portable(value):
    return _without(value, (*_AT_HOME, *_TRAINING))


def _without(value, names: tuple[str, ...]):
    if isinstance(value, dict):
        return {key: _without(item, names) for key, item in value.items() if key not in names}
    if isinstance(value, (list, tuple)):
        return [_without(item, names) for item in value]
    return value


def _card(content: dict, metrics: dict[str, float], facts: dict[str, str], name: str, license: str):
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    numbers = {key: float(value) for key, value in metrics.items() if key in ('mIoU', 'aAcc', 'mAcc')}
    about = ModelCardData(
        license=license,
        library_name='effseg',
        pipeline_tag='image-segmentation',
        tags=['semantic-segmentation', content['model']['backbone']['type'].lower(), 'mmsegmentation'],
        model_name=name,
        eval_results=[
            EvalResult('image-segmentation', name, f'test data of {name}', key, round(value, 2))
            for key, value in numbers.items()
        ]
        or None,
    )
    heads = content['model']['decode_head']
    # Markdown lets HTML and links through, but not out of a code span
    classes = ['`{}`'.format(item.replace('`', "'")) for item in content['classes']]
    return ModelCard.from_template(
        about,
        template_str=_CARD,
        title=html.escape(name),
        backbone=content['model']['backbone']['type'],
        head=' and '.join(head['type'] for head in (heads if isinstance(heads, list) else [heads])),
        classes=classes,
        facts={**{key: f'{value:.2f} %' for key, value in numbers.items()}, **facts},
    )
