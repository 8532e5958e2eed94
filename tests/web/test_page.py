"""The page computes in a real browser what ONNX Runtime computes in Python, says what is wrong, and fits a phone."""

import base64
import contextlib
import io
import threading

import numpy as np
import pytest
from browser import CAMERA, PHONE, complaints, open_browser, overflow, requests, resize
from PIL import Image

from effseg import deploy
from effseg.deploy import load
from effseg.web.site import Handler, server, write_site

from .conftest import SIZE, spec_of

AGREEMENT = 0.999  # of the pixels: WebAssembly sums in another order than the CPU's kernels


@contextlib.contextmanager
def served(site):
    """Its address, and what is asked of it."""
    asked = []
    with pytest.MonkeyPatch.context() as patch, server(site, port=0) as running:
        patch.setattr(Handler, 'log_request', lambda self, code, size=None: asked.append((self.path, int(code))))
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{running.server_port}/', asked
        running.shutdown()


@pytest.fixture(scope='module', params=['labels', 'logits'])
def page(request, artifacts, package, tmp_path_factory):
    """A site that is being served: its address, its artifact, and what was asked of it."""
    site = write_site(str(artifacts[request.param]), str(tmp_path_factory.mktemp('www') / 'site'), package)
    with served(site) as (address, asked):
        yield address, artifacts[request.param], asked


@pytest.fixture(scope='module')
def opened(page, browser):
    """The browser, with the model loaded."""
    resize(browser, PHONE)
    browser.get('about:blank')
    complaints(browser), requests(browser)
    assert open_page(browser, page[0]).startswith('WebAssembly')  # without a GPU
    return browser


def open_page(window, address):
    """What the model runs on, once it is loaded."""
    window.get(address)
    wait(window, 'document.body.dataset.ready || document.getElementById("message").textContent')
    assert window.execute_script('return document.getElementById("message").textContent') == ''
    return window.execute_script('return document.body.dataset.ready')


def wait(browser, condition, seconds=90):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, seconds, poll_frequency=0.1).until(
        lambda window: window.execute_script(f'return {condition}')
    )


def choose(browser, path):
    from selenium.webdriver.common.by import By

    browser.execute_script('globalThis.segmentation = undefined')
    browser.find_element(By.ID, 'file').send_keys(str(path))


def labels_of(browser, speed='ms'):
    wait(browser, f'globalThis.segmentation && document.getElementById("speed").textContent.includes("{speed}")')
    size = browser.execute_script('return [segmentation.height, segmentation.width]')
    packed = browser.execute_script('return btoa(String.fromCharCode.apply(null, segmentation.labels))')
    return np.frombuffer(base64.b64decode(packed), np.uint8).reshape(size), size


def expected(artifact, image):
    return load(artifact).labels(image)


def test_nothing_is_loaded_from_elsewhere(opened, page):
    address, _, asked = page
    assert {code for _, code in asked} <= {200, 304}
    assert {
        '/',
        '/page.mjs',
        '/worker.mjs',
        '/labels.mjs',
        '/spec.json',
        '/model.onnx',
        '/ort/ort-wasm-simd-threaded.wasm',
    } <= {path for path, _ in asked}
    assert all(request.startswith(address) for request in requests(opened) if not request.startswith('chrome:'))
    policy = opened.execute_script('return document.querySelector("meta[http-equiv=Content-Security-Policy]").content')
    assert "default-src 'none'" in policy and 'http' not in policy
    assert not [line for line in complaints(opened) if 'No available adapters' not in line]


def test_its_labels_are_those_of_onnx_runtime(opened, page, images, tmp_path):
    reference = [expected(page[1], image) for image in images[:2]]
    assert min(len(np.unique(labels)) for labels in reference) > 1
    for number, image in enumerate(images[:2]):
        path = tmp_path / f'{number}.png'
        Image.fromarray(image).save(path)
        choose(opened, path)
        labels, size = labels_of(opened)
        assert size == list(SIZE) and (labels == reference[number]).mean() >= AGREEMENT


