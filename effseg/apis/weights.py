"""From a config and a checkpoint to a file of weights to give away."""

from pathlib import Path

from ..checkpoint.safetensors import write_safetensors
from ..errors import ConfigError
from .opening import open_segmenter


def export_weights(config: str, checkpoint: str, path: str | None = None, cfg_options: dict | None = None) -> Path:
    """Writes a trained segmenter's weights as safetensors, with its classes, its palette and a checksum.

    Every tool takes the file where it takes a checkpoint; nothing in it can run.

    Args:
        config, cfg_options: path, or ``effseg::NAME.py``, and overrides of it.
        checkpoint: trained weights.
        path: of the file, ending in ``.safetensors``; beside the checkpoint when left out.

    Returns:
        Where it is.
    """
    target = Path(path) if path else Path(checkpoint).with_suffix('.safetensors')
    if target.suffix != '.safetensors' or target.absolute() == Path(checkpoint).absolute():
        raise ConfigError(f'--out {target} must end in .safetensors and be another file than the checkpoint')
    model = open_segmenter(config, checkpoint, cfg_options=cfg_options, device='cpu').trained
    target.parent.mkdir(parents=True, exist_ok=True)
    meta = {key: list(model.dataset_meta[key]) for key in ('classes', 'palette') if model.dataset_meta.get(key)}
    write_safetensors(target, model.state_dict(), meta)
    return target
