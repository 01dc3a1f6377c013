"""The application under a server that has no interim answers: all else of the draft is there."""

from pathlib import Path

import httpx
import pytest

from holdfast_server import create_app

pytestmark = pytest.mark.anyio


@pytest.mark.rule("I-INTERIM-1")
async def test_the_draft_without_interim_answers(tmp_path: Path) -> None:
    app = create_app(tmp_path)
    version = {"Upload-Draft-Interop-Version": "9"}
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
    ):
        created = await client.post("/files", headers={**version, "Upload-Complete": "?0", "Upload-Length": "10"})
        assert (created.status_code, created.headers["upload-complete"]) == (201, "?0")
        url = created.headers["location"]
        append = {**version, "Content-Type": "application/partial-upload"}
        first = await client.patch(
            url, headers={**append, "Upload-Offset": "0", "Upload-Complete": "?0"}, content=b"01234"
        )
        assert (first.status_code, first.headers["upload-offset"]) == (204, "5")
        asked = await client.head(url, headers=version)
        assert (asked.status_code, asked.headers["upload-offset"]) == (204, "5")
        last = await client.patch(
            url, headers={**append, "Upload-Offset": "5", "Upload-Complete": "?1"}, content=b"56789"
        )
        assert (last.status_code, last.headers["upload-complete"]) == (204, "?1")
        assert (await client.get(url)).content == b"0123456789"
