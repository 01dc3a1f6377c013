"""The end-to-end specs that tus-js-client's authors wrote, as they ship them in its package, in a headless Chromium.

Rule of this file: the specs are run as they come. Only the address of the demonstration server that they are written
for is replaced by ours, where it is spelled out.
"""

from pathlib import Path

import pytest
from tests.interop.browser import MODULES, Browser, Site
from tests.interop.clients import TUS_JS_5_BROWSER, TUS_JS_BROWSER
from tests.support.process import ServerProcess

HERE = Path(__file__).parent
DEMONSTRATION = "https://tusd.tusdemo.net/files/"
ENDINGS = ("", " with creation-with-upload")

pytestmark = pytest.mark.timeout(180)


def as_regex(url: str) -> str:
    """A URL as it is spelled in a regular expression of JavaScript."""
    return url.replace("/", r"\/").replace(".", r"\.")


def pointed_at(url: str, specs: str) -> str:
    """The specs, with `url` in the place of the demonstration server."""
    for old, new in ((DEMONSTRATION, url), (as_regex(DEMONSTRATION), as_regex(url))):
        assert old in specs
        specs = specs.replace(old, new)
    return specs


@pytest.mark.parametrize(
    "package",
    [
        pytest.param("tus-js-client", marks=pytest.mark.client(TUS_JS_BROWSER)),
        pytest.param("tus-js-client-5", marks=pytest.mark.client(TUS_JS_5_BROWSER)),
    ],
)
def test_its_own_end_to_end_specs(package: str, browser: Browser, site: Site, open_server: ServerProcess) -> None:
    specs = (MODULES / package / "dist" / "browser-test-bundle.js").read_text()
    site.put(f"{package}.js", pointed_at(f"{open_server.url}/files/", specs))
    jasmine = MODULES / "jasmine-core" / "lib" / "jasmine-core"
    for name in ("jasmine.js", "jasmine-html.js", "boot0.js"):
        site.put(name, (jasmine / name).read_bytes())
    site.put("specs.js", (HERE / "specs.js").read_bytes())
    browser.open(site.page(f"{package}.html", "jasmine.js", "jasmine-html.js", "boot0.js", f"{package}.js", "specs.js"))
    results = browser.call("run", "end-to-end")
    name = "tus end-to-end should upload to a real tus server"
    assert results == [{"status": "passed", "name": name + ending, "failures": []} for ending in ENDINGS]
