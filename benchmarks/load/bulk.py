"""Large files: streams of tus or PUT, parallel chunks, parts that are put together, and downloads.

Rule of this file: the clock runs from the first request to the last answer. The source is opened, and digests are
computed, before.
"""

import base64
import mmap
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

import xxhash

from benchmarks.load.wire import Connection, RefusedError, Segment

CHUNK_TYPE = "application/vnd.holdfast.chunk"


def together(tasks: Sequence[Callable[[], None]]) -> float:
    """Run each in a thread of its own; seconds until the last one has ended. Raises what the first of them raised."""
    errors: list[BaseException] = []

    def guarded(task: Callable[[], None]) -> None:
        try:
            task()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(task,)) for task in tasks]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    if errors:
        raise errors[0]
    return seconds


def streams(
    port: int,
    collection: str,
    source: str,
    size: int,
    count: int,
    piece: int,
    fields: list[str],
    common: Sequence[str] = (),
) -> dict[str, object]:
    """`size` bytes in all as `count` tus uploads at once, each in one PATCH or in PATCHes of `piece` bytes."""
    file = os.open(source, os.O_RDONLY)
    length = size // count
    made: list[str] = [""] * count

    def one(index: int) -> None:
        with Connection(port, common) as connection:
            created = connection.tus("POST", collection, f"Upload-Length: {length}", *fields).expect(201)
            made[index] = created.location
            _patches(connection, made[index], Segment(file, index * length, length), piece or length)

    return {"seconds": together([partial(one, index) for index in range(count)]), "locations": made}


def _patches(connection: Connection, target: str, part: Segment, piece: int) -> None:
    for offset in range(0, part.length, piece):
        length = min(piece, part.length - offset)
        connection.patch(target, offset, Segment(part.file, part.offset + offset, length))


def puts(port: int, collection: str, source: str, size: int, count: int) -> float:
    """`size` bytes in all as `count` PUTs at once."""
    file = os.open(source, os.O_RDONLY)
    length = size // count

    def one(index: int) -> None:
        with Connection(port) as connection:
            body = Segment(file, index * length, length)
            connection.request("PUT", f"{collection}{index}", body=body).expect(201, 204)

    return together([partial(one, index) for index in range(count)])


def chunks(
    port: int, collection: str, source: str, size: int, connections: int, piece: int, fields: list[str]
) -> dict[str, object]:
    """One upload in chunks of `piece` bytes, each with its digest, over so many connections, and its completion.

    `prepared` is what the digests have cost in seconds of CPU.
    """
    file = os.open(source, os.O_RDONLY)
    waiting: queue.SimpleQueue[tuple[Segment, str]] = queue.SimpleQueue()
    before = time.process_time()
    with mmap.mmap(file, size, prot=mmap.PROT_READ) as view:
        for offset in range(0, size, piece):
            length = min(piece, size - offset)
            digest = xxhash.xxh3_128(view[offset : offset + length]).digest()
            waiting.put((Segment(file, offset, length), base64.b64encode(digest).decode()))
    prepared = time.process_time() - before
    began = time.perf_counter()
    with Connection(port) as first:
        made = first.tus("POST", collection, f"Upload-Length: {size}", "Upload-Parallel: ?1", *fields).expect(201)

        def one() -> None:
            with Connection(port) as connection:
                while True:
                    try:
                        body, digest = waiting.get_nowait()
                    except queue.Empty:
                        return
                    told = (
                        f"Content-Type: {CHUNK_TYPE}",
                        f"Upload-Offset: {body.offset}",
                        f"Content-Digest: xxh3-128=:{digest}:",
                    )
                    connection.request("PATCH", made.location, *told, body=body).expect(204)

        together([one] * connections)
        end = first.request("PATCH", made.location, f"Content-Type: {CHUNK_TYPE}", "Upload-Complete: ?1").expect(204)
        if end.field("upload-complete") != "?1":
            raise RefusedError(f"it is not complete: {end.head}")
    return {"seconds": time.perf_counter() - began, "prepared": prepared}


def partials(port: int, collection: str, source: str, size: int, count: int, piece: int) -> dict[str, object]:
    """`size` bytes as `count` partial uploads at once, each in PATCHes of `piece` bytes; `locations` are theirs."""
    file = os.open(source, os.O_RDONLY)
    length = -(-size // count)
    made: list[str] = [""] * count

    def one(index: int) -> None:
        mine = Segment(file, index * length, min(length, size - index * length))
        with Connection(port) as connection:
            fields = (f"Upload-Length: {mine.length}", "Upload-Concat: partial")
            made[index] = connection.tus("POST", collection, *fields).expect(201).location
            _patches(connection, made[index], mine, piece)

    return {"seconds": together([partial(one, index) for index in range(count)]), "locations": made}


def final(port: int, collection: str, parts: list[str], size: int, fields: list[str]) -> dict[str, object]:
    """Have the final of these parts put together; the clock stops when HEAD shows all of its `size` bytes."""
    began = time.perf_counter()
    with Connection(port) as connection:
        listed = f"Upload-Concat: final;{' '.join(parts)}"
        made = connection.tus("POST", collection, listed, *fields).expect(201)
        while True:
            head = connection.tus("HEAD", made.location).expect(200)
            state = head.field("upload-state")
            # rustus tells no offset of a final
            if head.field("upload-offset") in (str(size), None) and state in (None, "complete"):
                return {"seconds": time.perf_counter() - began, "location": made.location}
            if state == "failed":
                raise RefusedError(f"the final has failed: {head.head}")
            time.sleep(0.005)


def parts(port: int, collection: str, source: str, size: int, connections: int, piece: int, fields: list[str]) -> float:
    """As many partial uploads as connections, and the final of them; the whole time."""
    began = time.perf_counter()
    made = partials(port, collection, source, size, connections, piece)["locations"]
    assert isinstance(made, list)
    final(port, collection, made, size, fields)
    return time.perf_counter() - began


def reads(port: int, target: str, size: int, connections: int) -> float:
    """A file of `size` bytes, whole over one connection or in as many ranges as connections."""
    length = -(-size // connections)

    def one(index: int) -> None:
        start = index * length
        stop = min(size, start + length)
        with Connection(port) as connection:
            fields = () if connections == 1 else (f"Range: bytes={start}-{stop - 1}",)
            if (found := connection.discard(target, *fields)) != stop - start:
                raise RefusedError(f"{found} bytes came, not {stop - start}")

    return together([partial(one, index) for index in range(connections)])
