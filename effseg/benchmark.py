"""Segmenters side by side, timed in turn in one process: MMSegmentation's own, fused networks, exported files.

Every figure is a median of interleaved runs; what else the machine does meets all contestants alike, so their ratios
hold better than their milliseconds.
"""

import functools
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from . import deploy, files
from .apis.opening import open_segmenter
from .datasets.images import open_image, read_image
from .demo.scenes import draw_scene
from .deploy.backends import SUFFIXES, backend
from .deploy.program import Unfused
from .errors import ArtifactError, ConfigError, DataError, FuseError
from .fusion.labels import Resize, label_map, near_ties
from .fusion.segmentor import FusedSegmentor, check_size, describe_data, fuse
from .stack import resources
from .timing import MB, Timing, peak_memory, time_in_turn

MOST_THREADS = 1024
PHOTO = (1500, 2000)  # the size of a photo whose logits take gigabytes
HEADER = f'{"model":<28}{"M parameters":>13}{"GMAC":>8}{"fused":>8}{"ms":>9}{"fused":>9}{"ratio":>7}  threads'


def compare_fused(
    config: str,
    checkpoint: str | None = None,
    image: str | None = None,
    label_map: str | None = None,
    size: tuple[int, int] = (512, 512),
    runs: int = 10,
    threads: Sequence[int] = (1, 2),
    compiled: bool = False,
    cfg_options: dict | None = None,
) -> None:
    """Prints how the fused segmenter of a config compares with MMSegmentation's own.

    Args:
        config: path, or ``effseg::NAME.py``.
        checkpoint: trained weights; random ones when left out.
        image: a file; a drawn scene when left out.
        label_map: a PNG of class numbers to make the logits of the label step from; when left out they are the model's,
            and with random weights those of the drawn scene's label map, since noise leaves nothing to decide.
        size: (H, W) that the image is resized to.
        runs: of everything that is timed.
        threads: each of these thread counts in turn.
        compiled: also the fused network under torch.compile.
        cfg_options: overrides of the config.

    Raises:
        EffsegError: for a config, checkpoint or image that cannot be used, and a model that has no exact fused form.
    """
    size = check_size(size)
    _check_counts(runs, threads)
    model = open_segmenter(config, checkpoint, cfg_options=cfg_options, device='cpu').trained
    scene, truth = draw_scene(size, np.random.default_rng(0))
    x = _normalised(model, read_image(image) if image else scene, size)
    fused = fuse(model, size)
    with torch.inference_mode():
        logits = model(x, mode='tensor')
    of_labels = logits
    if label_map or not checkpoint:
        labels = Image.fromarray(_read_labels(label_map) if label_map else truth)
        labels = labels.resize((logits.shape[3], logits.shape[2]), Image.Resampling.NEAREST)
        of_labels = logits_of(torch.from_numpy(np.array(labels)).long(), model.num_classes)
    print(
        f'{checkpoint or "random weights"}, {image or "a drawn scene"}, '
        f'labels of {label_map or ("the model" if checkpoint else "the drawn scene")}'
    )
    print(f'{machine()}  float32  {size[0]}x{size[1]}  {model.num_classes} classes  batch 1')
    works = {'MMSegmentation logits': work(lambda: model(x, mode='tensor')), 'fused': work(lambda: fused.logits(x))}
    print(f'work         {works["MMSegmentation logits"]:.1f} GMAC unfused, {works["fused"]:.1f} GMAC fused')
    _print_agreement(model, fused, x, logits)
    networks: dict[str, nn.Module] = {'fused': fused}
    if compiled:
        networks['fused, torch.compile'] = compile_network(fused)
    for count in _each(threads):
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


