"""The page's fit is Python's: the same part of the image, and the same labels of a result, in Node."""

import json
import subprocess
from importlib import resources

import numpy as np
import pytest
from browser import find
from deploy.conftest import spec_of

from effseg.deploy.fit import confident_of, content_of, labels_of

WINDOWS = """
import {keep, windowsOf} from %s;
const {spec, size, photo} = JSON.parse(await new Response(process.stdin).text()), [height, width] = size;
const labels = new Uint8Array(height * width).fill(9);
for (const window of windowsOf(spec, height, width)) {
  const piece = new Uint8Array(spec.height * spec.width);
  for (let y = 0, p = 0; y < spec.height; y++) for (let x = 0; x < spec.width; x++, p++) {
    const [v, u] = [window.row.start + y, window.column.start + x];
    piece[p] = ((v < height && u < width ? photo[v * width + u] : spec.mean[0]) + y + 2 * x) %% 3;
  }
  keep(labels, width, piece, window, spec);
}
console.log(JSON.stringify([...labels]));
"""
SCRIPT = """
import {contentOf, labelsOf} from %s;
const {spec, size, values, dims} = JSON.parse(await new Response(process.stdin).text());
const content = contentOf(spec, ...size);
console.log(JSON.stringify({content, labels: [...labelsOf(values, dims, spec, content, size)]}));
"""
CONFIDENCE = """
import {nearestOf} from %s;
const {spec, size, content, values} = JSON.parse(await new Response(process.stdin).text());
console.log(JSON.stringify([...nearestOf(values, spec, content, size, new Float32Array(size[0] * size[1]))]));
"""


def test_confidence_goes_the_way_of_its_labels():
    spec, size = spec_of('onnx', 'labels+confidence'), (37, 150)
    values = np.random.default_rng(0).random((64, 96), np.float32)
    given = dict(spec=spec.as_dict(), size=size, content=content_of(size, spec), values=values.ravel().tolist())
    _, expected = confident_of(np.zeros((*size, 3), np.uint8), spec, lambda image: (values, values))
    np.testing.assert_allclose(np.reshape(in_node(CONFIDENCE, given), size), expected, rtol=1e-6)


@pytest.mark.parametrize('output', ['labels', 'logits'])
@pytest.mark.parametrize('fit', ['letterbox', 'stretch'])
@pytest.mark.parametrize('size', [(64, 96), (230, 100), (37, 150), (1, 1), (1, 300)])
def test_labels_are_those_of_python(output, fit, size):
    spec = spec_of('onnx', output, fit=fit)
    random = np.random.default_rng(0)
    values = random.integers(0, 3, (64, 96)) if output == 'labels' else random.standard_normal((3, 16, 24))
    result = values.astype(np.int32 if output == 'labels' else np.float32)
    given = dict(spec=spec.as_dict(), size=size, values=result.ravel().tolist(), dims=[1, *result.shape])
    found = in_node(SCRIPT, given)
    assert tuple(found['content']) == content_of(size, spec)
    expected = labels_of(np.zeros((*size, 3), np.uint8), spec, lambda image: result)
    assert np.mean(np.array(found['labels']).reshape(size) == expected) > 0.999  # sums of float32 may tie


@pytest.mark.parametrize('size', [(64, 96), (65, 97), (230, 100), (37, 150), (300, 300), (1, 500)])
def test_windows_are_those_of_python(size):
    spec = spec_of('onnx', 'labels', fit='windows')
    compare_windows(spec, size)


def test_large_windows_begin_where_those_of_python_do():
    compare_windows(spec_of('onnx', 'labels', fit='windows', size=(256, 64)), (600, 150))


def compare_windows(spec, size):
    photo = np.random.default_rng(0).integers(0, 3, (*size, 1), np.uint8).repeat(3, 2)
    given = dict(spec=dict(spec.as_dict(), mean=[round(spec.mean[0])]), size=size, photo=photo[..., 0].ravel().tolist())
    rows, columns = np.ogrid[: spec.height, : spec.width]
    # what a window says of a pixel depends on where in it the pixel lies
    expected = labels_of(photo, spec, lambda image: ((image[..., 0] + rows + 2 * columns) % 3).astype(np.int32))
    np.testing.assert_array_equal(np.array(in_node(WINDOWS, given)).reshape(size), expected)


def in_node(script: str, given: dict):
    """What a script with labels.mjs prints of what it is given, as JSON."""
    node = find('node') or pytest.skip('needs node')
    script = script % json.dumps((resources.files('effseg.web') / 'page' / 'labels.mjs').as_uri())
    command = [node, '--input-type=module', '-e', script]
    done = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
