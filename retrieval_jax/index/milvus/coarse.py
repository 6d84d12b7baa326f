"""The coarse look of the Milvus index: sign codes in a field beside the vectors, searched first.

Milvus finds the codes of smallest Hamming distance, then, among those rows alone, the vectors of highest cosine. Codes,
candidates and ties are those of index.binary, so both find the same on the same codes.

milvus-lite has had no binary vectors since its version 3. There a code is a vector of +1 and -1: the inner product of
two is bits - 2 x their Hamming distance, exact in float32.

Source: coarse Hamming filter, then exact re-ranking, as in Zhang et al., "Visual Search at Alibaba", KDD 2018
  (arXiv 2102.04674).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from retrieval_jax import arguments
from retrieval_jax.errors import InputError
from retrieval_jax.index.binary import codes
from retrieval_jax.index.milvus.connection import HITS, MESSAGE_BYTES, MOST_HITS, QUERIES

FIELD = "code"
SERVERS = ("BIN_FLAT", "BIN_IVF_FLAT")  # kinds of index of a binary field
WHERE = "index milvus: coarse"

# Returns the hits of queries: (queries, field, limit, filter, search parameters) -> one list of hits per query.
Ask = Callable[[Sequence, str, int, str, dict], list]


class Coarse:
    """The codes of a gallery, and the search by them.

    Args:
      gallery: [G, D] array, memory-mapped array or Embeddings.
      local: whether the codes are stored as floats, as milvus-lite needs it.
      candidates: rows of smallest Hamming distance among which the vectors are compared; more give higher recall.
      bits: see `codes.fit`.
      method: see `codes.fit`.
      rounds: see `codes.fit`.
      seed: see `codes.fit`.
      coder: file that `codes.Coder.save` wrote, instead of a fit; programs on other machines than the one that fitted
        it need it, since the last digits of a fit depend on the machine.
      index_type: Milvus's kind of index of the codes: BIN_FLAT is exact, BIN_IVF_FLAT (servers only) is not.
      index_params: its build parameters, such as {"nlist": 4096}.
      search_params: its search parameters, such as {"nprobe": 64}.

    Raises:
      InputError: settings out of range, or a coder of vectors of another dimension.
    """

    def __init__(
        self,
        gallery,
        local: bool,
        *,
        candidates: int = 200,
        bits: int | None = None,
        method: str = "itq",
        rounds: int = 10,
        seed: int = 0,
        coder: str = "",
        index_type: str = "BIN_FLAT",
        index_params: dict | None = None,
        search_params: dict | None = None,
    ):
        self.candidates = arguments.integer(candidates, "candidates", WHERE, high=MOST_HITS // 2)
        arguments.choice(index_type, "index_type", WHERE, SERVERS)
        self.local = local
        params = arguments.mapping(index_params, "index_params", WHERE)
        if local and index_type != "BIN_FLAT":
            raise InputError(f"{WHERE}: milvus-lite has no index {index_type!r} (available: BIN_FLAT); a server has it")
        if arguments.text(coder, "coder", WHERE):
            fits = {"bits": (bits, None), "method": (method, "itq"), "rounds": (rounds, 10), "seed": (seed, 0)}
            if ignored := [name for name, (value, default) in fits.items() if value != default]:
                raise InputError(
                    f"{WHERE}: coder names fitted codes, and {ignored[0]} says how to fit some: remove one of them"
                )
            self.coder = codes.Coder.load(coder)
        else:
            self.coder = codes.fit(gallery, bits=bits, cells=1, method=method, rounds=rounds, seed=seed)
        width = gallery.shape[1]
        if len(self.coder.mean) != width:
            raise InputError(
                f"{WHERE}: {coder} codes vectors of {len(self.coder.mean)} dimensions, the gallery has {width}: give "
                "the coder of these embeddings, or none"
            )
        self.metric = "IP" if local else "HAMMING"
        self.index = {"type": "FLAT" if local else index_type, "params": params}
        self.search_params = {
            "metric_type": self.metric,
            "params": arguments.mapping(search_params, "search_params", WHERE),
        }
        digest = hashlib.sha256(self.coder.mean.tobytes() + self.coder.rotation.tobytes()).hexdigest()
        self.stamp = {"coder": digest[:32], "bits": self.coder.bits, "index": self.index}

    @property
    def row_bytes(self) -> int:
        """Bytes per stored code."""
        return self.coder.bits * 4 if self.local else self.coder.bits // 8

    def encode(self, vectors: np.ndarray) -> Sequence:
        """Returns the codes of vectors [n, D] as Milvus takes them."""
        return self.packed(self.coder.encode(vectors)[0])

    def packed(self, code: np.ndarray) -> Sequence:
        """Returns codes [n, bits / 8] as Milvus takes them: bytes, or for milvus-lite rows of +1 and -1."""
        if self.local:
            return np.unpackbits(code, axis=1).astype(np.float32) * 2 - 1
        return [row.tobytes() for row in code]

    def look(
        self,
        ask: Ask,
        code: np.ndarray,
        own: Sequence[np.ndarray],
        filters: Sequence[str],
        k: int,
        rows: int,
        by_id: Callable[[np.ndarray], np.ndarray],
    ) -> list[np.ndarray]:
        """Returns the rows of the smallest (Hamming distance, id) that meet the queries' filters.

        Where rows tie at the last place it asks for more, up to Milvus's limit of results.

        Args:
          ask: searches Milvus.
          code: [n, bits / 8], the queries' codes.
          own: per query, rows to leave out.
          filters: one per query.
          k: results wanted, if these are more than `candidates`.
          rows: rows of the gallery.
          by_id: maps rows [m] to numbers [m] that sort like the rows' ids.

        Returns:
          n unordered arrays of up to `candidates` rows.
        """
        count, most = max(self.candidates, k), min(MOST_HITS, rows)
        chosen: list[np.ndarray] = [np.zeros(0, np.int64)] * len(code)
        for text in dict.fromkeys(filters):
            asked = [query for query, other in enumerate(filters) if other == text]
            limit = min(count + codes.SLACK + max(len(own[query]) for query in asked), most)
            while asked:
                step, again = max(1, min(QUERIES, HITS // limit, MESSAGE_BYTES // self.row_bytes)), []
                for start in range(0, len(asked), step):
                    some = asked[start : start + step]
                    hits = ask(self.packed(code[some]), FIELD, limit, text, self.search_params)
                    for query, found in zip(some, hits, strict=True):
                        row = np.array(found.ids, np.int64)
                        distance = self._distances(found.distances)
                        # Rows that were not returned are at least as far away as the last one.
                        edge = distance[-1] if limit < most and len(row) == limit else None
                        keep = ~np.isin(row, own[query])
                        row, distance = row[keep], distance[keep]
                        if len(row) > count:
                            inside = np.partition(distance, count - 1)[count - 1]
                            chosen[query] = codes.smallest(distance, row, count, by_id)
                        else:
                            inside, chosen[query] = np.inf, row
                        if edge is not None and edge <= inside:
                            again.append(query)
                asked, limit = again, min(4 * limit, most)
        return chosen

    def _distances(self, scores: Sequence[float]) -> np.ndarray:
        """Returns Hamming distances, ascending as the hits are."""
        scores = np.rint(np.asarray(scores, np.float64)).astype(np.int64)
        return (self.coder.bits - scores) // 2 if self.local else scores


def best(
    ask: Ask, unit: np.ndarray, found: Sequence[np.ndarray], k: int, limit: int, error: float, params: dict
) -> list[np.ndarray]:
    """Returns those of the candidates that can be among the k of highest cosine, by Milvus's own comparison.

    Args:
      ask: searches Milvus.
      unit: [n, D] queries of length 1.
      found: n arrays of candidate rows.
      k: results wanted.
      limit: rows to return per query, more than k: they are scored again.
      error: bound of the error of Milvus's cosines; closer than that, all candidates are kept.
      params: search parameters of the field of vectors.
    """
    out = []
    for query, row in enumerate(found):
        if len(row) > limit:
            text = f"row in {sorted(row.tolist())}"
            (hits,) = ask(unit[query : query + 1], "vector", limit, text, params)
            cosine = list(hits.distances)
            if len(hits) == limit and cosine[k - 1] - cosine[-1] > 2 * error:
                row = np.array(hits.ids, np.int64)
        out.append(row)
    return out
