"""Predictions on pictures, as overlays and label maps."""
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from mmengine.registry import init_default_scope
from PIL import Image
from torch import nn

from ..errors import ConfigError, DataError
from ..models.pretrained import load_segmentor
from .config import load_config

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')


def build_segmentor(config: str, checkpoint: str, cfg_options: dict | None = None, device: str | None = None) -> nn.Module:
    """A trained segmenter in eval mode, as MMSegmentation's ``inference_model`` takes it.

    Args:
        config: path, or ``effseg::NAME.py``.
        checkpoint: trained weights.
        cfg_options: overrides of the config.
        device: ``'cpu'``, ``'cuda'``, ...; the GPU if there is one when left out.

    Returns:
        The model, with ``cfg`` and ``dataset_meta`` (classes and palette).

    Raises:
        EffsegError: for a config or checkpoint that cannot be used.
    """
    from mmseg.registry import DATASETS, MODELS
    cfg = load_config(config, cfg_options)
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    model = MODELS.build(cfg.model)
    load_segmentor(model, checkpoint)
    dataset = DATASETS.build(dict(cfg.test_dataloader.dataset, lazy_init=True, pipeline=[]))
    model.cfg, model.dataset_meta = cfg, dataset.metainfo
    return model.to(device or ('cuda' if torch.cuda.is_available() else 'cpu')).eval()


def find_images(sources: Iterable[str]) -> list[Path]:
    """The image files among ``sources`` and in the folders among them.

    Raises:
        DataError: when a source does not exist, or none of them holds an image.
    """
    images = []
    for source in map(Path, sources):
        if source.is_dir():
            images += sorted(path for path in source.rglob('*') if path.suffix.lower() in IMAGE_SUFFIXES)
        elif source.is_file():
            images.append(source)
        else:
            raise DataError(f'no image or folder at {source}')
    if not images:
        raise DataError(f"no image in {', '.join(map(str, sources))}; looked for {', '.join(IMAGE_SUFFIXES)}")
    return images


def predict(config: str, checkpoint: str, sources: list[str], out_dir: str, opacity: float = 0.5, cfg_options: dict | None = None,
            device: str | None = None) -> list[Path]:
    """Writes ``NAME_overlay.jpg`` and ``NAME_labels.png`` (8-bit class numbers, with the palette) for every picture.

    Args:
        config, checkpoint, cfg_options, device: see :func:`build_segmentor`.
        sources: image files and folders.
        out_dir: made if missing; files of an earlier call are replaced.
        opacity: of the colours over the picture, 0 to 1.

    Returns:
        The overlays.

    Raises:
        EffsegError: for a config, checkpoint or picture that cannot be used.
    """
    from mmseg.apis import inference_model
    images = find_images(sources)
    if not 0 <= opacity <= 1:
        raise ConfigError(f'opacity={opacity} must lie between 0 and 1')
    model = build_segmentor(config, checkpoint, cfg_options, device)
    palette = np.array(model.dataset_meta['palette'], dtype=np.uint8)
    out, overlays = Path(out_dir), []
    out.mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(images, 1):
        picture = read_image(path)
        labels = inference_model(model, picture[..., ::-1]).pred_sem_seg.data[0].cpu().numpy().astype(np.uint8)
        overlay = (picture * (1 - opacity) + palette[labels] * opacity).astype(np.uint8)
        overlays.append(out / f'{path.stem}_overlay.jpg')
        Image.fromarray(overlay).save(overlays[-1], quality=92)
        label_map = Image.fromarray(labels, mode='P')
        label_map.putpalette(palette.flatten().tolist())
        label_map.save(out / f'{path.stem}_labels.png')
        print(f'predict {number}/{len(images)}  {path.name}', flush=True)
    return overlays


def read_image(path: Path) -> np.ndarray:
    """A picture as a person sees it: (H, W, 3) uint8, RGB, turned as its EXIF says.

    Raises:
        DataError: when the file is not an image, or a truncated one.
    """
    from PIL import ImageOps
    try:
        with Image.open(path) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert('RGB'))
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f'{path} cannot be read as an image: {error}') from error