def compare_artifacts(
    paths: Sequence[str],
    config: str | None = None,
    checkpoint: str | None = None,
    image: str | None = None,
    runs: int = 10,
    threads: Sequence[int] = (1, 2),
    cfg_options: dict | None = None,
) -> None:
    """Prints how exported files compare with each other, and with MMSegmentation's predict where a config is given.

    Args:
        paths: artifacts of one image size; one of ``tools/export.py --unfused`` shows what the fusion gains.
        config, checkpoint, cfg_options: of the reference, see :func:`compare_fused`.
        image: a file, resized to the artifacts' size; a drawn scene when left out.
        runs: of each.
        threads: for ONNX Runtime, LiteRT and torch; ExecuTorch's Python runtime takes as many as there are cores.

    Raises:
        EffsegError: for an artifact, config, checkpoint or image that cannot be used, and artifacts of several sizes.
    """
    _check_counts(runs, threads)
    model = open_segmenter(config, checkpoint, cfg_options=cfg_options, device='cpu').trained if config else None
    pixels = read_image(image) if image else draw_scene((512, 512), np.random.default_rng(0))[0]
    for count in _each(threads):
        loaded, seconds, peaks = {}, {}, {}
        for path in paths:
            # of loading and the first run: runtimes set their memory aside in the one or the other
            with peak_memory() as peaks[path]:
                started = time.perf_counter()
                loaded[path] = deploy.load(path, count)
                seconds[path] = time.perf_counter() - started
                loaded[path](np.zeros(loaded[path].spec.image_shape, np.uint8))
        specs = {artifact.spec.image_shape for artifact in loaded.values()}
        if len(specs) > 1:
            raise ArtifactError(
                f'the artifacts take images of {sorted(specs)}; only artifacts of one size can be compared'
            )
        ((height, width, _),) = specs
        resized = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
        contestants: dict[str, Callable[[], object]] = {}
        if model is not None:
            contestants['MMSegmentation predict'] = partial(_predict, model, resized)
        contestants |= {path: partial(artifact.labels, resized) for path, artifact in loaded.items()}
        timings = time_in_turn(contestants, runs)
        print(f'image to labels, {height}x{width}, {count} thread(s), {runs} runs in turn')
        first = next(iter(timings.values())).median
        for name, timing in timings.items():
            if name not in peaks:
                with peak_memory() as peaks[name]:
                    contestants[name]()
            tail = statistics.quantiles(timing.seconds, n=10)[-1] if runs > 1 else timing.median
            of_file = f'  {files.size(Path(name)) / MB:6.1f} MB  load {seconds[name]:.2f} s' if name in loaded else ''
            print(
                f'  {Path(name).name:40s} median {1e3 * timing.median:7.1f} ms  p90 {1e3 * tail:7.1f} ms  '
                f'{first / timing.median:5.2f}x  {peaks[name]}{of_file}'
            )


def compare_models(
    models: Sequence[Path] | None = None,
    size: tuple[int, int] = (512, 512),
    runs: int = 10,
    threads: Sequence[int] = (1, 2),
) -> None:
    """Prints one line per model with random weights: parameters, multiplications and the median time to the logits of
    one image, as MMSegmentation runs it and fused, the two timed in turn.

    Args:
        models: configs; all that are shipped for ADE20K when left out.
        size: (H, W) of the image.
        runs: of each that count.
        threads: each of these thread counts in turn.

    Raises:
        EffsegError: for a size that cannot be used, or a model that has no exact fused form.
    """
    size = check_size(size)
    _check_counts(runs, threads)
    print(f'{machine()}  float32  {size[0]}x{size[1]}  batch 1  {runs} runs in turn\n{HEADER}', flush=True)
    x = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    for path in shipped_models() if models is None else models:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of defaults that matter in training alone
            model = open_segmenter(str(path), device='cpu').trained
        fused = fuse(model, size)
        for count in _each(threads):
            print(_model_line(path.stem.removesuffix('_ade20k'), model, fused, x, runs) + f'  {count}', flush=True)


