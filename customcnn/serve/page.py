"""The page: drop images, see what the network says of them. Made with Gradio, which is told to keep nothing."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from fastapi import FastAPI, Request
from gradio.state_holder import SessionState, StateHolder
from gradio.utils import get_upload_folder
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from customcnn.html.page import data_uri, escape
from customcnn.report.run_facts import NOT_MEDICAL
from customcnn.serve.answer_queue import put_in_order
from customcnn.serve.examples import example_uploads, thumbnail
from customcnn.serve.limits import MB, Refused
from customcnn.serve.middleware import PROBLEM, fault
from customcnn.serve.multipart import Upload, read_uploads
from customcnn.serve.page_style import STYLE
from customcnn.serve.result_cards import heading, notice, results
from customcnn.serve.service import LARGE_AT_ONCE, Service
from customcnn.serve.upload_store import SECONDS, Store

EXPLAINED = 24
"""Grad-CAM is drawn for so many images of a drop: it takes far longer than the answer."""

AT_ONCE = 4  # Grad-CAMs between two updates of the page
VISITORS = 4  # drops that are answered at the same time
QUEUE = 64  # drops that wait

THUMBNAIL = 160  # pixels
EMPTY = "No image yet."


def add_page(app: FastAPI, service: Service, examples: Path | None, log: Callable[[str], object]) -> None:
    """Put the page at / of an app.

    Args:
        app: has its other addresses already.
        service: what answers.
        examples: a folder of example images; None for drawn cells where the network knows such.
        log: receives the faults of our own, each in one line.
    """
    store = Store(Path(get_upload_folder()), LARGE_AT_ONCE * service.limits.max_request)
    _add_uploads(app, service, store)
    blocks = _blocks(service, store, example_uploads(service.classifier.info, examples), log)
    gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        pwa=False,
        show_error=False,
        max_file_size=service.limits.max_size,
        theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        css=STYLE,
    )
    gradio_app = app.routes[-1].app  # type: ignore[attr-defined]
    gradio_app.state_holder = NoMemory()
    gradio_app.state_holder.set_blocks(blocks)


class NoMemory(StateHolder):
    """Keeps nothing of a visit: Gradio would keep the last results of ten thousand visitors, pictures included."""

    def __getitem__(self, session_id: str) -> SessionState:
        """Return a state as a new visitor has it; the page needs no other."""
        return SessionState(self.blocks)


def _add_uploads(app: FastAPI, service: Service, store: Store) -> None:
    """Take uploads in Gradio's place, which would write them to files."""
    uploading: set[str] = set()

    async def upload(request: Request, upload_id: str = "") -> Response:
        announced = request.headers.get("content-length", "")
        uploading.add(upload_id)
        try:
            async with service.place(int(announced) if announced.isdecimal() else None):
                names = store.put(await read_uploads(request, service.limits, "files"))
        except Refused as refused:
            return PlainTextResponse(refused.message, status_code=refused.status)
        finally:
            uploading.discard(upload_id)
        asyncio.get_running_loop().call_later(SECONDS + 1, store.forget_old)
        return JSONResponse(names)

    async def progress(upload_id: str = "") -> Response:
        async def until_done() -> AsyncIterator[str]:
            while upload_id in uploading:
                await asyncio.sleep(0.05)
            yield 'data: {"msg": "done"}\n\n'

        return StreamingResponse(until_done(), media_type="text/event-stream")

    app.add_api_route("/gradio_api/upload", upload, methods=["POST"], include_in_schema=False)
    app.add_api_route("/gradio_api/upload_progress", progress, methods=["GET"], include_in_schema=False)


