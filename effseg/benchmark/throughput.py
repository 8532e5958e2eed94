"""How many images a second the fused segmenter and MMSegmentation's own label on a device, by precision and batch, and
how fast a config's loader gives a training its images.
"""

import copy
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn

from ..apis.opening import open_segmenter, to_device
from ..demo.scenes import draw_scene
from ..engine.config import dataset_of, load_config
from ..errors import ConfigError
from ..fusion.segmentor import check_size, fuse
from ..timing import MB, peak_memory, time_in_turn, wait_for
from .fused import compile_network
from .measure import check_counts, machine, normalised

PRECISIONS = {'fp32': torch.float32, 'fp16': torch.float16, 'bf16': torch.bfloat16}
LARGEST_BATCH = 1024


def compare_on_device(
    config: str,
    checkpoint: str | None = None,
    device: str = 'cuda',
    precisions: Sequence[str] = tuple(PRECISIONS),
    batches: Sequence[int] = (1, 8),
    size: tuple[int, int] = (512, 512),
    runs: int = 10,
    compiled: bool = False,
    cfg_options: dict | None = None,
) -> list[dict]:
    """Prints images a second and peak memory from normalised images to label maps, and returns the rows.

    Args:
        config, checkpoint, cfg_options: see :func:`~effseg.benchmark.fused.compare_fused`.
        device: ``'cuda'``, ``'cuda:1'``, ``'cpu'``.
        precisions: of :data:`PRECISIONS`; both networks are converted whole.
        batches: images at once.
        size: (H, W) of the images, drawn scenes.
        runs: of each that count, in turn; two more warm up.
        compiled: the fused network under torch.compile as well.
    """
    size = check_size(size)
    check_counts(runs, (1,))
    if not 1 <= min(batches) <= max(batches) <= LARGEST_BATCH:
        raise ConfigError(f'--batch {" ".join(map(str, batches))} came; 1 to {LARGEST_BATCH} images were expected')
    model = open_segmenter(config, checkpoint, cfg_options=cfg_options, device=device).trained
    rng = np.random.default_rng(0)
    images = torch.cat([normalised(model, draw_scene(size, rng)[0], size) for _ in range(max(batches))])
    name = torch.cuda.get_device_name(images.device) if images.device.type == 'cuda' else machine()
    print(f'{name}, torch {torch.__version__}: images to label maps at {size[0]}x{size[1]}, {runs} runs in turn')
    rows = []
    with torch.inference_mode():
        expected = _labels(model, images)
        for precision in precisions:
            dtype = PRECISIONS[precision]
            networks = _networks(model, size, dtype, compiled)
            for batch in batches:
                rows += _rows(networks, images[:batch].to(dtype), expected[:batch], runs, precision)
    return rows


def _networks(model: nn.Module, size: tuple[int, int], dtype: torch.dtype, compiled: bool) -> dict[str, Callable]:
    """What each contestant does with images."""
    stock, fused = copy.deepcopy(model).to(dtype), fuse(model, size).to(dtype)
    networks: dict[str, Callable] = {'MMSegmentation predict': partial(_labels, stock), 'fused': fused}
    if compiled:
        networks['fused, torch.compile'] = compile_network(fused)
    return networks


def _labels(model: nn.Module, images: Tensor) -> Tensor:
    """What MMSegmentation says of images (N, 3, H, W): (N, H, W)."""
    return torch.cat([sample.pred_sem_seg.data for sample in model.predict(images)])


def _rows(networks: dict[str, Callable], images: Tensor, expected: Tensor, runs: int, precision: str) -> list[dict]:
    timings = time_in_turn(
        {name: partial(network, images) for name, network in networks.items()}, runs, device=images.device
    )
    rows = []
    for name, network in networks.items():
        with peak_memory(images.device) as peak:
            agreement = float((network(images) == expected).float().mean())
        row = dict(precision=precision, batch=len(images), network=name, agreement=agreement)
        row.update(rate=len(images) / timings[name].median, peak=peak.bytes)
        rows.append(row)
        of_peak = 'unknown' if peak.bytes is None else f'{peak.bytes / MB:.0f} MB'
        print(
            f'  {precision} batch {len(images)}  {name:24s} {row["rate"]:8.1f} images/s  peak {of_peak}  '
            f'labels of predict in fp32 {100 * agreement:.3f} %',
            flush=True,
        )
    return rows


def time_loading(
    config: str, device: str = 'cpu', batches: int = 20, cfg_options: dict | None = None
) -> tuple[float, tuple[int, ...]]:
    """Prints how many images a second the training loader of a config gives to a device, its preprocessor included.

    Args:
        config, cfg_options: as of a training.
        device: where the images go.
        batches: that count, behind one that starts the loader's processes.

    Returns:
        Images a second, and the shape of a batch.
    """
    from mmengine.registry import init_default_scope
    from mmengine.runner import Runner
    from mmseg.registry import MODELS

    check_counts(batches, (1,))
    cfg = load_config(config, cfg_options)
    dataset_of(cfg, 'train_dataloader')
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
    preprocessor = to_device(MODELS.build(cfg.model.data_preprocessor), device)
    shape: tuple[int, ...] = ()
    given, started = 0, 0.0
    for number, batch in enumerate(islice(loader, batches + 1)):
        shape = tuple(preprocessor(batch, True)['inputs'].shape)
        if number == 0:
            started = time.perf_counter()
        else:
            given += shape[0]
    wait_for(device)
    if not given:
        raise ConfigError(f'the training data of {config} are one batch or less; give more images, or a smaller batch')
    rate = given / (time.perf_counter() - started)
    workers = cfg.train_dataloader.get('num_workers', 0)
    print(f'{rate:.1f} images/s to {device}, batches of {shape}, {workers} worker(s); {machine()}')
    return rate, shape