def compare_rivals(
    runtime: str = 'onnx',
    size: tuple[int, int] = (512, 512),
    runs: int = 10,
    threads: Sequence[int] = (1, 2),
    plot: str | None = None,
    models: Mapping[str, float | None] | None = None,
) -> None:
    """Prints how long exported files of ours and of MMSegmentation's own light segmenters take from image to logits.

    All are exported alike, with random weights: fused where they have a fused form, else as they were trained.

    Args:
        runtime: ``'onnx'``, ``'executorch'`` or ``'litert'``; ExecuTorch's Python runtime takes all cores always.
        size: (H, W) of the image.
        runs: of each that count, in turn.
        threads: each of these thread counts in turn.
        plot: a file for a plot of the time on the first of ``threads`` against the published mIoU.
        models: configs and the mIoU published for them on ADE20K, None where nothing is; :func:`rivals` when left out.
            The first is what the others are compared with.

    Raises:
        EffsegError: for a size or runtime that cannot be used.
    """
    size = check_size(size)
    _check_counts(runs, threads)
    writer, models = backend(runtime), rivals() if models is None else models
    image = draw_scene(size, np.random.default_rng(0))[0]
    print(f'{machine()}  {runtime} fp32  {size[0]}x{size[1]}  random weights  image to logits  {runs} runs in turn')
    macs, milliseconds = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for config in models:
            name = Path(config).stem.removesuffix('_ade20k')
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')  # of defaults that matter in training alone
                model = open_segmenter(config, device='cpu').trained
            try:
                network: nn.Module = fuse(model, size).exportable()
            except FuseError:
                network = Unfused(model)
            macs[name] = work(lambda network=network: network.logits(torch.zeros(1, 3, *size)))  # type: ignore[misc]
            writer.export(network, spec_of(model, runtime, size), Path(folder) / f'{name}{SUFFIXES[runtime]}', [])
        for count in _each(threads):
            opened = {name: writer.load(Path(folder) / f'{name}{SUFFIXES[runtime]}', count).run for name in macs}
            timings = time_in_turn({name: functools.partial(run, image) for name, run in opened.items()}, runs)
            milliseconds[count] = {name: 1e3 * timing.median for name, timing in timings.items()}
            first = next(iter(milliseconds[count].values()))
            print(f'{"model":<52}{"mIoU published":>15}{"GMAC":>8}{"ms":>9}{"ratio":>7}  {count} thread(s)')
            for (name, took), published in zip(milliseconds[count].items(), models.values()):
                print(f'{name:<52}{published or "-":>15}{macs[name]:>8.1f}{took:>9.1f}{took / first:>7.2f}', flush=True)
    if plot:
        _plot(plot, milliseconds[threads[0]], list(models.values()), f'{runtime}, {threads[0]} thread(s)')


def rivals() -> dict[str, float | None]:
    """Configs of ours and of MMSegmentation's own light segmenters, with the mIoU published for them on ADE20K."""
    import mmseg

    ours, theirs = resources() / 'configs', Path(mmseg.__file__).parent / '.mim/configs'
    return {
        str(path): published
        for path, published in {
            ours / 'fpn_effformer_l1_ade20k.py': 38.9,
            ours / 'fpn_effformerv2_s0_ade20k.py': 33.4,
            ours / 'fpn_effformerv2_s2_ade20k.py': 42.4,
            ours / 'mlp_effformerv2_s0_ade20k.py': None,
            ours / 'mlp_effformerv2_s1_ade20k.py': None,
            ours / 'mlp_effformerv2_s2_ade20k.py': None,
            ours / 'mlp_effformer_l1_ade20k.py': None,
            theirs / 'segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py': 37.4,
            theirs / 'segnext/segnext_mscan-t_1xb16-adamw-160k_ade20k-512x512.py': 41.1,
        }.items()
    }


def shipped_models() -> list[Path]:
    """The shipped ADE20K configs, by decoder, generation and size of the backbone."""
    order = ('l1', 'l3', 'l7', 's0', 's1', 's2', 'l')

    def place(path: Path) -> tuple[str, str, int]:
        decoder, backbone, arch, _ = path.stem.split('_')
        return decoder, backbone, order.index(arch)

    return sorted((resources() / 'configs').glob('*_ade20k.py'), key=place)


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
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
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
    network.logits = torch.compile(network.logits)  # type: ignore[method-assign]
    try:
        with torch.inference_mode():
            network.logits(torch.zeros(1, 3, *fused.size, dtype=next(fused.parameters()).dtype))
    except Exception as error:  # whatever the compiler lacks, such as a C++ compiler
        raise ConfigError(
            f'torch.compile does not run here: {str(error).splitlines()[0][:160]}; leave --compile out'
        ) from error
    return network


