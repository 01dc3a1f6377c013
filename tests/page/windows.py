"""Windows of a headless Chromium in which the page is open, and what can be seen in them.

Rule of this file: what a test knows of the page is what somebody in front of it sees: text, roles, pictures.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.interop.browser import Driver
from tests.support.waiting import eventually

HERE = Path(__file__).parent


class Windows(Driver):
    """A browser; each of its windows has a profile of its own, as if another person looked on."""

    def __init__(self, home: Path) -> None:
        super().__init__(home, HERE / "windows.cjs")
        self._open: dict[str, Window] = {}

    def window(self, name: str = "first") -> "Window":
        return self._open.setdefault(name, Window(self, name))

    def close_all(self) -> None:
        for window in list(self._open.values()):
            window.close()
        self._open.clear()

    def do(self, what: str, /, within: float = 30.0, **command: Any) -> Any:
        """Carry one command out, in `within` seconds (scaled). Raises AssertionError if it fails."""
        self._send(command)
        return self._answer(what, within)


class Window:
    """One of them."""

    def __init__(self, windows: Windows, name: str) -> None:
        self._windows = windows
        self.name = name

    def open(self, url: str) -> "Window":
        self._do("the page", open=url)
        return self

    def reload(self) -> None:
        self._do("the page after a reload", reload=True)

    def dialogs(self) -> list[str]:
        """The types of those that the browser has shown since this was last asked; each was accepted at once."""
        return list(self._do("dialogs", dialogs=True))

    def close(self) -> None:
        self._do("the end of the window", close=True)

    def drop(self, *files: Path) -> None:
        """Drag them in from outside; again, as a user would, if the browser was too busy to take it for a drop."""
        before = self.look("drops")
        for _ in range(3):
            self._do("a drop", drop=[str(file) for file in files])
            with contextlib.suppress(AssertionError):
                eventually(lambda: self.look("drops") > before, within=10)
                return
        raise AssertionError("the page has heard of no drop")

    def choose(self, *files: Path, into: str = "#files") -> None:
        self._do("a choice of files", choose=[str(file) for file in files], into=into)

    def click(self, selector: str) -> None:
        self._do(f"a click on {selector}", click=selector)

    def give(self, credential: str) -> None:
        """Paste a credential into the dialog that asks for one."""
        self.opens("#ask")
        self._do("a credential", fill=credential, into="#token")
        self.click("#ask button[value=use]")

    def download(self, selector: str, to: Path) -> str:
        """Click on it and save what comes; the name that the browser would give it."""
        return str(self._do(f"a download by {selector}", download=selector, to=str(to)))

    @property
    def violations(self) -> list[str]:
        """What the Content-Security-Policy has kept from this page since it was loaded."""
        return list(self.look("violations"))

    def tree(self, selector: str = "body") -> str:
        """What a screen reader has of it."""
        return str(self._do("the tree", tree=selector))

    def press(self, key: str) -> None:
        self._do(f"a press of {key}", press=key)

    def look(self, expression: str) -> Any:
        """What JavaScript in the page makes of it."""
        return self._do(f"a look at {expression}", look=expression)

    def shape(self, width: int, height: int, scheme: str = "light", motion: str = "no-preference") -> None:
        self._do("another shape", shape={"width": width, "height": height, "scheme": scheme, "motion": motion})

    def picture(self, path: Path, *, full: bool = False) -> None:
        self._do("a picture", picture=str(path), full=full)

    def text(self, selector: str) -> str:
        """The text of the first element that matches, empty if there is none."""
        return str(self.look(f"document.querySelector({selector!r})?.innerText ?? ''"))

    def sees(self, text: str, selector: str = "main", *, within: float = 30.0) -> None:
        """Wait until this text can be seen there."""
        self.until(lambda: text in self.text(selector), within=within, what=f"“{text}” in {selector}")

    def until(self, probe: Callable[[], bool], *, within: float = 30.0, every: float = 0.1, what: str) -> None:
        """Wait for something that can be seen. If it does not come, the error has what is seen instead."""
        try:
            eventually(probe, within=within, every=every, what=what)
        except AssertionError as error:
            error.add_note(f"window {self.name}, {self.look('drops')} drops: {self.text('body')}")
            raise

    def opens(self, dialog: str) -> None:
        """Wait until this dialog is open."""
        self.until(lambda: bool(self.look(f"document.querySelector({dialog!r}).open")), what=f"the dialog {dialog}")

    def closes(self, dialog: str) -> None:
        """Wait until this dialog is not open."""
        eventually(
            lambda: not self.look(f"document.querySelector({dialog!r}).open"), every=0.1, what=f"the end of {dialog}"
        )

    @property
    def percent(self) -> int:
        """How far the first upload on its way is; -1 if there is none."""
        return int(self.text(".percent").removesuffix(" %") or -1)

    @property
    def cells(self) -> int:
        """How far all pixels of the first map are from the colour of an empty cell: what has arrived, roughly, since
        what is only on its way is paler."""
        return int(self.look(CELLS))

    def _do(self, what: str, **command: Any) -> Any:
        return self._windows.do(f"{what} in window {self.name}", window=self.name, **command)


CELLS = """(() => {
  const canvas = document.querySelector('canvas.map')
  if (!canvas) return -1
  const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height)
  const empty = getComputedStyle(canvas).getPropertyValue('--cell').trim()
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(empty.slice(at, at + 2), 16))
  let other = 0
  for (let i = 0; i < data.length; i += 4) {
    if (data[i + 3]) other += Math.abs(data[i] - red) + Math.abs(data[i + 1] - green) + Math.abs(data[i + 2] - blue)
  }
  return other
})()"""
