"""Requests generated from the OpenAPI description, valid and not: each gets an answer that the description allows."""

import hypothesis
import pytest
import schemathesis
from schemathesis import checks
from schemathesis.generation import GenerationMode

OPERATIONS = (
    "GET /v1/runs", "GET /v1/facets", "GET /v1/listings/{listing}", "GET /v1/pictures/{listing}", "POST /v1/search",
    "POST /v1/looks", "GET /v1/verdict", "POST /v1/judgements",
)  # fmt: skip
CHECKS = [
    checks.not_a_server_error, checks.status_code_conformance, checks.content_type_conformance,
    checks.response_schema_conformance,
]  # fmt: skip


@pytest.fixture(scope="module")
def operations(client):
    """{method and path: operation} of the description."""
    schema = schemathesis.openapi.from_asgi("/v1/openapi.json", client.app)
    return {found.ok().label: found.ok() for found in schema.get_all_operations()}


def test_every_route_is_tried(operations):
    assert set(operations) == set(OPERATIONS)


@pytest.mark.parametrize("count", [6, pytest.param(60, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", OPERATIONS)
def test_generated_requests_get_answers_that_are_described(operations, finished, name, count):
    """In all 15 times `count` requests."""
    modes = (
        list(GenerationMode) if name != OPERATIONS[0] else [GenerationMode.POSITIVE]
    )  # which has nothing to get wrong
    for mode in modes:

        @hypothesis.settings(
            max_examples=count, deadline=None, database=None, derandomize=True, phases=[hypothesis.Phase.generate],
            suppress_health_check=list(hypothesis.HealthCheck),
        )  # fmt: skip
        @hypothesis.given(case=operations[name].as_strategy(mode))
        def run(case):
            answer = case.call()
            case.validate_response(answer, checks=CHECKS)
            text = answer.content.decode("utf-8", "replace")
            assert "Traceback" not in text and "root:" not in text and str(finished.parent) not in text

        run()
