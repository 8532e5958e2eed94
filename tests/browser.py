"""A real browser, driven through its own driver: Debian's packages chromium and chromium-driver, or Chrome's."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from effseg.demo.scenes import draw_scene

FLAGS = (
    'headless',
    'no-sandbox',
    'disable-gpu',
    'disable-quic',
    'no-first-run',
    'disable-background-networking',
    'disable-component-update',
    'disable-sync',
    'hide-scrollbars',
    'disable-dev-shm-usage',
)
PHONE, CAMERA = (390, 844), (64, 96)  # width and height of a screen; height and width of the camera's image


def find(*names: str) -> str | None:
    return next((path for name in names if (path := shutil.which(name))), None)


def open_browser(folder: Path, *flags: str):
    """Selenium's driver of a headless Chromium whose camera shows an image; skips where there is no Chromium, fails in
    CI.

    Args:
        folder: empty; for its profile.
        flags: more of Chromium's own, without the dashes.
    """
    chromium, driver = find('chromium', 'chromium-browser', 'google-chrome'), find('chromedriver')
    try:
        from selenium import webdriver
    except ImportError:
        webdriver = None
    missing = [
        name for name, there in (('chromium', chromium), ('chromedriver', driver), ('selenium', webdriver)) if not there
    ]
    if missing:
        (pytest.fail if os.environ.get('CI') else pytest.skip)(
            f'needs {", ".join(missing)} (apt-get install chromium chromium-driver)'
        )
    camera = folder / 'camera.mjpeg'
    Image.fromarray(draw_scene(CAMERA, np.random.default_rng(0))[0]).save(camera, 'JPEG')
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (
        *FLAGS,
        *flags,
        'use-fake-ui-for-media-stream',
        'use-fake-device-for-media-stream',
        f'use-file-for-fake-video-capture={camera}',
        f'user-data-dir={folder}',
    ):
        options.add_argument(f'--{flag}')
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL', 'performance': 'ALL'})
    window = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    window.set_script_timeout(120)
    return window


@pytest.fixture(scope='session')
def browser(tmp_path_factory) -> Iterator:
    """One for all tests, on a machine without a GPU."""
    window = open_browser(tmp_path_factory.mktemp('profile'))
    yield window
    window.quit()


def resize(window, size: tuple[int, int] = (1100, 900), dark: bool = False) -> None:
    """As a screen of this width and height, light or dark; narrow ones are phones."""
    window.execute_cdp_cmd(
        'Emulation.setDeviceMetricsOverride',
        dict(width=size[0], height=size[1], deviceScaleFactor=1, mobile=size[0] < 600),
    )
    scheme = 'dark' if dark else 'light'
    window.execute_cdp_cmd(
        'Emulation.setEmulatedMedia', dict(features=[dict(name='prefers-color-scheme', value=scheme)])
    )


def requests(window) -> list[str]:
    """The addresses that were asked for since the last call, but those within the page."""
    import json

    messages = [json.loads(entry['message'])['message'] for entry in window.get_log('performance')]
    addresses = [
        message['params']['request']['url'] for message in messages if message['method'] == 'Network.requestWillBeSent'
    ]
    return [address for address in addresses if not address.startswith(('data:', 'blob:'))]


def complaints(window) -> list[str]:
    """Errors and warnings on its console since the last call."""
    return [entry['message'] for entry in window.get_log('browser') if entry['level'] in ('SEVERE', 'WARNING')]


def wait_for(window, condition, seconds: float = 60):
    """What ``condition(window)`` gives as soon as that is true; a failure if it never is."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(window, seconds, poll_frequency=0.1).until(condition)


def overflow(window) -> int:
    """By how many pixels the page is wider than the screen."""
    return window.execute_script('return document.documentElement.scrollWidth - innerWidth')