def test_a_portrait_photo_is_shown_whole(opened, page, images, tmp_path):
    tall = np.ascontiguousarray(np.concatenate([images[0], images[1], images[2]]))
    path = tmp_path / 'tall.png'
    Image.fromarray(tall).save(path)
    choose(opened, path)
    _, (height, width) = labels_of(opened)
    assert [height, width] == list(tall.shape[:2])
    shown = opened.execute_script('const c = document.getElementById("photo"); return [c.height, c.width]')
    assert shown == list(tall.shape[:2])


def test_legend_opacity_and_save(opened, images, tmp_path):
    path = tmp_path / 'photo.png'
    Image.fromarray(images[0]).save(path)
    choose(opened, path)
    labels, _ = labels_of(opened)
    shares = opened.execute_script(
        'return [...document.querySelectorAll("#legend span:last-child")].map(s => parseFloat(s.textContent))'
    )
    assert (
        shares == sorted(shares, reverse=True)
        and sum(shares) == pytest.approx(100, abs=0.3)
        and len(shares) == len(np.unique(labels))
    )
    move = (
        'const o = document.getElementById("opacity"); o.value = 20; o.dispatchEvent(new Event("input")); '
        'return getComputedStyle(document.getElementById("overlay")).opacity'
    )
    assert float(opened.execute_script(move)) == 0.2
    saved = opened.execute_async_script(
        'const done = arguments[0]; HTMLAnchorElement.prototype.click = function() { '
        'const i = new Image(); i.onload = () => done([this.download, i.width, i.height]); i.src = this.href; };'
        'document.getElementById("save").click()'
    )
    assert saved[0].endswith('.png') and saved[1:] == [SIZE[1], SIZE[0]]


def test_a_file_that_is_no_image_is_said_to_be(opened, images, tmp_path):
    (tmp_path / 'notes.jpg').write_text('no image')
    choose(opened, tmp_path / 'notes.jpg')
    assert 'notes.jpg cannot be read as an image' in wait(opened, 'document.getElementById("message").textContent')
    path = tmp_path / 'photo.png'
    Image.fromarray(images[0]).save(path)
    choose(opened, path)
    labels_of(opened)
    assert opened.execute_script('return document.getElementById("message").textContent') == ''


@pytest.mark.parametrize('size', [PHONE, (320, 568), (1100, 800)], ids=['phone', 'small', 'desktop'])
def test_it_fits_the_screen(opened, size, images, tmp_path):
    path = tmp_path / 'photo.png'
    Image.fromarray(images[0]).save(path)
    choose(opened, path)
    labels_of(opened)
    resize(opened, size)
    assert overflow(opened) <= 0
    small = opened.execute_script(
        'return [...document.querySelectorAll(".buttons button")].map(b => b.getBoundingClientRect()).filter(r => '
        'r.height < 44 || r.width < 44).length'
    )
    assert small == 0


def test_the_camera_is_segmented_frame_by_frame(opened, page):
    opened.execute_script('globalThis.segmentation = undefined; document.getElementById("camera").click()')
    wait(opened, 'document.getElementById("speed").textContent.includes("frames/s")')
    assert opened.execute_script('return document.getElementById("camera").textContent') == 'Stop'
    opened.execute_script('document.getElementById("camera").click()')
    assert opened.execute_script('return document.getElementById("camera").textContent') == 'Camera'
    labels, size = labels_of(opened, 'frames/s')
    shown = Image.open(
        io.BytesIO(
            base64.b64decode(opened.execute_script('return document.getElementById("photo").toDataURL().split(",")[1]'))
        )
    )
    assert shown.size == CAMERA[::-1] and len(shown.convert('RGB').getcolors(10**6)) > 1000
    assert size == list(SIZE) and (labels == expected(page[1], np.asarray(shown.convert('RGB')))).mean() >= AGREEMENT
    opened.execute_script('globalThis.segmentation = undefined')
    assert opened.execute_async_script('setTimeout(() => arguments[0](globalThis.segmentation === undefined), 300)')


