"""torch: a .pt2 file of torch.export, for torch without MMSegmentation. The image is uint8 (N, H, W, 3).

The network keeps the form that is fast in torch, and takes any number of images at once where every part of it does.
"""

import copy
import io
import json
import zipfile
from pathlib import Path

import numpy as np

from ...errors import ArtifactError, first_line
from ..interface import axes
from ..quiet import quiet
from ..spec import SEAL, Spec
from . import Delegation, Session, require

PRECISIONS = ('fp32', 'bf16')
METADATA = 'effseg.json'
MODULE = 'torch.export.pt2_archive'  # torch has it since its files of weights hold numbers alone


def export(network, spec: Spec, path: Path, images: list[np.ndarray], floats: tuple[str, ...] = ()) -> Delegation:
    """Writes a .pt2 file; arguments and errors as in :func:`effseg.deploy.backends.onnx.export`."""
    require('torch', MODULE)
    import torch

    from ..program import Program

    program = Program(_fast(network, spec.precision), spec, axes(spec)).eval()
    with quiet(), torch.no_grad():
        exported = _of_any_batch(program, spec) or torch.export.export(program, (_images(1, spec),))
        for node in exported.graph.nodes:  # names of files and modules where it was written
            for name in ('stack_trace', 'nn_module_stack', 'torch_fn', 'source_fn_stack', 'from_node'):
                node.meta.pop(name, None)
        exported.example_inputs = None  # the only part that would be pickled
        torch.export.save(exported, path, extra_files={METADATA: json.dumps(spec.as_dict(), sort_keys=True)})
    with zipfile.ZipFile(path, 'a') as file:  # the one place that no checksum of the archive is of
        file.comment = b'{"%s": "%s"}' % (SEAL.encode(), b'0' * 64)
    return Delegation('torch', 1)


def in_bf16(network, spec: Spec):
    """Gives a function that runs the program of a bf16 file in torch: (H, W, 3) uint8 -> what the file returns, without
    the batch."""
    import torch

    from ..program import Program

    program = Program(_fast(network, 'bf16'), spec).eval()

    @torch.inference_mode()
    def run(image: np.ndarray) -> np.ndarray:
        return program(torch.from_numpy(image[None]))[0].numpy()

    return run


def load(path: Path, threads: int | None = None) -> Session:
    """Opens a .pt2 file; errors as in :func:`effseg.deploy.backends.onnx.load`.

    Raises:
        ArtifactError: also for a file that could run code of its own, see :mod:`effseg.deploy.backends.pt2`.
    """
    require('torch', MODULE)
    import torch
    from torch.export.pt2_archive._package import load_pt2

    from . import pt2

    content = path.read_bytes()
    try:
        with quiet():
            pt2.check(content)
            # not torch.export.load: of what this refuses it makes a file of an earlier format, which is unpickled
            archive = load_pt2(io.BytesIO(content))
            program = archive.exported_programs['model']
            module = program.module()
            signature = program.graph_signature
            shapes = tuple(_shape(program, name) for name in (*signature.user_inputs, *signature.user_outputs))
    except ArtifactError as error:
        raise ArtifactError(f'torch cannot read {path}: {error}') from error
    except Exception as error:  # torch's reader passes on whatever the byte it stops at leads to
        raise ArtifactError(f'torch cannot read {path}: {first_line(error)}; it is cut or not a .pt2 file') from error

    @torch.inference_mode()
    def run(array: np.ndarray) -> list[np.ndarray]:
        before = torch.get_num_threads()
        torch.set_num_threads(threads or before)
        try:
            results = module(torch.from_numpy(array))
            return [result.numpy() for result in (results if isinstance(results, tuple) else [results])]
        finally:
            torch.set_num_threads(before)

    return Session(archive.extra_files.get(METADATA), shapes, run)


def _fast(network, precision: str):
    """A copy in the form that is fast in torch, its arithmetic in the precision."""
    import torch

    from ...fusion.layers import Layer
    from ...fusion.segmentor import InBfloat16
    from ...fusion.trained import Trained

    network = copy.deepcopy(network)
    for part in network.children():
        if isinstance(part, Layer) and not isinstance(part, Trained):
            part.set_portable(False).to(memory_format=torch.channels_last)
    return InBfloat16(network) if precision == 'bf16' else network


def _of_any_batch(program, spec: Spec):
    """The program for any number of images, None where a part of it has the number fixed, or mixes the images."""
    import torch

    two = _images(2, spec)
    try:
        exported = torch.export.export(program, (two,), dynamic_shapes=({0: torch.export.Dim('batch', min=1)},))
        module = exported.module()
        each = torch.cat([_last(module(one)) for one in two.split(1)]).float()
        together = _last(module(two)).float()
    except Exception:  # of what a part does with the number; with one image it may well do
        return None
    return exported if torch.allclose(together, each, atol=1e-2 * float(each.abs().max())) else None


def _last(results):
    return results[-1] if isinstance(results, tuple) else results


def _images(count: int, spec: Spec):
    import torch

    return torch.randint(256, (count, *spec.image_shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def _shape(program, name: str) -> tuple[int, ...]:
    """Of the tensor of this name, a free number of images being 1."""
    (node,) = (node for node in program.graph.nodes if node.name == name)
    return tuple(side if isinstance(side, int) else 1 for side in node.meta['val'].shape)
