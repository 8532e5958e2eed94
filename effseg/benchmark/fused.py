"""The fused segmenter of a config beside MMSegmentation's own: logits, labels, and how long each takes."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from ..apis.opening import open_segmenter
from ..datasets.images import read_image
from ..demo.scenes import draw_scene
from ..errors import ConfigError, first_line
from ..fusion.labels import Resize, label_map, near_ties
from ..fusion.segmentor import FusedSegmentor, check_size, fuse
from ..timing import MB, Timing, peak_memory, time_in_turn
from .measure import check_counts, machine, normalised, thread_counts, work

PHOTO = (1500, 2000)  # the size of a photo whose logits take gigabytes


def compare_fused(
    config: str,
    checkpoint: str | None = None,
    image: str | None = None,
    size: tuple[int, int] = (512, 512),
    runs: int = 10,
    threads: Sequence[int] = (1, 2),
    compiled: bool = False,
    cfg_options: dict | None = None,
) -> None:
    """Prints how the fused segmenter of a config compares with MMSegmentation's own.

    Args:
        config, cfg_options: path, or ``effseg::NAME.py``, and overrides of it.
        checkpoint: trained weights; random ones when left out.
        image: a file; a drawn scene when left out, whose label map gives the logits of the label step where the weights
            are random, since noise leaves nothing to decide.
        size: (H, W) that the image is resized to.
        runs: of everything that is timed.
        threads: each of these thread counts in turn.
        compiled: also the fused network under torch.compile.
    """
    size = check_size(size)
    check_counts(runs, threads)
    model = open_segmenter(config, checkpoint, cfg_options=cfg_options, device='cpu').trained
    scene, truth = draw_scene(size, np.random.default_rng(0))
    x = normalised(model, read_image(image) if image else scene, size)
    fused = fuse(model, size)
    with torch.inference_mode():
        logits = model(x, mode='tensor')
    of_labels = logits
    if not checkpoint:
        labels = Image.fromarray(truth).resize((logits.shape[3], logits.shape[2]), Image.Resampling.NEAREST)
        of_labels = logits_of(torch.from_numpy(np.array(labels)).long(), model.num_classes)
    print(
        f'{checkpoint or "random weights"}, {image or "a drawn scene"}, '
        f'labels of {"the model" if checkpoint else "the drawn scene"}'
    )
    print(f'{machine()}  float32  {size[0]}x{size[1]}  {model.num_classes} classes  batch 1')
    works = {'MMSegmentation logits': work(lambda: model(x, mode='tensor')), 'fused': work(lambda: fused.logits(x))}
    print(f'work         {works["MMSegmentation logits"]:.1f} GMAC unfused, {works["fused"]:.1f} GMAC fused')
    _print_agreement(model, fused, x, logits)
    networks: dict[str, nn.Module] = {'fused': fused}
    if compiled:
        networks['fused, torch.compile'] = compile_network(fused)
    for count in thread_counts(threads):
        print(f'\n{count} thread{"s" if count > 1 else ""}, {runs} runs in turn')
        rate = _print_rates(runs)
        with torch.inference_mode():
            whole = {'MMSegmentation predict': lambda: model.predict(x)}
            whole |= {name: partial(network, x) for name, network in networks.items()}
            _print_timings('image to label map', time_in_turn(whole, runs))
            alone = {'MMSegmentation logits': lambda: model(x, mode='tensor')}
            alone |= {name: partial(network.logits, x) for name, network in networks.items()}
            timings = time_in_turn(alone, runs)
            shares = {
                name: f"  {works.get(name, works['fused']) / timing.median / rate:4.0%} of the conv's rate"
                for name, timing in timings.items()
            }
            _print_timings('image to logits', timings, shares)
            for target in (size, PHOTO):
                _print_label_step(of_labels, fused, size, target, runs)


def logits_of(labels: Tensor, classes: int) -> Tensor:
    """Logits as a trained model might give them for a scene: regions with soft seams, and noise.

    Args:
        labels: (h, w) int64, a label map of the logits' size; each label becomes a class of its own.
        classes: of the logits.

    Returns:
        (1, classes, h, w) float32.
    """
    generator = torch.Generator().manual_seed(0)
    ids = torch.randperm(max(classes, int(labels.max()) + 1), generator=generator)[labels] % classes
    regions = F.avg_pool2d(F.one_hot(ids, classes).permute(2, 0, 1)[None].float(), 3, stride=1, padding=1)
    return 8 * regions + 0.5 * torch.randn(regions.shape, generator=generator)


def compile_network(fused: FusedSegmentor) -> FusedSegmentor:
    """The network with its logits under torch.compile, its weights frozen; the label step stays as it is.

    Raises:
        ConfigError: when torch.compile does not run here.
    """
    import torch._inductor.config as inductor

    inductor.freezing = True
    network = FusedSegmentor(fused.backbone, fused.decoder, fused.size, fused.align_corners, fused.threshold)
    network.logits = torch.compile(network.logits)  # type: ignore[method-assign]
    try:
        with torch.inference_mode():
            network.logits(torch.zeros(1, 3, *fused.size).to(next(fused.parameters())))
    except Exception as error:  # whatever the compiler lacks, such as a C++ compiler
        raise ConfigError(f'torch.compile does not run here: {first_line(error)[:160]}; leave --compile out') from error
    return network


def _print_rates(runs: int) -> float:
    """Prints what the threads can do at all, and gives the conv's rate in GMAC/s."""
    a, kernel = torch.randn(1024, 1024), torch.randn(128, 128, 3, 3)
    x = torch.randn(1, 128, 128, 128).contiguous(memory_format=torch.channels_last)
    probes = {'matmul of 1024': lambda: a @ a, '3 x 3 conv of 128 channels': lambda: F.conv2d(x, kernel, padding=1)}
    with torch.inference_mode():
        timings = time_in_turn(probes, runs)
        rates = {name: work(run) / timings[name].median for name, run in probes.items()}
    print('  this machine now: ' + ', '.join(f'{name} {rate:.0f} GMAC/s' for name, rate in rates.items()))
    return rates['3 x 3 conv of 128 channels']