def test_a_camera_that_is_refused_is_said_to_be(opened):
    opened.execute_script(
        'navigator.mediaDevices.getUserMedia = async () => { throw '
        'new DOMException("Permission denied", "NotAllowedError"); };'
        'document.getElementById("camera").click()'
    )
    assert 'cannot be opened: Permission denied' in wait(opened, 'document.getElementById("message").textContent')


@pytest.fixture(scope='module')
def gpu(tmp_path_factory):
    """A browser whose WebGPU is computed on the CPU."""
    window = open_browser(tmp_path_factory.mktemp('gpu'), 'enable-unsafe-webgpu', 'use-webgpu-adapter=swiftshader')
    yield window
    window.quit()


@pytest.mark.slow
def test_webgpu_computes_the_same_labels(gpu, page, images, tmp_path):
    assert open_page(gpu, page[0]) == 'WebGPU'
    path = tmp_path / 'photo.png'
    Image.fromarray(images[0]).save(path)
    choose(gpu, path)
    labels, size = labels_of(gpu, 'ms on WebGPU')
    assert size == list(SIZE) and (labels == expected(page[1], images[0])).mean() >= AGREEMENT


def test_where_webgpu_fails_webassembly_computes(gpu, artifacts, package, images, tmp_path):
    site = write_site(str(artifacts['labels']), str(tmp_path / 'site'), package)
    (site / 'ort' / 'ort-wasm-simd-threaded.asyncify.wasm').unlink()  # what WebGPU runs with
    path = tmp_path / 'photo.png'
    Image.fromarray(images[0]).save(path)
    with served(site) as (address, _):
        assert open_page(gpu, address).startswith('WebAssembly')
        choose(gpu, path)
        assert (labels_of(gpu)[0] == expected(artifacts['labels'], images[0])).mean() >= AGREEMENT


@pytest.mark.slow
@pytest.mark.parametrize('output', ['labels', 'logits'])
def test_windows_go_over_a_photo_at_its_own_size(browser, model, fused, artifacts, package, images, tmp_path, output):
    artifact, path = tmp_path / 'model.onnx', tmp_path / 'photo.png'
    deploy.export(model, fused, spec_of('onnx', output, fit='windows'), artifact, images[:1])
    photo = np.concatenate([np.concatenate(images[:3], 1), np.concatenate(images[3:], 1)])[:101, :251]
    Image.fromarray(photo).save(path)
    middles = load(artifacts['labels']).labels(photo, 'windows')
    assert (load(artifacts['labels']).labels(photo) == middles).mean() < 0.99  # by letterbox
    with served(write_site(str(artifact), str(tmp_path / 'site'), package)) as (address, _):
        open_page(browser, address)
        choose(browser, path)
        labels, size = labels_of(browser)
        assert size == list(photo.shape[:2]) and (labels == middles).mean() >= AGREEMENT


PAINTED = """
const {canvas} = document.getElementById("overlay").getContext("2d"), {width, height} = canvas;
const {data} = canvas.getContext("2d").getImageData(0, 0, width, height);
return Array.from({length: width * height}, (_, p) => data[4 * p + 3] > 0);
"""
UNBOUND = 'const bound = document.getElementById("unknown"); bound.value = 0; bound.oninput()'


@pytest.mark.slow
def test_what_is_unknown_has_no_color_until_the_slider_says_otherwise(browser, model, fused, package, images, tmp_path):
    artifact, photo = tmp_path / 'model.onnx', tmp_path / 'photo.png'
    deploy.export(model, fused, spec_of('onnx', 'labels+confidence'), artifact, images[:1])
    Image.fromarray(images[0]).save(photo)
    _, confidence = load(artifact).confident(images[0])
    below = round(float(np.median(confidence)), 2)
    with served(write_site(str(artifact), str(tmp_path / 'site'), package, below)) as (address, _):
        open_page(browser, address)
        choose(browser, photo)
        labels_of(browser)
        painted = np.reshape(browser.execute_script(PAINTED), SIZE)
        assert (painted == (confidence >= below)).mean() >= AGREEMENT and 0.2 < painted.mean() < 0.8
        assert 'unknown' in browser.execute_script('return document.getElementById("legend").textContent')
        browser.execute_script(UNBOUND)
        assert all(browser.execute_script(PAINTED))
