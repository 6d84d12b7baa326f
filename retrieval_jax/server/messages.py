"""What requests and answers of the API look like. Unknown fields are refused, and OpenAPI is made of these classes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

MOST_RESULTS = 1000  # of offset + k
Id = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
Words = Annotated[str, StringConstraints(max_length=1000)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Clause(_Strict):
    """One condition: some values of a field, or a range of a number."""

    field: Id
    values: list[Id] | None = Field(None, min_length=1, max_length=1000, description="any of these")
    low: float | None = Field(None, allow_inf_nan=False, description="smallest number, included")
    high: float | None = Field(None, allow_inf_nan=False, description="largest number, included")
    unknown: bool = Field(False, description="whether a listing without the attribute counts as if it had a value")


class Conditions(_Strict):
    """What results must have, should have, and must not have."""

    required: list[Clause] = Field([], max_length=100)
    preferred: list[Clause] = Field([], max_length=20, description="relaxed from the last one where too few match")
    excluded: list[Clause] = Field([], max_length=100)


class Search(_Strict):
    """A search by a picture, words, conditions, other listings, or any mix; by nothing, it lists the gallery."""

    run: str = Field("", max_length=200, description='"" for the first run that is served')
    stage: str = Field("", max_length=200, description='stage of the run\'s search; "" for its last')
    picture: str = Field("", description="a picture file, base64; or upload it as multipart/form-data")
    box: tuple[Share, Share, Share, Share] | None = Field(
        None,
        description="ymin, xmin, ymax, xmax of the product in the picture, as shares of height and width; by default "
        "the run's own network of regions finds it, if it has one",
    )
    words: Words = Field("", description='may have conditions in them: -striped, colour:red, -"navy blue"')
    weight: float = Field(1.0, ge=0, le=10, allow_inf_nan=False, description="of the words beside a picture")
    conditions: Conditions = Conditions()
    like: list[Id] = Field([], max_length=20, description="ids of listings: more like these")
    unlike: list[Id] = Field([], max_length=20, description="ids of listings: less like these")
    k: int = Field(24, ge=1, le=200, description="results of the answer")
    offset: int = Field(0, ge=0, le=MOST_RESULTS - 1, description="results to skip, for the next page")
    predict: bool = Field(False, description="whether to predict the picture's attributes")


class Complete(_Strict):
    """An outfit to complete: from listings, from a person's own photo, or from both."""

    run: str = Field("", max_length=200, description='"" for the first run that is served')
    listings: list[Id] = Field([], max_length=20, description="ids of listings that the outfit has")
    picture: str = Field("", description="a picture file, base64; or upload it as multipart/form-data")
    box: tuple[Share, Share, Share, Share] | None = Field(
        None, description="ymin, xmin, ymax, xmax of the item in the picture, as shares of height and width"
    )
    type: str = Field("", max_length=1000, description="type of what the picture shows, such as shoes")
    slots: list[Id] = Field(min_length=1, max_length=10, description="types to fill in, in this order")
    k: int = Field(4, ge=1, le=20, description="looks")
    conditions: Conditions = Field(Conditions(), description="of every slot, required and excluded ones")
    conditions_of: dict[str, Conditions] = Field({}, max_length=10, description="further ones, by slot")
    vary: str = Field(
        "",
        max_length=1000,
        description="a field such as colour: at most half of a slot's listings have one value of it, as long as others "
        'fit; "" for none',
    )


class Value(BaseModel):
    """A value that a listing has, or is predicted to have."""

    value: str | float
    probability: float = Field(description="1 where it is known")


class Reason(BaseModel):
    """What one condition is to one result."""

    kind: Literal["required", "preferred", "excluded"]
    text: str
    state: Literal["matched", "predicted", "relaxed", "unmet", "unknown"]
    values: list[str]
    probability: float | None


class Part(BaseModel):
    """What the picture, the words or a listing gave to the score."""

    similarity: float
    weight: float
    share: float = Field(description="of the sum of the parts' absolute contributions")


class Why(BaseModel):
    """Why a result is where it is."""

    reasons: list[Reason]
    parts: dict[str, Part]
    moved: int | None = Field(None, description="places that re-ranking moved it up; negative for down")


class Result(BaseModel):
    """One listing that was found."""

    id: str
    place: int = Field(description="from 1")
    score: float | None = Field(description="cosine, BM25 score, or their fusion; null where nothing was compared")
    title: str
    attributes: dict[str, list[Value]]
    picture: str = Field(description='address of its thumbnail; "" where the listings have no pictures')
    why: Why


