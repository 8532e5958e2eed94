"""Installs effseg; ``.mim`` inside the installed package holds configs/, tools/ and model-index.yml, where MMEngine's
tools look for them."""

import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
VERSION = next(
    line.split("'")[1]
    for line in (ROOT / 'effseg/__init__.py').read_text().splitlines()
    if line.startswith('__version__')
)

RUNTIMES = {
    # torch.onnx's exporter needs onnxscript; 1.22 is the first onnxruntime with numpy 2 wheels for every supported
    # Python
    'onnx': ['onnx>=1.18', 'onnxscript>=0.5', 'onnxruntime>=1.22'],
    # what its XNNPACK delegate takes is proved on 1.5, which asks for this torchao, the home of its quantizer, and
    # imports torch to run a file as well, without asking for it
    'executorch': ['executorch>=1.5.1,<1.6', 'torchao>=0.18,<0.19', 'torch>=2.1'],
    # 9.0 is the first to read torch.export programs of current torch; newer cattrs wants a typing-extensions that
    # litert-torch refuses; no wheels for Python 3.14, where the other extras are usable without it
    'coreml': ['coremltools>=9.0,<10; python_version < "3.14"', 'cattrs<25.3'],
    # the three released together, pinning each other; flatbuffers, which they ask for, writes MediaPipe's metadata
    'litert': ['litert-torch>=0.10,<0.11', 'ai-edge-litert>=2.3,<2.4', 'ai-edge-quantizer>=0.10,<0.11', 'flatbuffers'],
    # the only one that wrote and read its files here
    'torch': ['torch>=2.14'],
}
ALL = sorted({requirement for runtime in RUNTIMES.values() for requirement in runtime})
# engines that take an .onnx file by their own converters, beside the runtimes: the benchmark compares them
ENGINES = ['openvino>=2026.4', 'MNN>=3.6', 'ncnn>=1.0.20261020', 'pnnx>=20261020']
# charts as HTML that needs no network, and the page around them
REPORT = ['plotly>=6', 'jinja2']
# all but running files: networks, weights, data, tools
TRAIN = [
    'torch>=2.1',  # the first whose scaled_dot_product_attention takes a scale
    'timm>=1.0.22',  # 1.0.20 and earlier do not find huggingface_hub 2
    'pyyaml',
    'safetensors',
    'huggingface_hub',
    'tqdm',
]
EXTRAS = {
    'train': TRAIN,
    # the maintained line of MMSegmentation; an extra, since it must never be installed over an official one
    'mmseg': [
        *TRAIN,
        'onedl-mmsegmentation>=1.4.2',
        'torch>=2.3',  # the first that works with the numpy 2 that onedl-mmsegmentation asks for
        'onedl-mmengine>=0.10.12',
        'onedl-mmcv>=2.3.6',
        'opencv-python',  # as mmcv asks for it; the headless one would be installed over it
        'matplotlib',  # as mmengine asks for it
    ],
    **RUNTIMES,
    'engines': ENGINES,
    'report': REPORT,
    'all': ALL,
    # selenium drives the browser of the tests; newer ones want a typing-extensions that litert-torch refuses
    'test': ['pytest>=8', 'pytest-xdist', 'hypothesis', 'selenium>=4.20,<4.33', *REPORT, *ENGINES, *ALL],
    # exact, so that a checkout is clean or not wherever it is checked
    'lint': ['ruff==0.17.6', 'mypy==2.4.1'],
}


class BuildWithResources(build_py):
    """Copies configs/ and tools/ into the package that is built; a checkout uses its own."""

    def run(self):
        super().run()
        if not self.editable_mode:
            for folder in ('configs', 'tools'):
                target = Path(self.build_lib) / 'effseg' / '.mim' / folder
                shutil.copytree(ROOT / folder, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns('__pycache__'))
            shutil.copy(ROOT / 'model-index.yml', target.parent)


setup(
    name='effseg',
    version=VERSION,
    description='EfficientFormer semantic segmentation for MMSegmentation, from training to the phone',
    author='The effseg authors',
    long_description=(ROOT / 'README.md').read_text() if (ROOT / 'README.md').exists() else '',
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    keywords='semantic segmentation, EfficientFormer, MMSegmentation, ONNX, ExecuTorch, LiteRT, Core ML',
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Developers',
        'Intended Audience :: Science/Research',
        'Operating System :: MacOS',
        'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3',
        *(f'Programming Language :: Python :: 3.{minor}' for minor in (10, 11, 12, 13)),
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
        'Topic :: Scientific/Engineering :: Image Recognition',
        'Typing :: Typed',
    ],
    packages=find_packages(include=['effseg', 'effseg.*']),
    package_data={
        'effseg': ['py.typed'],
        'effseg.report': ['*.html'],
        'effseg.slimming': ['*.html'],
        'effseg.web': ['page/*'],
    },
    python_requires='>=3.10',
    install_requires=['numpy', 'pillow'],  # to run exported files, beside a runtime
    extras_require=EXTRAS,
    entry_points={'console_scripts': ['effseg = effseg.__main__:main']},
    cmdclass={'build_py': BuildWithResources},
)
