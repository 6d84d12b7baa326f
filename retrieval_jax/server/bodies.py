"""Reads the bodies of requests, as JSON or as an upload, and describes them for OpenAPI."""

from __future__ import annotations

import logging
from typing import TypeVar

import fastapi
import pydantic
from fastapi import Request
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException

from retrieval_jax import pairs
from retrieval_jax.errors import InputError, short
from retrieval_jax.index import attribute
from retrieval_jax.server import pictures
from retrieval_jax.server.messages import Complete, Conditions, Judgement, Search
from retrieval_jax.server.runs import Loaded

Message = TypeVar("Message", bound=pydantic.BaseModel)
logging.getLogger("python_multipart").setLevel(logging.ERROR)  # a malformed upload gets a sentence, and no log lines


def described(message: type[pydantic.BaseModel], upload: bool = False) -> dict:
    """Returns the OpenAPI description of a body that a route reads itself."""
    schema = message.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    content = {"application/json": {"schema": schema}}
    if upload:
        fields = {"picture": {"type": "string", "format": "binary"}}
        fields["request"] = {"type": "string", "description": "the JSON of the request, without picture"}
        content["multipart/form-data"] = {"schema": {"type": "object", "properties": fields}}
    return {"requestBody": {"required": True, "content": content}}


def describe(app: fastapi.FastAPI) -> dict:
    """Returns the OpenAPI description, with the parts of the bodies that routes read themselves."""
    if not app.openapi_schema:
        made = get_openapi(title=app.title, version=app.version, routes=app.routes)
        parts = made.setdefault("components", {}).setdefault("schemas", {})
        for message in (Search, Complete, Judgement):
            found = message.model_json_schema(ref_template="#/components/schemas/{model}")
            parts.update(found.get("$defs", {}))
        app.openapi_schema = made
    return app.openapi_schema


def parse(message: type[Message], data: bytes | str) -> Message:
    """Returns a message that JSON holds; raises InputError with the place of the first mistake."""
    try:
        return message.model_validate_json(data)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"]))
        known = ", ".join(message.model_fields)
        said = f"unknown field; known are {known}" if first["type"] == "extra_forbidden" else first["msg"]
        raise InputError(f"{short(place) + ': ' if place else ''}{short(said, 300)}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"the request cannot be read ({short(str(error))})") from None


async def check_query(request: Request) -> None:  # without async, it would wait for a thread
    """Raises InputError for a name in the query of an address that its route does not read; pages take any."""
    if not request.scope["route"].path.startswith("/v1/"):
        return  # links to the page get names such as utm_source from others
    known = [field.alias for field in request.scope["route"].dependant.query_params]
    for name in request.query_params:
        if name not in known:
            raise InputError(f"{short(name)!r} is not in the query of this address{pairs.near(name, known)}")


def check_type(request: Request, *kinds: str) -> str:
    """Returns the content type of a request; raises HTTPException for one that is not among `kinds`."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in kinds:
        raise HTTPException(415, f"the content type is {short(kind)!r}: send {' or '.join(kinds)}")
    return kind


async def pictured(request: Request, message: type[Message]) -> tuple[Message, bytes]:
    """Returns a message that may have a picture, and the bytes of that, b"" without one."""
    kind = check_type(request, "application/json", "multipart/form-data")
    if kind == "application/json":
        given = parse(message, await request.body())
        return given, pictures.of_base64(given.picture) if given.picture else b""
    try:
        async with request.form(max_files=1, max_fields=4) as form:
            unknown = [name for name in form if name not in ("picture", "request")]
            if unknown:
                raise InputError(f"{short(unknown[0])!r} is not a part of the upload: send picture and request")
            text, file = form.get("request", "{}"), form.get("picture")
            if not isinstance(text, str) or isinstance(file, str):
                raise InputError("send picture as a file, and request as JSON text")
            given = parse(message, text)
            data = b"" if file is None else await file.read()
    except HTTPException as error:  # of a malformed upload
        raise InputError(f"the upload cannot be read ({short(str(error.detail))})") from None
    if given.picture and data:
        raise InputError("the picture is given twice, as a file and in the request: send one")
    return given, data or (pictures.of_base64(given.picture) if given.picture else b"")


def is_brief(given: Search) -> bool:
    """Returns whether words and conditions are so few that reading them needs no thread of its own.

    Conditions among the words are looked up among all values, of which there may be many.
    """
    if len(given.words) > 200 or set("-:\u2212\u2013") & set(given.words):
        return False
    clauses = [*given.conditions.required, *given.conditions.preferred, *given.conditions.excluded]
    return len(clauses) + sum(len(clause.values or ()) for clause in clauses) <= 50


def conditions(version: Loaded, given: Conditions) -> attribute.Conditions:
    """Returns conditions for the index; raises InputError for fields and values that the gallery lacks."""
    if not (given.required or given.preferred or given.excluded):
        return attribute.Conditions()
    found = attribute.parse(
        {
            kind: [clause.model_dump(exclude_none=True, exclude_defaults=True) for clause in getattr(given, kind)]
            for kind in ("required", "preferred", "excluded")
        }
    )
    version.gallery.table.check(found)
    return found


def words(version: Loaded, given: Search) -> tuple[str, attribute.Conditions]:
    """Returns the words of a search without the conditions among them, and all conditions."""
    found = conditions(version, given.conditions)
    if not given.words.strip():
        return "", found
    rest, among = attribute.from_words(given.words, version.gallery.values)
    found = attribute.both(found, among)
    version.gallery.table.check(found)
    return rest, found
