"""The fused segmenter against MMSegmentation's own, side by side: time, memory, work, and whether the labels are the
same."""

import platform
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..errors import ConfigError
from ..fusion.labels import Resize, label_map, near_ties
from ..fusion.segmentor import FusedSegmentor, fuse
from ..timing import MB, Timing, peak_memory, time_in_turn

PHOTO = (1500, 2000)  # the size of a photo whose logits take gigabytes


def compare(
    model: nn.Module,
    image: Tensor,
    label_logits: Tensor | None = None,
    runs: int = 10,
    threads: Sequence[int] = (1, 2),
    compiled: bool = False,
) -> None:
    """Prints the comparison.

    Args:
        model: MMSegmentation's EncoderDecoder in eval mode.
        image: (1, 3, H, W) normalised.
        label_logits: (1, classes, h, w) for the label step; the model's own of ``image`` when left out. An untrained
            model's are noise, in which nothing can be decided without mixing.
        runs: of everything that is timed.
        threads: each of these thread counts in turn.
        compiled: also the fused network under torch.compile.

    Raises:
        FuseError: when the model has no exact fused form.
    """
    size = tuple(image.shape[2:])
    fused = fuse(model, size)
    print(
        f'{machine()}  {str(image.dtype).removeprefix("torch.")}  {size[0]}x{size[1]}  {model.num_classes} classes  '
        f'batch {len(image)}'
    )
    with torch.inference_mode():
        logits = model(image, mode='tensor')
        print(
            f'work         {work(lambda: model(image, mode="tensor")):.1f} GMAC unfused, '
            f'{work(lambda: fused.logits(image)):.1f} GMAC fused'
        )
        _agreement(model, fused, image, logits)
    contestants = {'fused': fused}
    if compiled:
        contestants['fused, torch.compile'] = compile_network(fused)
    before = torch.get_num_threads()
    try:
        for count in threads:
            torch.set_num_threads(count)
            print(f'\n{count} thread{"s" if count > 1 else ""}, {runs} runs in turn')
            with torch.inference_mode():
                _segmenters(model, contestants, image, runs)
                for target in (size, PHOTO):
                    _label_step(logits if label_logits is None else label_logits, fused, size, target, runs)
    finally:
        torch.set_num_threads(before)


def logits_of(labels: Tensor, classes: int) -> Tensor:
    """Logits as a trained model might give them for a scene: regions with soft seams, and noise.

    Args:
        labels: (h, w) int64, a label map at stride 4; each label becomes a class of its own.
        classes: of the logits.

    Returns:
        (1, classes, h, w) float32.
    """
    generator = torch.Generator().manual_seed(0)
    ids = torch.randperm(max(classes, int(labels.max()) + 1), generator=generator)[labels] % classes
    regions = F.avg_pool2d(F.one_hot(ids, classes).permute(2, 0, 1)[None].float(), 3, stride=1, padding=1)
    return 8 * regions + 0.5 * torch.randn(regions.shape, generator=generator)


def machine() -> str:
    """The processor, its cores and torch's version."""
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
        name = next(line.split(':')[1].strip() for line in lines if line.startswith('model name'))
        cores = sum(line.startswith('processor') for line in lines)
    except (OSError, StopIteration):
        name, cores = platform.processor() or platform.machine(), torch.get_num_threads()
    return f'{cores} x {name}, torch {torch.__version__.split("+")[0]}'


def work(run: Callable[[], object]) -> float:
    """Multiplications of convs and matrix products, in 10^9, as torch's FlopCounter counts them."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() / 2e9


def compile_network(fused: FusedSegmentor) -> FusedSegmentor:
    """The network with its logits under torch.compile, its weights frozen; the label step stays as it is.

    Raises:
        ConfigError: when torch.compile does not run here.
    """
    import torch._inductor.config as inductor

    inductor.freezing = True
    network = FusedSegmentor(
        fused.backbone, fused.decoder, fused.size, fused.align_corners, fused.threshold, fused.meta
    )
    network.logits = torch.compile(network.logits)
    try:
        with torch.inference_mode():
            network.logits(torch.zeros(1, 3, *fused.size, dtype=next(fused.parameters()).dtype))
    except Exception as error:  # whatever the compiler lacks, such as a C++ compiler
        raise ConfigError(
            f'torch.compile does not run here: {str(error).splitlines()[0][:160]}; leave --compile out'
        ) from error
    return network


def _agreement(model: nn.Module, fused: FusedSegmentor, image: Tensor, logits: Tensor) -> None:
    largest = float((fused.logits(image) - logits).abs().max())
    expected = torch.cat([sample.pred_sem_seg.data for sample in model.predict(image)])
    differ = fused(image) != expected
    full = F.interpolate(logits, size=image.shape[2:], mode='bilinear', align_corners=model.align_corners)
    ties = near_ties(full, 2 * largest) if full.shape[1] > 1 else torch.zeros_like(differ)
    print(f'logits       differ by {largest:.1e} at most, range {float(logits.max() - logits.min()):.1f}')
    print(
        f'labels       differ on {int(differ.sum())} of {differ.numel()} pixels, {int((differ & ~ties).sum())} of '
        'them no tie'
    )


def _segmenters(model: nn.Module, fused: dict[str, FusedSegmentor], image: Tensor, runs: int) -> None:
    whole = {'MMSegmentation predict': lambda: model.predict(image)}
    whole |= {name: (lambda network=network: network(image)) for name, network in fused.items()}
    _print('image to label map', time_in_turn(whole, runs))
    alone = {'MMSegmentation logits': lambda: model(image, mode='tensor')}
    alone |= {name: (lambda network=network: network.logits(image)) for name, network in fused.items()}
    _print('image to logits', time_in_turn(alone, runs))


def _label_step(
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
    _print(
        f'logits to labels at {target[0]}x{target[1]}',
        time_in_turn(contestants, max(3, runs // 3) if target == PHOTO else runs),
        contestants,
    )


def _print(title: str, timings: dict[str, Timing], measured: dict[str, Callable] | None = None) -> None:
    print(f'  {title}')
    first = next(iter(timings.values())).median
    for name, timing in timings.items():
        memory = ''
        if measured:
            with peak_memory() as peak:
                measured[name]()
            memory = '' if peak.bytes is None else f'  peak {peak.bytes / MB:.0f} MB'
        print(f'    {name:24s}{timing}  {first / timing.median:6.2f}x{memory}')
