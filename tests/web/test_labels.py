"""The page's fit is Python's: the same part of the image, and the same labels of a result, in Node."""

import json
import subprocess
from importlib import resources

import numpy as np
import pytest
from browser import find
from deploy.conftest import spec_of

from effseg.deploy.fit import content_of, labels_of

SCRIPT = """
import {contentOf, labelsOf} from %s;
const {spec, size, values, dims} = JSON.parse(await new Response(process.stdin).text());
const content = contentOf(spec, ...size);
console.log(JSON.stringify({content, labels: [...labelsOf(values, dims, spec, content, size)]}));
"""


@pytest.mark.parametrize('output', ['labels', 'logits'])
@pytest.mark.parametrize('fit', ['letterbox', 'stretch'])
@pytest.mark.parametrize('size', [(64, 96), (230, 100), (37, 150), (1, 1), (1, 300)])
def test_labels_are_those_of_python(output, fit, size):
    node = find('node') or pytest.skip('needs node')
    spec = spec_of('onnx', output, fit=fit)
    random = np.random.default_rng(0)
    values = random.integers(0, 3, (64, 96)) if output == 'labels' else random.standard_normal((3, 16, 24))
    result = values.astype(np.int32 if output == 'labels' else np.float32)
    given = dict(spec=spec.as_dict(), size=size, values=result.ravel().tolist(), dims=[1, *result.shape])
    script = SCRIPT % json.dumps((resources.files('effseg.web') / 'page' / 'labels.mjs').as_uri())
    command = [node, '--input-type=module', '-e', script]
    done = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert tuple(found['content']) == content_of(size, spec)
    expected = labels_of(np.zeros((*size, 3), np.uint8), spec, lambda image: result)
    assert np.mean(np.array(found['labels']).reshape(size) == expected) > 0.999  # sums of float32 may tie
