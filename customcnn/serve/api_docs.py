"""The page at /docs: what the web API answers, from its OpenAPI description, without a script from anywhere."""

from collections.abc import Mapping
from typing import Any

from customcnn.html.page import Html, Section, escape, page, table
from customcnn.report.run_facts import NOT_MEDICAL
from customcnn.serve.limits import MB
from customcnn.serve.service import Service

CURL = """<pre>curl -F file=@cell.bmp {address}/predict
curl -F file=@one.png -F file=@two.png {address}/predict</pre>"""

FORM = """<form action="/predict" method="post" enctype="multipart/form-data">
<p><label>Images <input type="file" name="file" accept="image/*" multiple required></label>
<button type="submit">Send</button></p></form>"""


def documentation(description: Mapping[str, Any], service: Service, address: str) -> str:
    """Return the page.

    Args:
        description: the app's, OpenAPI 3.
        service: what answers.
        address: of the server, as the reader called it: "http://127.0.0.1:7860".
    """
    schemas = description.get("components", {}).get("schemas", {})
    sections = [
        Section("Try it", [Html(CURL.format(address=escape(address))), Html(FORM), *_limits(service)]),
        Section("Addresses", _addresses(description["paths"])),
        Section("What comes back", [block for name in sorted(schemas) for block in _schema(name, schemas[name])]),
    ]
    lead = [
        Html(
            '<p>For programs: <a href="/openapi.json">openapi.json</a>, OpenAPI 3. '
            'For people: <a href="/">the page</a>, <a href="/report">the report of the run</a>.</p>'
        )
    ]
    return page(str(description["info"]["title"]), sections, service.warnings, lead=lead, footer=NOT_MEDICAL)


def _limits(service: Service) -> list[str]:
    limits = service.limits
    rate = f" {limits.rate:,} requests a minute and client." if limits.rate else ""
    return [
        f"An image has at most {limits.max_size / MB:g} MB; a request has at most {limits.max_files} images and "
        f"{limits.max_request / MB:g} MB.{rate} No image is kept."
    ]


def _addresses(paths: Mapping[str, Any]) -> list[str]:
    blocks: list[str] = []
    for path, methods in paths.items():
        for method, about in methods.items():
            rows = [(code, found.get("description", "")) for code, found in about["responses"].items()]
            blocks += [
                Html(f"<h3><code>{method.upper()} {escape(path)}</code></h3>"),
                f"{about.get('summary', '')}. {about.get('description', '')}",
                table(("status", "when"), rows),
            ]
    return blocks


def _schema(name: str, schema: Mapping[str, Any]) -> list[str]:
    required = set(schema.get("required", ()))
    rows = [(key, _kind(value), "" if key in required else "not always") for key, value in schema["properties"].items()]
    return [
        Html(f"<h3>{escape(name.removesuffix('Model'))}</h3>"),
        schema.get("description", ""),
        table(("key", "type", ""), rows),
    ]


def _kind(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_kind(one) for one in schema["anyOf"] if one.get("type") != "null")
    if "$ref" in schema:
        return schema["$ref"].rpartition("/")[2].removesuffix("Model")
    if schema.get("type") == "array":
        return f"list of {_kind(schema['items'])}"
    if "additionalProperties" in schema:
        return f"{_kind(schema['additionalProperties'])} by name"
    return str(schema.get("type", "anything"))