class Predicted(BaseModel):
    """An attribute that the network sees in the query's picture."""

    field: str
    value: str
    probability: float
    known: bool = Field(description="whether the gallery has the value, so that it can be a condition")


class Found(BaseModel):
    """The answer to a search."""

    search: str = Field(description="id of the search, for judgements")
    run: str
    stage: str
    scored_by: Literal["cosine", "bm25", "fusion", "nothing"]
    words: str = Field(description="the words that were searched for, without conditions")
    conditions: dict[str, Any]
    box: list[float] | None = Field(
        description="the part of the picture that was searched by, the run's own by default"
    )
    picture: str = Field(description='SHA-256 of the picture that was searched with, for judgements; "" without one')
    matches: int = Field(description="listings that meet what is required")
    note: str = Field(description='what was not as asked, such as relaxed conditions; "" otherwise')
    predicted: list[Predicted]
    results: list[Result]


class Listing(BaseModel):
    """One listing of the gallery."""

    id: str
    run: str
    title: str
    attributes: dict[str, list[Value]]
    picture: str


class Item(BaseModel):
    """A listing of a look."""

    slot: str = Field(description="its type, and which one where a type was asked for twice")
    listing: Listing


class Look(BaseModel):
    """One way to complete an outfit."""

    score: float = Field(description="1 less the mean distance of all pairs of the outfit")
    items: list[Item]


class Completed(BaseModel):
    """The answer to an outfit, the best look first."""

    run: str
    start: list[Listing] = Field(description="the listings that the outfit has")
    looks: list[Look]
    note: str = Field(description='slots that nothing fits; "" otherwise')


class Count(BaseModel):
    """How many of the matches have a value."""

    value: str
    listings: int


class Range(BaseModel):
    """The numbers of the matches."""

    low: float
    high: float
    listings: int


class Facets(BaseModel):
    """What else there is among the listings that meet some conditions."""

    run: str
    matches: int
    fields: dict[str, list[Count]]
    numbers: dict[str, Range]


class Served(BaseModel):
    """A run that is served."""

    name: str
    loaded: bool
    exported: bool
    listings: int | None
    stages: list[str]
    searches: list[Literal["pictures", "words", "words beside pictures"]]
    cannot: dict[Literal["pictures", "words"], str] = Field(description="what it cannot be searched by, and why")
    predicts: bool
    completes: list[str] = Field(description="types by which it completes looks; none where it did not learn outfits")
    note: str
    problem: str = Field(description='why its newest version is not served; "" otherwise')


class Verdict(BaseModel):
    """Whether a run or stage is better than another on the queries of their catalogue, as `compare` computes it."""

    run: str
    stage: str
    against: str
    against_stage: str
    score: str = Field("", description="what is compared; without it, the two cannot be, and the sentence says why")
    difference: float | None = Field(None, description="score of the run minus that of the other, in points")
    low: float | None = Field(None, description="of the 95 % interval of the difference")
    high: float | None = None
    p: float | None = None
    noise: bool | None = Field(None, description="whether the difference is within noise")
    queries: int = Field(0, description="that were compared")
    sentence: str
    explanation: str = Field("", description="the verdict of `compare`")


class Judgement(_Strict):
    """Whether a listing is a good result of a search, or a wrong one."""

    run: str = Field("", max_length=200)
    listing: Id
    verdict: Literal["up", "wrong"]
    search: str = Field(max_length=100, pattern=r"^[0-9a-f-]+$", description="id of the search")
    words: Words = Field("", description="of the search; training reads judgements of searches by words")
    picture: str = Field("", pattern=r"^([0-9a-f]{64})?$", description="hash of the picture, as the answer has it")
    like: list[Id] = Field([], max_length=20, description="ids of the listings that were searched with")
    place: int = Field(ge=1, le=MOST_RESULTS, description="of the listing, from 1")
    shown: list[Id] = Field([], max_length=200, description="ids of the results beside it, in their order")
    session: str = Field(
        "", max_length=64, pattern=r"^[0-9a-f-]*$", description="a random value for a visit, or nothing"
    )


class Recorded(BaseModel):
    """What was written to the click log."""

    written: int
    trains: bool = Field(description="whether training can read it: only searches by words alone")


class Problem(BaseModel):
    """An error as a sentence: what is wrong, what was expected, what to do."""

    error: str