def _blocks(service: Service, store: Store, examples: list[Upload], log: Callable[[str], object]) -> gr.Blocks:
    info, run = service.classifier.info, service.classifier.run
    limits = service.limits

    def told(uploads: list[Upload], visit: gr.Request) -> AsyncIterator[str]:
        return _told(answers(service, uploads, lambda: mailboxes.is_read(visit.session_hash or "")), log)

    async def dropped(files: Any, visit: gr.Request) -> AsyncIterator[tuple[str, None]]:
        async for found in told(store.take(_names(files)), visit):
            yield found, None  # the second empties the field: the next images can be dropped

    def example(upload: Upload) -> Callable[[gr.Request], AsyncIterator[str]]:
        async def clicked(visit: gr.Request) -> AsyncIterator[str]:
            async for found in told([upload], visit):
                yield found

        return clicked

    listening: dict[str, Any] = {"concurrency_limit": VISITORS, "api_visibility": "private"}
    listening |= {"queue": True, "show_progress": "minimal"}
    with gr.Blocks(title=f"customcnn: {info.model}", analytics_enabled=False) as blocks:
        _html(heading(info, run.path.resolve().name, service.warnings, run.report.is_file()))
        drop = gr.File(
            label=f"Images of single cells: up to {limits.max_files}, {limits.max_size / MB:g} MB each",
            file_count="multiple",
            file_types=["image"],
            height=170,
            elem_id="drop",
        )
        _keep_off_files(drop)
        buttons = _examples(examples)
        found = _html(str(notice(EMPTY)), elem_id="results")
        _html(f'<footer class="cc-foot">{escape(NOT_MEDICAL)} No image is kept.</footer>')
        drop.upload(dropped, inputs=drop, outputs=[found, drop], preprocess=False, **listening)
        for upload, button in zip(examples, buttons, strict=True):
            button.click(example(upload), outputs=found, **listening)
    blocks.queue(max_size=QUEUE, api_open=False)
    mailboxes = put_in_order(blocks)
    return blocks


def _keep_off_files(drop: gr.File) -> None:
    """Let Gradio pass on what stands in a request as a name only, never open, copy or fetch it."""

    async def as_it_is(name: Any) -> Any:
        return name

    setattr(drop, "async_move_resource_to_block_cache", as_it_is)  # noqa: B010


def _examples(examples: Sequence[Upload]) -> list[gr.Button]:
    if not examples:
        return []
    buttons = []
    _html('<p class="cc-examples-title">Or try an example</p>')
    with gr.Row(elem_id="examples"):
        for number, upload in enumerate(examples, start=1):
            with gr.Column(min_width=80):
                picture = data_uri(thumbnail(upload.data, THUMBNAIL), "jpeg")
                _html(f'<img src="{picture}" alt="{escape(upload.name)}">')
                buttons.append(gr.Button(f"Example {number}", size="sm"))
    return buttons


def _html(content: str, **options: Any) -> gr.HTML:
    return gr.HTML(content, apply_default_css=False, js_on_load=None, **options)


def _names(files: Any) -> list[str]:
    """Return the names of uploaded files in whatever a client sends as such."""
    found = files if isinstance(files, list) else []
    return [one["path"] for one in found if isinstance(one, dict) and isinstance(one.get("path"), str)]


async def _told(parts: AsyncIterator[str], log: Callable[[str], object]) -> AsyncIterator[str]:
    """Pass results on; of a fault of our own Gradio would print the traceback."""
    try:
        async for part in parts:
            yield part
    except Exception as error:
        log(fault(error, "the page"))
        yield str(notice(PROBLEM))


async def answers(service: Service, uploads: list[Upload], reads: Callable[[], bool]) -> AsyncIterator[str]:
    """Yield the results of images as markup: at once without Grad-CAM, then with more and more of it.

    Args:
        service: what answers.
        uploads: the images.
        reads: tells whether the visit has fetched what came before; else there is nothing between first and last.
    """
    try:
        found = await service.predict(uploads, shown=True)
    except Refused as refused:
        yield str(notice(refused.message))
        return
    novelty = service.classifier.judge.novelty
    limit = novelty.limit if novelty else None
    maps: list[np.ndarray | None] = []
    expected = min(len(found), EXPLAINED)
    yield results(found, maps, expected, limit)
    while len(maps) < expected:
        some = found[len(maps) : len(maps) + AT_ONCE]
        maps += await asyncio.gather(*(service.explain(answer) for answer in some[: expected - len(maps)]))
        if len(maps) == expected or reads():
            yield results(found, maps, expected, limit)
