"""Who may know whom: the walls of the house, read from the imports.

Rule of this file: each wall is stated once, as a table or a test; a module that breaks it is named with its
line.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROTOCOL = ROOT / "protocol" / "holdfast_protocol"
SERVER = ROOT / "server" / "holdfast_server"
CLIENT = ROOT / "client_sdk" / "holdfast"

IO_MODULES = {
    "aiohttp", "anyio", "asyncio", "h11", "httptools", "httpx", "http", "io", "multiprocessing", "os",
    "pathlib", "random", "requests", "secrets", "select", "selectors", "shutil", "signal", "socket",
    "sqlite3", "ssl", "starlette", "subprocess", "tempfile", "threading", "time", "trio", "urllib3",
    "uvicorn", "uvloop",
}  # fmt: skip
FILE_FUNCTIONS = {
    "open", "pread", "preadv", "pwrite", "pwritev", "ftruncate", "truncate", "fsync", "fdatasync",
    "rename", "replace", "unlink", "link", "posix_fallocate", "copy_file_range", "sendfile", "statvfs",
    "symlink", "rmdir", "scandir",
}  # fmt: skip

Place = tuple[str, str]
"""What stands there, and where."""


def modules(package: Path) -> Iterator[tuple[Path, ast.Module]]:
    found = sorted(package.rglob("*.py"))
    assert found, f"{package.name} holds no module"
    for path in found:
        yield path, ast.parse(path.read_text(), str(path))


def imports(package: Path) -> Iterator[tuple[str, Path, int]]:
    """`(full name, module, line)` of every import, also of those inside functions."""
    for path, tree in modules(package):
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield alias.name, path, node.lineno
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}:{node.lineno}: imports are absolute here"
                assert node.module is not None
                yield node.module, path, node.lineno


def broken(package: Path, forbidden: set[str], *, besides: tuple[str, ...] = ()) -> list[Place]:
    """Imports of a forbidden package, but for those in paths (relative to the package) that start with
    `besides`.
    """
    return [
        (name, f"{path.relative_to(ROOT)}:{line}")
        for name, path, line in imports(package)
        if name.split(".")[0] in forbidden and not str(path.relative_to(package)).startswith(besides)
    ]


def test_protocol_knows_nobody() -> None:
    """The protocol imports neither side, so that both can stand on it."""
    assert broken(PROTOCOL, {"holdfast", "holdfast_server"}) == []


def test_protocol_is_sans_io() -> None:
    """No clock, no chance, no socket, no file: all of it is an argument."""
    assert broken(PROTOCOL, IO_MODULES) == []


def test_protocol_takes_no_clock_by_another_door() -> None:
    """`datetime` is a value there; its clock is not read."""
    calls = [
        (node.func.attr, f"{path.relative_to(ROOT)}:{node.lineno}")
        for path, tree in modules(PROTOCOL)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"now", "utcnow", "today", "uuid4"}
    ]
    assert calls == []


def test_server_and_client_do_not_know_each_other() -> None:
    assert broken(SERVER, {"holdfast"}) == []
    assert broken(CLIENT, {"holdfast_server"}) == []


@pytest.mark.parametrize("package", [SERVER, CLIENT], ids=["server", "client"])
def test_both_sides_stand_on_the_protocol(package: Path) -> None:
    assert any(name.split(".")[0] == "holdfast_protocol" for name, _, _ in imports(package))


def test_one_module_of_the_client_knows_httpx() -> None:
    """And one more knows what httpx stands on: it makes the connections for downloads."""
    assert broken(CLIENT, {"httpx"}, besides=("_transport.py",)) == []
    assert broken(CLIENT, {"httpcore"}, besides=("_transport.py", "_wire.py")) == []
    assert broken(SERVER, {"httpx", "httpcore"}) == []


def test_sql_stays_in_the_catalog() -> None:
    assert broken(SERVER, {"sqlite3"}, besides=("catalog/",)) == []
    statements = [
        (text[:40], place)
        for text, place in strings(SERVER, besides=("catalog/",))
        if re.match(r"\s*(SELECT .* FROM|INSERT INTO|UPDATE .* SET|DELETE FROM|CREATE TABLE|PRAGMA) ", text, re.DOTALL)
    ]
    assert statements == []


def strings(package: Path, *, besides: tuple[str, ...] = ()) -> Iterator[Place]:
    """Every string literal that is no docstring."""
    for path, tree in modules(package):
        if str(path.relative_to(package)).startswith(besides):
            continue
        prose = {
            id(node.value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
                yield node.value, f"{path.relative_to(ROOT)}:{node.lineno}"


def wire_names() -> set[str]:
    """The names of the protocol's own fields, and its media types, as holdfast_protocol.headers spells
    them.
    """
    names = {
        node.value.value
        for node in ast.walk(ast.parse((PROTOCOL / "headers.py").read_text()))
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    }
    return {
        name
        for name in names
        if re.match(r"(Upload|Tus|Want|Repr)-|Content-Digest$|application/(vnd|offset|part)", name)
    }


@pytest.mark.parametrize("package", [SERVER, CLIENT], ids=["server", "client"])
def test_fields_are_spelled_once(package: Path) -> None:
    """A name that both ends must agree on is a constant of holdfast_protocol, in whatever case it is
    written.
    """
    names = {name.lower() for name in wire_names()}
    assert "upload-offset" in names
    assert [(text, place) for text, place in strings(package) if text.lower() in names] == []


def test_files_are_touched_in_storage_alone() -> None:
    """Where and how bytes lie on a disk is known in storage/ (and in catalog/, to the one file of the
    catalog).
    """
    allowed = ("storage/", "catalog/", "settings.py", "cli.py", "__main__.py")
    calls = []
    for path, tree in modules(SERVER):
        if str(path.relative_to(SERVER)).startswith(allowed):
            continue
        for node in ast.walk(tree):
            match node:
                case ast.Call(func=ast.Name(id="open")):
                    calls.append(("open", f"{path.relative_to(ROOT)}:{node.lineno}"))
                case ast.Call(func=ast.Attribute(value=ast.Name(id="os"), attr=name)) if name in FILE_FUNCTIONS:
                    calls.append((f"os.{name}", f"{path.relative_to(ROOT)}:{node.lineno}"))
                case _:
                    pass
    assert calls == []
    assert broken(SERVER, {"shutil", "tempfile"}, besides=allowed) == []


@pytest.mark.parametrize("package", [PROTOCOL, SERVER, CLIENT], ids=["protocol", "server", "client"])
def test_every_module_says_its_rule(package: Path) -> None:
    """The rule that a file owns stands in its docstring; a package's empty `__init__` needs none."""
    silent = [
        str(path.relative_to(ROOT)) for path, tree in modules(package) if tree.body and not ast.get_docstring(tree)
    ]
    assert silent == []


@pytest.mark.parametrize("package", [PROTOCOL, SERVER, CLIENT], ids=["protocol", "server", "client"])
def test_no_module_outgrows_its_room(package: Path) -> None:
    """Split at 600 lines."""
    long = {str(p.relative_to(ROOT)): n for p, _ in modules(package) if (n := len(p.read_text().splitlines())) > 600}
    assert long == {}
