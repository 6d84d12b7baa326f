"""The service: routes under /v1, the search page at /, health and metrics.

Bodies are read and checked here rather than by the framework, so that a picture can come as JSON or as an upload, and
every problem is one sentence of the same shape, {"error": "..."}.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import importlib.resources
import json
import uuid
from collections.abc import Callable
from typing import Annotated, Literal

import fastapi
import numpy as np
import pydantic_core
from fastapi import Query as InQuery
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from retrieval_jax import __version__, arguments, looks
from retrieval_jax.data.pictures import colour
from retrieval_jax.errors import InputError, RunFailed, short
from retrieval_jax.postprocess import new_queries
from retrieval_jax.server import answers, bodies, judgements, pictures, runs, searching, verdicts
from retrieval_jax.server.batching import Batcher, Busy
from retrieval_jax.server.guard import Guard, Metrics, TooLarge, TooMany, TooSlow, where
from retrieval_jax.server.messages import (
    MOST_RESULTS,
    Complete,
    Completed,
    Conditions,
    Facets,
    Found,
    Judgement,
    Listing,
    Problem,
    Recorded,
    Search,
    Served,
    Verdict,
)
from retrieval_jax.server.runs import Loaded, Run, Runs

FILES = {
    "search.js": "text/javascript",
    "seen.js": "text/javascript",
    "said.js": "text/javascript",
    "looks.js": "text/javascript",
    "search.css": "text/css",
    "style.css": "text/css",
}
PROBLEMS = {status: {"model": Problem} for status in (400, 401, 404, 408, 413, 415, 422, 500, 503)}
RunName = Annotated[str, InQuery(max_length=200, description='"" for the first run')]
StageName = Annotated[str, InQuery(max_length=200, description='"" for the last of the run')]


def make(
    served: Runs, *, token: str = "", hosts: tuple[str, ...] = (), log: Callable[[dict], None] = lambda _: None
) -> Guard:
    """Makes the service.

    Args:
      served: what it serves.
      token: that requests must have; "" for none.
      hosts: see `Guard`.
      log: called with a dict per event.

    Returns:
      The ASGI application.
    """
    metrics, thumbnails, compared = Metrics(), pictures.Thumbnails(), verdicts.Verdicts(log)
    comparing = asyncio.Lock()
    embedder = Batcher(runs.embed, runs.SIZES[-1], "embed", lambda n, _: metrics.batches.labels("embed").observe(n))
    completer = Batcher(lambda _, some: [one() for one in some], 1, "looks")  # which takes a core for as long
    searcher = Batcher(searching.run, 32, "search", lambda n, _: metrics.batches.labels("search").observe(n))
    app = fastapi.FastAPI(
        title="retrieval_jax",
        version=__version__,
        openapi_url="/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        dependencies=[fastapi.Depends(bodies.check_query)],
    )
    app.openapi = functools.partial(bodies.describe, app)

    def problem(status: int, sentence: str, headers: dict | None = None) -> JSONResponse:
        return JSONResponse({"error": sentence}, status, headers)

    closing = {"connection": "close"}  # the rest of the request is not read
    app.add_exception_handler(InputError, lambda _, error: problem(422, str(error)))
    app.add_exception_handler(Busy, lambda _, error: problem(503, str(error)))
    app.add_exception_handler(RunFailed, lambda _, error: problem(503, str(error)))
    app.add_exception_handler(HTTPException, lambda _, error: problem(error.status_code, str(error.detail)))
    app.add_exception_handler(TooLarge, lambda _, error: problem(413, str(error), closing))
    app.add_exception_handler(TooSlow, lambda _, error: problem(408, str(error), closing))
    app.add_exception_handler(TooMany, lambda _, error: problem(503, str(error), closing))

    def failed(_, error: Exception) -> JSONResponse:
        log({"event": "error", "kind": type(error).__name__, "where": where(error)})
        return problem(500, "the service failed on this request; its log has the kind of error")

    app.add_exception_handler(Exception, failed)

    def invalid(_, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return problem(422, f"{'.'.join(map(str, first['loc'][1:]))}: {short(str(first['msg']), 300)}")

    app.add_exception_handler(RequestValidationError, invalid)

    async def loaded(name: str) -> tuple[Run, Loaded]:
        try:
            run = served.get(name)
        except InputError as error:
            raise HTTPException(404, str(error)) from None
        try:
            return run, run.loaded or await run_in_threadpool(run.get)
        except (InputError, RunFailed) as error:  # whose sentence may name folders of this machine
            log({"event": "load failed", "run": run.name, "problem": str(error)})
            raise HTTPException(
                503, f"the run {run.name!r} cannot be loaded: the log of the service says why"
            ) from None

    def row(name: str, version: Loaded, listing: str) -> int:
        if listing not in version.gallery.row_of:
            raise HTTPException(404, f"the gallery of {name!r} has no listing {short(listing)!r}")
        return version.gallery.row(listing)

    async def embed(version: Loaded, function: str, one):
        return await asyncio.wrap_future(embedder.submit((version.networks, function), one))

    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> dict:
        return {"status": "ok"}

    @app.get("/metrics", include_in_schema=False)
    async def metrics_text() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(_file("search.html"))

    @app.get("/static/{name}", include_in_schema=False)
    async def static(name: str) -> Response:
        if name not in FILES:
            raise HTTPException(404, "there is no such file")
        return Response(_file(name), media_type=FILES[name], headers={"cache-control": "no-cache"})

    @app.get("/v1/runs", responses=PROBLEMS)
    async def list_runs() -> list[Served]:
        """Lists the runs that are served, and what each can be searched by."""
        return [answers.served(run) for run in served]

    @app.get("/v1/facets", responses=PROBLEMS)
    async def facets(
        run: RunName = "",
        conditions: Annotated[str, InQuery(max_length=20_000, description="as JSON; none for all listings")] = "",
        top: Annotated[int, InQuery(ge=1, le=1000, description="values per field")] = 20,
    ) -> Facets:
        """Counts the values among the listings that meet conditions; each field without its own required condition."""
        one, version = await loaded(run)
        given = bodies.parse(Conditions, conditions) if conditions else Conditions()
        return await run_in_threadpool(answers.facets, one.name, version, bodies.conditions(version, given), top)

    @app.get("/v1/listings/{listing:path}", responses=PROBLEMS)
    async def get_listing(listing: str, run: RunName = "") -> Listing:
        """Returns one listing."""
        one, version = await loaded(run)
        return answers.listing(one.name, version, row(one.name, version, listing))

    @app.get("/v1/pictures/{listing:path}", responses=PROBLEMS, response_class=Response)
    async def get_picture(
        request: Request, listing: str, run: RunName = "", size: Literal["96", "256", "640"] = "256"
    ) -> Response:
        """Returns the thumbnail of a listing, a JPEG."""
        one, version = await loaded(run)
        found = int(version.gallery.rows[row(one.name, version, listing)])
        try:
            data, tag = await run_in_threadpool(thumbnails.get, version.gallery.split, found, int(size))
        except InputError:  # whose sentence names a path of this machine
            raise HTTPException(404, "the picture of this listing is missing or damaged") from None
        headers = {"cache-control": "private, max-age=3600", "etag": tag}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(data, media_type="image/jpeg", headers=headers)

    @app.post(
        "/v1/search", response_model=Found, responses=PROBLEMS, openapi_extra=bodies.described(Search, upload=True)
    )
    async def search(request: Request) -> Response:
        """Searches by a picture, words, conditions, other listings, or any mix of them."""
        given, data = await bodies.pictured(request, Search)
        if given.offset + given.k > MOST_RESULTS:
            raise InputError(f"offset + k is {given.offset + given.k}: at most {MOST_RESULTS} results can be listed")
        one, version = await loaded(given.run)
        gallery, made = version.gallery, version.networks
        stage = new_queries.named(gallery.stages, given.stage)
        read = functools.partial(bodies.words, version, given)
        words, conditions = read() if bodies.is_brief(given) else await run_in_threadpool(read)
        raw, predicted, box = {}, [], given.box
        if data:
            if made.pictures is None:
                raise InputError(f"the run {one.name!r} is not searched by pictures: {made.without_pictures}")
            picture = await run_in_threadpool(pictures.decoded, data, given.box)
            if box is None and made.boxes is not None:
                found = np.asarray(await embed(version, "boxes", picture), float)
                if np.isfinite(found).all():
                    box, picture = tuple(found.tolist()), np.ascontiguousarray(colour.crop(picture, found))
            if given.predict and made.attributes is not None:
                predicted = answers.predicted(gallery, await embed(version, "attributes", picture))
            if words and made.edited is not None:
                raw["edited"] = await embed(version, "edited", (picture, words))
            else:
                raw["picture"] = await embed(version, "pictures", picture)
        elif given.box is not None:
            raise InputError("box is given without a picture: send one, or remove it")
        by_network = "edited" in raw
        if words and made.words is not None and not by_network:
            raw["words"], by_network = await embed(version, "words", words), True
        parts = searching.of_networks(stage, raw, given.weight) if raw else []
        if given.unlike and not raw and not given.like:
            raise InputError("unlike alone says nothing about what is wanted: add a picture, words or like")
        query = searching.Query(
            conditions, given.k, given.offset, tuple(parts), "" if by_network else words, given.weight,
            tuple(given.like), tuple(given.unlike),
        )  # fmt: skip
        answer = await asyncio.wrap_future(searcher.submit((gallery, stage), query))
        found = {
            "search": str(uuid.uuid4()),
            "run": one.name,
            "stage": stage.name,
            "scored_by": answer.scored_by,
            "words": words,
            "conditions": conditions.to_json(),
            "box": None if box is None else list(box),
            "picture": hashlib.sha256(data).hexdigest() if data else "",
            "matches": answer.matches,
            "note": answer.note,
            "predicted": predicted,
            "results": answers.results(one.name, version, answer.hits),
        }
        return Response(pydantic_core.to_json(found), media_type="application/json")  # a test checks that it is `Found`

    @app.post("/v1/looks", responses=PROBLEMS, openapi_extra=bodies.described(Complete, upload=True))
    async def complete(request: Request) -> Completed:
        """Completes an outfit with listings of other types that go with it, of a run that learned outfits."""
        given, data = await bodies.pictured(request, Complete)
        one, version = await loaded(given.run)
        made, photos = version.networks, None
        if made.items is None:
            raise InputError(f"the run {one.name!r} completes no looks: serve a run of the task 'outfit'")
        if data:
            kind = arguments.choice(given.type, "type", "complete", looks.types_of(made.learned))
            picture = await run_in_threadpool(pictures.decoded, data, given.box)
            photos = (await embed(version, "items", (picture, kind)))[None]
        elif given.type or given.box is not None:
            raise InputError("type and box are about a picture: send one, or remove them")

        def work() -> Completed:
            conditions = bodies.conditions(version, given.conditions)
            of_slot = {slot: bodies.conditions(version, own) for slot, own in given.conditions_of.items()}
            found = version.looks(given.vary).complete(
                given.listings, given.slots, given.k, photos=photos, conditions=conditions, conditions_of=of_slot
            )
            return answers.completed(one.name, version, given, found)

        return await asyncio.wrap_future(completer.submit("", work))

    @app.get("/v1/verdict", responses=PROBLEMS)
    async def verdict(
        run: RunName = "", stage: StageName = "", against: RunName = "", against_stage: StageName = ""
    ) -> Verdict:
        """Compares two runs or stages on the queries of their catalogue: which is better, or that is noise."""
        asked = []
        for name, wanted in ((run, stage), (against, against_stage)):
            one, version = await loaded(name)
            asked += [one, new_queries.named(version.gallery.stages, wanted).name]
        async with comparing:  # or waiting requests would hold the threads that searches need
            return await run_in_threadpool(compared.get, *asked)

    @app.post("/v1/judgements", responses=PROBLEMS, openapi_extra=bodies.described(Judgement))
    async def judge(request: Request) -> Recorded:
        """Records whether a listing is a good result, in the click log of the run."""
        bodies.check_type(request, "application/json")
        given = bodies.parse(Judgement, await request.body())
        one, version = await loaded(given.run)
        for listing in (given.listing, *given.shown, *given.like):
            if listing not in version.gallery.row_of:
                raise InputError(f"the gallery has no listing {short(listing)!r}: give ids of results")
        try:
            written = await run_in_threadpool(judgements.append, one.folder, given)
        except (InputError, RunFailed) as error:  # whose sentence names the folder
            log({"event": "judgement failed", "run": one.name, "problem": str(error)})
            raise HTTPException(503, "the judgement cannot be recorded: the log of the service says why") from None
        return Recorded(written=written, trains=judgements.by_words(given))

    return Guard(app, metrics, log, token, hosts)


@functools.cache
def _file(name: str) -> str:
    return (importlib.resources.files("retrieval_jax") / "pages" / name).read_text(encoding="utf-8")


def log_line(event: dict) -> None:
    """Prints an event as one line of JSON."""
    print(json.dumps(event, ensure_ascii=True), flush=True)
