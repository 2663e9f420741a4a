"""The addresses: POST /predict, GET /healthz, /report, /docs and /openapi.json; the page comes on top."""

from typing import Any

from fastapi import FastAPI, Request
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response

from customcnn import __version__
from customcnn.images.decode import converted_note
from customcnn.report.run_facts import NOT_MEDICAL
from customcnn.serve.api_docs import documentation
from customcnn.serve.limits import Refused
from customcnn.serve.middleware import PROBLEM, answer
from customcnn.serve.multipart import read_uploads
from customcnn.serve.service import Answer, Service

FIELD = "file"

NO_STORE = {"cache-control": "no-store"}


class PredictionModel(BaseModel):
    """One image's class and its probabilities by class name; the rest where the network is calibrated."""

    file: str
    label: str
    probabilities: dict[str, float]
    set: list[str] | None = None
    sure: bool | None = None
    novelty: float | None = None
    novel: bool | None = None


class PredictionsModel(BaseModel):
    """The images in the order in which they came, the warnings that belong beside them, and notes about them."""

    predictions: list[PredictionModel]
    warnings: list[str]
    notes: list[str]


class BadImageModel(BaseModel):
    """An image that could not be used, and why."""

    file: str
    error: str


class RefusalModel(BaseModel):
    """Why a request was not answered, in one line; `images` names those at fault."""

    detail: str
    images: list[BadImageModel] | None = None


class HealthModel(BaseModel):
    """That the server is there, and what it serves."""

    status: str
    model: str
    classes: list[str]
    runtime: str
    version: str


BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [FIELD],
                    "properties": {FIELD: {"type": "array", "items": {"type": "string", "format": "binary"}}},
                }
            }
        },
    }
}

REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": RefusalModel, "description": "The body is damaged."},
    408: {"model": RefusalModel, "description": "The body came too slowly."},
    413: {"model": RefusalModel, "description": "An image or the request is too large, or it has too many images."},
    415: {"model": RefusalModel, "description": "The body is not multipart/form-data."},
    422: {"model": RefusalModel, "description": "Something in it is not an image, or there is none."},
    429: {"model": RefusalModel, "description": "Too many requests."},
}


def build_app(service: Service) -> FastAPI:
    """Return the app without its page."""
    app = FastAPI(
        title=f"customcnn: {service.classifier.info.model}",
        description=NOT_MEDICAL,
        version=__version__,
        docs_url=None,  # FastAPI's own pages load their scripts from elsewhere
        redoc_url=None,
    )
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _fault)

    @app.post(
        "/predict",
        response_model=PredictionsModel,
        responses=REFUSALS,
        openapi_extra=BODY,
        summary="Give images a class",
    )
    async def predict(request: Request) -> Response:
        """Send one image or several in fields named `file`. If one of them cannot be used, none is answered."""
        return await _predict(request, service)

    @app.get("/healthz", response_model=HealthModel, summary="Whether the server is there")
    async def healthz() -> dict[str, Any]:
        """Answers as long as the server lives."""
        found = service.classifier
        return {
            "status": "ok",
            "model": found.info.model,
            "classes": found.classes,
            "runtime": found.runtime,
            "version": __version__,
        }

    @app.get("/report", response_class=HTMLResponse, summary="The report of the run")
    async def report() -> Response:
        """The page that `customcnn report` wrote."""
        path = service.classifier.run.report
        if not path.is_file():
            raise Refused(404, "This run has no report.html yet. Write it: customcnn report RUN.")
        return FileResponse(path, media_type="text/html; charset=utf-8", headers=NO_STORE)

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        return HTMLResponse(documentation(app.openapi(), service, f"http://{request.headers['host']}"))

    return app


async def _predict(request: Request, service: Service) -> Response:
    announced = request.headers.get("content-length", "")
    async with service.place(int(announced) if announced.isdecimal() else None):
        uploads = await read_uploads(request, service.limits, FIELD)
        answers = await service.predict(uploads)
    return JSONResponse(result(answers, service.warnings), headers=NO_STORE)


def result(answers: list[Answer], warnings: list[str]) -> dict[str, Any]:
    """Return what /predict answers.

    Raises:
        Refused: 422, not all of them have a prediction.
    """
    bad = [(found.name, found.error) for found in answers if found.prediction is None]
    if bad:
        more = f" And {len(bad) - 1} more." if len(bad) > 1 else ""
        raise Refused(422, bad[0][1] + more, bad)
    kinds: dict[str, int] = {}
    for found in answers:
        kinds[found.kind] = kinds.get(found.kind, 0) + 1
    note = converted_note(kinds)
    return {
        "predictions": [found.prediction.as_dict() for found in answers if found.prediction],
        "warnings": [*warnings, *(found.warning for found in answers if found.warning)],
        "notes": [note] if note else [],
    }


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return answer(error)


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"detail": str(error.detail)}, status_code=error.status_code, headers=error.headers)


async def _fault(_: Request, error: Exception) -> Response:
    return answer(Refused(500, PROBLEM))  # Starlette raises the error again, and the guard writes it down
