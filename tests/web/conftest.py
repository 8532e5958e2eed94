"""An artifact of a moment, its page, and a browser."""

import os

import pytest
from browser import browser  # noqa: F401
from deploy.conftest import SIZE, fused, images, model, need, spec_of  # noqa: F401


@pytest.fixture(scope='session')
def package() -> str:
    """onnxruntime-web, by npm; skips where it cannot be had, fails in CI."""
    from effseg.errors import MissingRuntimeError
    from effseg.web import runtime

    try:
        return str(runtime.package())
    except MissingRuntimeError as error:
        (pytest.fail if os.environ.get('CI') else pytest.skip)(str(error))


@pytest.fixture(scope='session')
def artifacts(model, fused, images, tmp_path_factory):
    """The two-block network as an .onnx file, by what it returns."""
    need('onnx')
    from effseg import deploy

    folder = tmp_path_factory.mktemp('artifacts')
    return {
        output: deploy.export(model, fused, spec_of('onnx', output), folder / f'{output}.onnx', images[:2]).path
        for output in ('labels', 'logits')
    }
