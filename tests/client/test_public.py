"""What `import holdfast` gives: all that is public, and nothing before it is used."""

import subprocess
import sys

import pytest

import holdfast


@pytest.mark.parametrize("name", holdfast.__all__)
def test_every_public_name_is_found(name: str) -> None:
    assert getattr(holdfast, name).__module__.startswith("holdfast") or name == "UploadSource"
    assert name in dir(holdfast)


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = holdfast.nothing


def test_what_is_not_used_is_not_imported() -> None:
    """A shell that asks for completions, or a script that wants an error, need no HTTP library."""
    said = (
        "import sys, holdfast, holdfast.cli; holdfast.UsageError; print('httpx' in sys.modules, 'rich' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_who_sends_a_file_imports_nothing_that_only_others_need() -> None:
    said = (
        "import sys; from holdfast.cli import main; main(['upload', '--help'], standalone_mode=False);"
        " print({'httpx', 'rich', 'holdfast.downloader', 'holdfast.watching', 'holdfast.ftp'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "{'httpx'}"
