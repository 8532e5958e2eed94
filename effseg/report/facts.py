"""The facts beside a report's numbers: size and work of the model, machine and versions."""

import platform
import subprocess
from pathlib import Path

import torch
from torch import nn

from .. import __version__
from ..stack import distributions, version_of
from ..timing import counted, processor


def parameters(network: nn.Module) -> int:
    """Counts the weights of a network."""
    return sum(parameter.numel() for parameter in network.parameters())


def gmacs(logits, size: tuple[int, int], device: torch.device | str) -> float:
    """Billions of multiply-accumulates of convolutions and matrix products for one image, by torch's FlopCounterMode.

    Args:
        logits: takes (1, 3, H, W).
        size: (H, W).
        device: of the network.
    """
    with torch.no_grad():
        return counted(lambda: logits(torch.zeros(1, 3, *size, device=device)))[1]


def environment() -> dict[str, str]:
    """Versions and machine, by name."""
    stack = ', '.join(name for names in distributions().values() for name in names)
    facts = {
        'effseg': f'{__version__}{_commit()}',
        'MMSegmentation': stack,
        'PyTorch': torch.__version__,
        'Python': f'{platform.python_version()} on {platform.system()} {platform.machine()}',
        'processor': f'{processor()}, {torch.get_num_threads()} thread{"s" if torch.get_num_threads() > 1 else ""}',
    }
    if torch.cuda.is_available():
        facts['GPU'] = f'{torch.cuda.get_device_name()}, for checkpoints; exported files run on the processor'
    runtimes = [
        f'{name} {version}' for name in ('onnxruntime', 'executorch', 'ai-edge-litert') if (version := version_of(name))
    ]
    if runtimes:
        facts['runtimes'] = ', '.join(runtimes)
    return facts


def _commit() -> str:
    """The commit of the checkout that the package lies in, and whether it was changed since; nothing for an installed
    package."""
    root = Path(__file__).parents[2]
    if not (root / '.git').exists():
        return ''
    try:
        commit = subprocess.run(
            ['git', '-C', root, 'rev-parse', '--short=12', 'HEAD'], capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            ['git', '-C', root, 'status', '--porcelain', '-uno'], capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ''
    return f', commit {commit}{" and changes" if changed else ""}'
