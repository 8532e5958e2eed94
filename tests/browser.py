"""A real browser, driven through its own driver: Debian's packages chromium and chromium-driver, or Chrome's."""
import os
import shutil
from collections.abc import Iterator

import pytest

FLAGS = ('headless', 'no-sandbox', 'disable-gpu', 'disable-quic', 'no-first-run', 'disable-background-networking', 'disable-component-update',
         'disable-sync', 'hide-scrollbars', 'disable-dev-shm-usage')
PHONE = (390, 844)


def find(*names: str) -> str | None:
    return next((path for name in names if (path := shutil.which(name))), None)


@pytest.fixture(scope='session')
def browser(tmp_path_factory) -> Iterator:
    """Selenium's driver of a headless Chromium without any profile; skips where there is none, fails in CI."""
    chromium, driver = find('chromium', 'chromium-browser', 'google-chrome'), find('chromedriver')
    try:
        from selenium import webdriver
    except ImportError:
        webdriver = None
    missing = [name for name, there in (('chromium', chromium), ('chromedriver', driver), ('selenium', webdriver)) if not there]
    if missing:
        (pytest.fail if os.environ.get('CI') else pytest.skip)(f'needs {", ".join(missing)} (apt-get install chromium chromium-driver)')
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in FLAGS:
        options.add_argument(f'--{flag}')
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL', 'performance': 'ALL'})
    window = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    window.set_script_timeout(120)
    yield window
    window.quit()


def resize(window, size: tuple[int, int] = (1100, 900), dark: bool = False) -> None:
    """As a screen of this width and height, light or dark; narrow ones are phones."""
    window.execute_cdp_cmd('Emulation.setDeviceMetricsOverride',
                           dict(width=size[0], height=size[1], deviceScaleFactor=1, mobile=size[0] < 600))
    scheme = 'dark' if dark else 'light'
    window.execute_cdp_cmd('Emulation.setEmulatedMedia', dict(features=[dict(name='prefers-color-scheme', value=scheme)]))


def requests(window) -> list[str]:
    """The addresses that were asked for since the last call, but those within the page."""
    import json
    messages = [json.loads(entry['message'])['message'] for entry in window.get_log('performance')]
    addresses = [message['params']['request']['url'] for message in messages if message['method'] == 'Network.requestWillBeSent']
    return [address for address in addresses if not address.startswith(('data:', 'blob:'))]


def complaints(window) -> list[str]:
    """Errors and warnings on its console since the last call."""
    return [entry['message'] for entry in window.get_log('browser') if entry['level'] in ('SEVERE', 'WARNING')]


def overflow(window) -> int:
    """By how many pixels the page is wider than the screen."""
    return window.execute_script('return document.documentElement.scrollWidth - innerWidth')