@torch.inference_mode()
def _print_agreement(model: nn.Module, fused: FusedSegmentor, x: Tensor, logits: Tensor) -> None:
    largest = float((fused.logits(x) - logits).abs().max())
    expected = torch.cat([sample.pred_sem_seg.data for sample in model.predict(x)])
    differ = fused(x) != expected
    full = F.interpolate(logits, size=x.shape[2:], mode='bilinear', align_corners=model.align_corners)
    ties = near_ties(full, 2 * largest) if full.shape[1] > 1 else torch.zeros_like(differ)
    print(f'logits       differ by {largest:.1e} at most, range {float(logits.max() - logits.min()):.1f}')
    print(
        f'labels       differ on {int(differ.sum())} of {differ.numel()} pixels, '
        f'{int((differ & ~ties).sum())} of them no tie'
    )


def _print_label_step(
    logits: Tensor, fused: FusedSegmentor, size: tuple[int, int], target: tuple[int, int], runs: int
) -> None:
    """Logits to labels: as MMSegmentation resizes, to the input and from there to the photo, and exactly without."""
    steps = [Resize(*size)] if target == size else [Resize(*size), Resize(*target)]

    def full() -> Tensor:
        resized = logits
        for step in steps:
            resized = F.interpolate(resized, size=tuple(step), mode='bilinear', align_corners=fused.align_corners)
        return resized.argmax(1)

    own = logits.contiguous(memory_format=torch.channels_last)  # as the fused network gives them
    contestants = {
        'resize and argmax': full,
        'exact label step': lambda: label_map(own, steps, fused.align_corners, fused.threshold),
    }
    timings = time_in_turn(contestants, max(3, runs // 3) if target == PHOTO else runs)
    peaks = {}
    for name, run in contestants.items():
        with peak_memory() as peak:
            run()
        peaks[name] = '' if peak.bytes is None else f'  peak {peak.bytes / MB:.0f} MB'
    _print_timings(f'logits to labels at {target[0]}x{target[1]}', timings, peaks)


def _print_timings(title: str, timings: dict[str, Timing], notes: dict[str, str] | None = None) -> None:
    print(f'  {title}')
    first = next(iter(timings.values())).median
    for name, timing in timings.items():
        print(f'    {name:24s}{timing}  {first / timing.median:6.2f}x{(notes or {}).get(name, "")}')
