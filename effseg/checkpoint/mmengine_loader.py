"""Our checkpoint reader in the place of MMEngine's, whose reading runs what a file says.

MMEngine reads every checkpoint through one table of readers. Its own fall back to the unsafe unpickler, and its Runner
then evaluates config text out of the file. Ours takes tensors and plain data, and leaves that text out.
"""

import logging

from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader

from ..errors import WeightsError
from .read import local_file, read_file


def take_over() -> None:
    """From now on MMEngine reads checkpoints through :func:`read`, whoever asks: ``init_cfg``, ``load_from``,
    ``resume``."""
    CheckpointLoader.register_scheme(('', 'http://', 'https://'), read, force=True)
    # the same patterns as MMEngine's, which are regular expressions
    CheckpointLoader.register_scheme(
        ('modelzoo://', 'torchvision://', 'open-mmlab://', 'openmmlab://', 'mmcls://'), read_named, force=True
    )
    CheckpointLoader.register_scheme((r'(\S+\:)?s3://', r'(\S+\:)?petrel://', 'pavi://'), refuse_store, force=True)


def read(filename: str, map_location=None) -> dict:
    """Everything of a checkpoint that is data, on the CPU wherever ``map_location`` points: loading copies it from
    there.

    Raises:
        WeightsError: see :func:`effseg.checkpoint.read.read_checkpoint`.
    """
    content = read_file(local_file(str(filename)))
    # both are evaluated as Python by MMEngine, the one to resume, the other to build a model from a file alone
    hub = content.get('message_hub')
    for holder in (content.get('meta'), hub.get('runtime_info') if isinstance(hub, dict) else None):
        if isinstance(holder, dict):
            holder.pop('config', None)
            holder.pop('cfg', None)
    parts = ('log_scalars', 'runtime_info', 'resumed_keys')
    if hub is not None and not (isinstance(hub, dict) and all(isinstance(hub.get(part), dict) for part in parts)):
        print_log(
            f'{filename} holds a message_hub that is none of MMEngine: a training goes on without its history',
            logger='current',
            level=logging.WARNING,
        )
        content['message_hub'] = {part: {} for part in parts}
    return content


def read_named(filename: str, map_location=None) -> dict:
    """A checkpoint that MMEngine knows by name (``open-mmlab://resnet50_v1c``): MMEngine says where it is, and
    :func:`read` reads it.

    Raises:
        WeightsError: for a name that is unknown; else see :func:`read`.
    """
    from mmengine.runner.checkpoint import get_external_models, get_mmcls_models, get_torchvision_models

    scheme, _, name = filename.partition('://')
    tables = {'mmcls': get_mmcls_models, 'torchvision': get_torchvision_models, 'modelzoo': get_torchvision_models}
    table = tables.get(scheme, get_external_models)()
    if name not in table:
        raise WeightsError(f'{filename}: no model of that name is known to MMEngine; give a path or a URL')
    content = read(table[name])
    if scheme != 'mmcls':
        return content
    weights = content.get('state_dict', content)
    return {
        'state_dict': {
            key.removeprefix('backbone.'): value for key, value in weights.items() if key.startswith('backbone.')
        }
    }


def refuse_store(filename: str, map_location=None) -> dict:
    """Refuses checkpoints in object stores, which come with readers of their own that unpickle.

    Raises:
        WeightsError: always.
    """
    raise WeightsError(
        f'{filename} lies in an object store, from which nothing can be read safely: copy it to a file first'
    )
