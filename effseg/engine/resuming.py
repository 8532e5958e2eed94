"""Where a training resumes, and what its config may have changed since."""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from mmengine.config import Config

from ..checkpoint.read import read_file
from ..errors import ConfigError, WeightsError

_NUMBERED = re.compile(r'(?:iter|epoch)_(\d+)\.pth$')


def newest_whole_checkpoint(work_dir: str | Path) -> tuple[Path | None, list[str]]:
    """The checkpoint to resume from, and what had to be passed over, one sentence each.

    It is searched for in ``work_dir`` itself, since the folder may have been moved; those that are cut are passed over.
    """
    folder, passed_over = Path(work_dir), []
    pointer = folder / 'last_checkpoint'
    named = Path(pointer.read_text(errors='replace').strip()).name if pointer.is_file() else ''
    numbered = {path: int(match[1]) for path in folder.glob('*.pth') if (match := _NUMBERED.fullmatch(path.name))}
    newest_first = sorted(numbered, key=lambda path: numbered[path], reverse=True)
    if named and folder / named not in numbered:
        if (folder / named).is_file():
            newest_first.insert(0, folder / named)
        else:
            passed_over.append(f'{folder / named} is missing')
    elif named:
        # longer runs of earlier days may have left files in the same folder: higher in number, and older
        written = pointer.stat().st_mtime
        last = numbered[folder / named]
        later = [path for path in newest_first if numbered[path] > last and path.stat().st_mtime > written]
        newest_first = [*later, *[path for path in newest_first if numbered[path] <= last]]
    for path in newest_first:
        try:
            content = read_file(path)
        except WeightsError as error:
            passed_over.append(str(error))
            continue
        if 'optimizer' in content and 'message_hub' in content:
            return path, passed_over
        passed_over.append(f'{path} holds no state of a training')
    return None, passed_over


def recipe(cfg: Config) -> dict:
    """The part of a config that a resumed training is compared by, as ``{'key.subkey': value}`` of plain values."""
    loader = cfg.get('train_dataloader') or {}
    dataset = loader.get('dataset') or {}
    parts = {name: cfg.get(name) for name in ('optim_wrapper', 'param_scheduler', 'train_cfg')}
    parts['train_dataloader'] = dict(
        batch_size=loader.get('batch_size'), dataset=dict(data_root=dataset.get('data_root'))
    )
    return dict(_flat(parts))


def _flat(value, name: str = '') -> Iterator[tuple[str, object]]:
    if isinstance(value, (Mapping, list, tuple)):
        for key, item in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _flat(item, f'{name}.{key}' if name else str(key))
    else:
        yield name, value if isinstance(value, (int, float, str, type(None))) else str(value)


def compare(before: dict, now: dict, source: str, warn: Callable[[str], None]) -> None:
    """Says what has changed in the config since a checkpoint was saved, and what becomes of it.

    Raises:
        ConfigError: for another optimizer, whose state the checkpoint does not hold.
    """
    if not isinstance(before, dict) or not before:
        return
    for key in sorted(set(before) | set(now)):
        was, is_ = before.get(key), now.get(key)
        if was == is_:
            continue
        if key == 'optim_wrapper.optimizer.type':
            raise ConfigError(
                f'{source} holds the state of {was} and the config names {is_}: resume with {was}, or start anew from '
                f'its weights with load_from={source}'
            )
        kept = key.startswith(('optim_wrapper.optimizer.', 'optim_wrapper.paramwise_cfg', 'param_scheduler.'))
        what = (
            'the resumed training keeps what it was, which the checkpoint holds'
            if kept
            else 'it is what the config says'
        )
        warn(f'{key} was {was!r} when {Path(source).name} was saved, and is {is_!r} in the config: {what} from now on')
