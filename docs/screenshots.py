"""Takes the pictures of the page that stand in docs/screenshots: `python -m docs.screenshots` (needs Chromium).

Rule of this file: what is seen on them is real: a server, files on their way from the page and from another client over
a slow network, one that was cut short, and some that are complete.
"""

import random
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.interop.browser import missing  # noqa: E402
from tests.page.windows import Windows  # noqa: E402
from tests.support.process import ServerProcess  # noqa: E402
from tests.support.proxy import Fault, Proxy  # noqa: E402
from tests.support.speaker import GRANULE, Speaker, b64  # noqa: E402

MIB = 1024 * 1024
PICTURES = ROOT / "docs" / "screenshots"


def named(name: str) -> str:
    return f"filename {b64(name.encode())}"


def complete(speaker: Speaker, name: str, content: bytes) -> None:
    url = speaker.create(len(content), Upload_Metadata=named(name), Want_Repr_Digest="sha-256=10")
    assert speaker.patch(url, 0, content).status == 204


def scatter(url: str, chance: random.Random, ended: threading.Event) -> None:
    """Another client, which sends its chunks in any order."""
    with Speaker(url) as speaker:
        length = 512 * GRANULE
        upload = speaker.create(length, Upload_Metadata=named("survey-lidar-0417.laz"))
        order = [4 * n for n in range(length // GRANULE // 4)]
        chance.shuffle(order)
        for granule in order:
            speaker.chunk(upload, granule * GRANULE, chance.randbytes(4 * GRANULE))
            if ended.wait(0.36):
                return


def main() -> int:
    if reason := missing():
        print(reason)
        return 1
    PICTURES.mkdir(exist_ok=True)
    chance = random.Random(7)  # noqa: S311 - the same pictures each time
    ended = threading.Event()
    with tempfile.TemporaryDirectory() as folder, ServerProcess(Path(folder) / "data") as server:
        files = []
        for name, size in (("interview-rushes-04.mov", 150), ("backup-2026-11-28.tar.zst", 90), ("atlas.sqlite", 40)):
            files.append(Path(folder) / name)
            files[-1].write_bytes(chance.randbytes(size * MIB))
        with Speaker(server.url) as speaker:
            for name, size in (("slides.pdf", 3), ("genome-chr21.fa.gz", 11), ("orchestra-take-2.flac", 24)):
                complete(speaker, name, chance.randbytes(size * MIB))
            left = speaker.create(40 * MIB, Upload_Metadata=named("night-sky.fits"))
            speaker.patch(left, 0, chance.randbytes(13 * MIB))
        other = threading.Thread(target=scatter, args=(server.url, chance, ended))
        other.start()
        with Proxy(server.url, Fault(rate=0.9 * MIB)) as proxy, Windows(Path(folder)) as windows:
            window = windows.window()
            window.shape(1440, 900)
            window.open(proxy.url)
            window.drop(*files)
            time.sleep(34)
            for name, width, height, scheme in (
                ("wide", 1440, 900, "light"),
                ("dark", 1440, 900, "dark"),
                ("narrow", 390, 844, "light"),
            ):
                window.shape(width, height, scheme)
                time.sleep(1.5)
                window.picture(PICTURES / f"page-{name}.png")
                print(PICTURES / f"page-{name}.png")
        ended.set()
        other.join()
    return 0


if __name__ == "__main__":
    sys.exit(main())