def _each(threads: Sequence[int]) -> Iterator[int]:
    """Each thread count, while torch has it."""
    before = torch.get_num_threads()
    try:
        for count in threads:
            torch.set_num_threads(count)
            yield count
    finally:
        torch.set_num_threads(before)


def _check_counts(runs: int, threads: Sequence[int]) -> None:
    if runs < 1 or not threads or not 1 <= min(threads) <= max(threads) <= MOST_THREADS:
        raise ConfigError(
            f'{runs} runs on {list(threads)} threads were asked for; runs take 1 or more, threads 1 to {MOST_THREADS}'
        )


def _predict(model: nn.Module, image: np.ndarray) -> object:
    """MMSegmentation's own way from an image (H, W, 3) RGB to its label map."""
    with torch.inference_mode():
        return model.predict(_normalised(model, image, image.shape[:2]))


def _normalised(model: nn.Module, image: np.ndarray, size: Sequence[int]) -> Tensor:
    """An image (H, W, 3) RGB as the network sees it: (1, 3, *size)."""
    resized = np.array(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR))
    bgr = torch.from_numpy(resized[..., ::-1].copy()).permute(2, 0, 1)
    with torch.no_grad():
        return model.data_preprocessor(dict(inputs=[bgr]), False)['inputs']


def _read_labels(path: str) -> np.ndarray:
    """
    Raises:
        DataError: when the file is no 8-bit label map.
    """
    try:
        with open_image(path) as image:
            labels = np.array(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f'{path} cannot be read as a label map: {error}') from error
    if labels.ndim != 2 or labels.dtype != np.uint8:
        raise DataError(
            f'{path} holds {labels.dtype} of shape {labels.shape}; 8-bit class numbers (H, W) were expected'
        )
    return labels


def spec_of(model: nn.Module, runtime: str, size: tuple[int, int]) -> deploy.Spec:
    """The spec of a file of logits that is timed and thrown away."""
    data = describe_data(model)
    classes = tuple(str(index) for index in range(model.num_classes))
    return deploy.Spec(
        backend=runtime,
        height=size[0],
        width=size[1],
        output='logits',
        precision='fp32',
        mean=data['mean'],
        std=data['std'],
        classes=classes,
        palette=((0, 0, 0),) * len(classes),
        checkpoint_sha256='',
        effseg='',
    )


def _plot(path: str, milliseconds: dict[str, float], published: list[float | None], title: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), layout='constrained')
    axes = figure.subplots()
    lowest = min(filter(None, published), default=0.0) - 1
    for (name, took), score in zip(milliseconds.items(), published):
        label = name if 'effformer' in name else '_'.join(name.split('_')[:2])
        axes.plot(took, score or lowest, 'o' if score else '|', color='C0' if 'effformer' in name else 'C1', ms=9)
        axes.annotate(
            label, (took, score or lowest), (4, 6), textcoords='offset points', rotation=0 if score else 50, size=8
        )
    axes.set_xlabel('ms from image to logits, ' + title)
    axes.set_ylabel('published mIoU on ADE20K (bars: none published)')
    figure.savefig(path, dpi=110)


def _model_line(name: str, model: nn.Module, fused: FusedSegmentor, x: Tensor, runs: int) -> str:
    contestants = {'trained': lambda: model(x, mode='tensor'), 'fused': lambda: fused.logits(x)}
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    macs = [work(run) for run in contestants.values()]
    with torch.inference_mode():
        timings = time_in_turn(contestants, runs, warmup=1)
    trained, quick = (1e3 * timings[key].median for key in contestants)
    return (
        f'{name:<28}{parameters:>13.1f}{macs[0]:>8.1f}{macs[1]:>8.1f}{trained:>9.0f}{quick:>9.0f}'
        f'{trained / quick:>7.2f}'
    )


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
