"""Search with Milvus: a local file (milvus-lite) or a cluster, distinguished by the URI alone.

A collection holds one gallery: `row` (the primary key: the gallery row), `id`, `vector` (of length 1), and the fields
that filters use. It is filled in batches, in row order, and stamped with what belongs inside: gallery, space, fields
and kind of index. A load that was killed resumes where it stopped; every batch is an upsert by `row`, so nothing is
duplicated. A collection with a different stamp is rejected.

Milvus returns k + margin candidates. They are re-scored here from the gallery's own vectors in float64 and sorted by
score, then id, as in exact search. With the index FLAT, a query whose margin was too narrow (a run of ties) is repeated
with more candidates, so the ranking equals that of exact search. With `coarse`, a collection also holds sign codes, by
which the candidates are found (coarse.py).

The address may come from the environment variable RETRIEVAL_JAX_MILVUS_URI (pymilvus has its own MILVUS_URI, which must
not be a file); the secret comes from the environment only: MILVUS_TOKEN, or MILVUS_USER and MILVUS_PASSWORD.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence

import numpy as np
import tqdm

from retrieval_jax import arguments, brief, pairs
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.index import exact
from retrieval_jax.index.binary import rerank
from retrieval_jax.index.milvus.coarse import FIELD, Coarse, best
from retrieval_jax.index.milvus.connection import HITS, MESSAGE_BYTES, MOST_HITS, QUERIES, asking, checked, connect
from retrieval_jax.index.milvus.fields import Column, canonical, columns_sha256, typed
from retrieval_jax.scoring.ranking import Ranking

STAMP = "retrieval_jax"  # property of the collection; also stored as its description, for clusters
LOCAL = ("FLAT", "HNSW", "HNSW_SQ", "IVF_FLAT", "IVF_SQ8", "AUTOINDEX")  # milvus-lite takes any name but builds these
CONSISTENCY = ("Strong", "Bounded", "Session", "Eventually")
BLOCK = 8192  # gallery rows read at once
QUIET_ROWS = 20000  # a shorter load shows no progress bar


class Index:
    """Cosine search over a gallery stored in Milvus; loads the gallery, or the missing part of it, on first use.

    Args:
      gallery: [G, D] array, memory-mapped array or Embeddings; need not be normalised; a zero vector scores 0 with
        everything. Read once here, for its fingerprint, and row by row to re-score candidates.
      ids: G ids, for arrays; ties go by id, and a query's own id is left out. Without ids, ties go by row.
      uri: a local path ending in .db, or http(s)://host:port[/database]; by default
        RETRIEVAL_JAX_MILVUS_URI, else "milvus.db".
      collection: its name; derived from the stamp by default, so that several galleries can coexist.
      fields: name -> G values to filter by: integers, floats, booleans, strings, or lists of integers or strings
        (attributes).
      filter: Milvus expression over fields, such as 'category == 3 and array_contains(attributes, "linen")'; only
        matching rows are found.
      index_type: Milvus's kind of index: FLAT is exact; HNSW, IVF_FLAT, ... are not; a cluster offers more than
        milvus-lite.
      index_params: build parameters, such as {"M": 16, "efConstruction": 200}.
      search_params: search parameters, such as {"ef": 128}.
      consistency: of searches: Strong, Bounded, Session or Eventually.
      margin: candidates requested beyond k, then re-scored.
      coarse: {} or settings of `coarse.Coarse`: candidates are found by sign codes, then compared by the vectors, as
        index.binary does it.
      shards: shards of a new collection, which share the writes; milvus-lite has one.
      replicas: copies of the loaded collection in memory, which share the searches; milvus-lite has one.

    Raises:
      InputError: pymilvus is missing, the URI does not respond or contains a secret, the collection holds something
        else, or ids, fields or vectors are unusable.
    """

    def __repr__(self) -> str:
        return f"milvus.Index({brief.size(self.gallery)})"

    def __init__(
        self,
        gallery: np.ndarray | Embeddings,
        ids: Sequence[str] | None = None,
        *,
        uri: str = "",
        collection: str = "",
        fields: Mapping[str, Sequence] | None = None,
        filter: str = "",
        index_type: str = "FLAT",
        index_params: Mapping | None = None,
        search_params: Mapping | None = None,
        consistency: str = "Strong",
        margin: int = 8,
        coarse: Mapping | None = None,
        shards: int = 1,
        replicas: int = 1,
    ):
        space = str(gallery.meta.get("space") or "") if isinstance(gallery, Embeddings) else ""
        self.exact = exact.Index(gallery, ids)  # only for its ids, places and re-scoring
        self.gallery, self.ids = self.exact.gallery, self.exact.ids
        rows, dim = self.gallery.shape
        where = "index milvus"
        margin = arguments.integer(margin, "margin", where, low=0)
        self.shards = arguments.integer(shards, "shards", where)
        self.replicas = arguments.integer(replicas, "replicas", where)
        for name, value in (("uri", uri), ("collection", collection), ("filter", filter), ("index_type", index_type)):
            arguments.text(value, name, where)
        arguments.choice(consistency, "consistency", where, CONSISTENCY)
        index_params = arguments.mapping(index_params, "index_params", where)
        search_params = arguments.mapping(search_params, "search_params", where)
        fields = arguments.mapping(fields, "fields", where)
        self.filter, self.consistency, self.margin = filter, consistency, margin
        self.index = {"type": index_type.upper(), "params": index_params}
        self.search_params = {"metric_type": "COSINE", "params": search_params}
        if coarse is not None:
            coarse = arguments.mapping(coarse, "coarse", where)
            pairs.check_arguments("coarse", coarse, pairs.arguments(Coarse, skip=2), where, "setting")
            if FIELD in fields:
                raise InputError(f"{where}: a field cannot be named {FIELD!r} with coarse: the codes are in it")
        columns = {name: typed(name, values, rows) for name, values in fields.items()}
        self.uri = checked(uri or os.environ.get("RETRIEVAL_JAX_MILVUS_URI") or "milvus.db")
        self.local = self.uri.endswith(".db")
        if self.local and self.index["type"] not in LOCAL:
            raise InputError(
                f"milvus-lite has no index {index_type!r} (available: {', '.join(LOCAL)}); a server has more"
            )
        self.client = connect(self.uri)  # before reading the gallery, so that a wrong address fails at once
        self.coarse = None if coarse is None else Coarse(self.gallery, self.local, **coarse)
        stamp = {
            "format": 1,
            "rows": rows,
            "dim": int(dim),
            "space": space,
            "ids": self.ids.sha256()[:32] if self.ids is not None else "",
            "vectors": self._read()[:32],
            "fields": columns_sha256(columns)[:32],
            "index": self.index,
        } | ({"coarse": self.coarse.stamp} if self.coarse else {})
        self.collection = collection or f"gallery_{hashlib.sha256(canonical(stamp).encode()).hexdigest()[:16]}"
        if rows:
            self._load(stamp, columns)

    def search(
        self, queries: np.ndarray | Embeddings, k: int = 10, *, filter: str | Sequence[str] | None = None
    ) -> Ranking:
        """Returns the k gallery rows of highest cosine for every query, best first.

        Args:
          queries: [Q, D] array or Embeddings; with Embeddings, the gallery row with the query's own id is left out.
          k: results per query; the ranking is padded if fewer rows match.
          filter: overrides the index's own; a sequence gives one per query.

        Returns:
          Ranking with item_rows [Q, k] and scores [Q, k] (cosines); ties go by id.

        Raises:
          InputError: a dimension that differs from the gallery's, a k out of range for Milvus, a non-finite vector, or
            a filter that Milvus rejects.
        """
        ids, vectors, k = self.exact.check(queries, k)
        own = self.exact.own_rows(ids)
        lengths = exact.lengths_of(vectors, ids, "query")
        most = min(MOST_HITS, len(self.gallery))
        needed = k + int(np.bincount(own[:, 0], minlength=1).max())
        if needed > MOST_HITS:
            raise InputError(f"search.k is {k}: Milvus returns at most {MOST_HITS} results per query")
        texts = [self.filter if filter is None else filter] * len(vectors)
        if filter is not None and not isinstance(filter, str):
            filters = arguments.sequence(filter, "filter", "index milvus")
            texts = [arguments.text(one, "filter", "index milvus") for one in filters]
        if len(texts) != len(vectors):
            raise InputError(f"{len(texts)} filters for {len(vectors)} queries: give one filter, or one per query")
        if self.coarse:
            return self.exact.ranking(ids, *self._coarse_search(ids, vectors, lengths, own, texts, k), vectors)
        rows = np.full((len(vectors), k), -1, np.int64)
        scores = np.full((len(vectors), k), -np.inf, np.float32)
        for text in dict.fromkeys(texts) if most else ():
            asked, limit = np.flatnonzero([other == text for other in texts]), min(needed + self.margin, most)
            while len(asked):
                step = max(1, min(QUERIES, HITS // limit, MESSAGE_BYTES // (4 * vectors.shape[1])))
                again = []
                for start in range(0, len(asked), step):
                    some = asked[start : start + step]
                    block = np.asarray(vectors[some], np.float32)
                    found = self._search(block, lengths[some], some, own, text, limit, k)
                    rows[some], scores[some], unsure = found
                    again.append(some[unsure])
                asked = np.concatenate(again) if limit < most else asked[:0]
                limit = min(4 * limit, most)
        return self.exact.ranking(ids, rows, scores, vectors)

    def _search(self, block, lengths, some, own, text, limit, k) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Searches queries that share a filter; returns rows and scores [n, k] and which may miss a row, [n]."""
        found = self._ask(exact.unit(block, lengths), "vector", limit, text, self.search_params)
        query = np.repeat(np.arange(len(block)), [len(hits) for hits in found])
        row = np.array([row for hits in found for row in hits.ids], np.int64)
        kept = ~np.isin(some[query] * len(self.gallery) + row, own[:, 0] * len(self.gallery) + own[:, 1])
        query, row = query[kept], row[kept]
        score = self.exact.rescore(block, lengths, query, row)
        rows, scores = exact.best_first(query, row, score, self.exact.place, len(block), k)
        unsure = np.zeros(len(block), bool)
        if self.index["type"] == "FLAT":
            # A row that was not returned scores at most as high as the last one returned, up to float32 error.
            floor = np.array([min(hits.distances) if len(hits) == limit else -np.inf for hits in found])
            unsure = (floor > -np.inf) & (floor + self.exact.error + 2.0**-22 >= scores[:, -1])
        return rows, scores, unsure

    def _ask(self, queries, field: str, limit: int, text: str, params: dict) -> list:
        """Returns Milvus's hits of queries in a field, one list per query."""
        with asking(self.uri, f"search in {self.collection!r}{f' with the filter {text!r}' if text else ''}"):
            found = self.client.search(
                self.collection,
                queries,
                anns_field=field,
                limit=limit,
                filter=text,
                search_params=params,
                consistency_level=self.consistency,
            )
        if any(hits.ids and not 0 <= min(hits.ids) <= max(hits.ids) < len(self.gallery) for hits in found):
            raise InputError(
                f"collection {self.collection!r} of {self.uri} has rows that the gallery does not have: drop it and "
                "load the gallery again"
            )
        return found

    def _coarse_search(self, ids, vectors, lengths, own, texts, k) -> tuple[np.ndarray, np.ndarray]:
        """Returns rows and scores [Q, k]: codes, then vectors inside Milvus, then exact cosines of the best here."""
        own = np.split(own[:, 1], np.searchsorted(own[:, 0], np.arange(1, len(vectors))))
        by_id, error = self.exact.place.__getitem__, self.exact.error + 2.0**-22

        def find(some: slice, code: np.ndarray, cells: np.ndarray) -> list[np.ndarray]:
            found = self.coarse.look(self._ask, code, own[some], texts[some], k, len(self.gallery), by_id)
            unit = exact.unit(np.asarray(vectors[some], np.float32), lengths[some])
            return best(self._ask, unit, found, k, k + self.margin, error, self.search_params)

        return rerank.search(
            vectors,
            ids,
            k,
            coder=self.coarse.coder,
            probes=1,
            find=find,
            by_id=by_id,
            fetch=self.gallery.__getitem__,
        )

    def _read(self) -> str:
        """Returns a fingerprint of the gallery's vectors and records their lengths."""
        digest = hashlib.sha256()
        for start in range(0, len(self.gallery), BLOCK):
            block = np.ascontiguousarray(self.gallery[start : start + BLOCK], np.float32)
            digest.update(block)
            self.exact.lengths[start : start + len(block)] = exact.lengths_of(block, self.ids, "gallery", start)
        return digest.hexdigest()

    def _load(self, stamp: dict, columns: dict[str, Column]) -> None:
        """Creates the collection, or resumes loading it, until it holds the whole gallery."""
        name, rows = self.collection, len(self.gallery)
        drop = f"use a different name (collection=...), or drop it: MilvusClient(...).drop_collection({name!r})"
        with asking(self.uri, f"collection {name!r}"):
            if self.client.has_collection(name):
                self._check(stamp, drop)
            else:
                self._create(stamp, columns)
            # A server counts rows only for collections with an index, and builds it as rows arrive. milvus-lite would
            # build it in the background and search without it meanwhile, so there it is created after all rows.
            if not self.local:
                self._make_index()
            self.client.load_collection(name, **({"replica_number": self.replicas} if self.replicas > 1 else {}))
            there = self._count()
            if there == rows:
                self._make_index()
                return
            longest = int(np.diff(self.ids.offsets).max()) if self.ids is not None else 0
            width = 4 * stamp["dim"] + 16 + longest + sum(column.width for column in columns.values())
            width += self.coarse.row_bytes if self.coarse else 0
            batch = max(1, MESSAGE_BYTES // width)
            # Batches are sent in row order, so the first `there` rows are complete. If rows went missing some other way
            # (somebody deleted them), everything is sent again: an upsert by row duplicates nothing.
            for first in dict.fromkeys((min(there, rows) // batch * batch, 0)):
                self._upsert(first, batch, columns)
                there = self._count()
                if there == rows:
                    self.client.flush(name)
                    self._make_index()
                    return
        raise InputError(
            f"collection {name!r} of {self.uri} holds {there} rows but the gallery has {rows}: something else is "
            f"writing to it; {drop}"
        )

    def _make_index(self) -> None:
        wanted = {"vector": (self.index, "COSINE")}
        wanted |= {FIELD: (self.coarse.index, self.coarse.metric)} if self.coarse else {}
        for field, (kind, metric) in wanted.items():
            if not self.client.list_indexes(self.collection, field_name=field):
                params = self.client.prepare_index_params()
                # As one value named params: milvus-lite ignores parameters given one by one, as pymilvus 3 would send
                # them; a cluster reads both.
                params.add_index(field, index_type=kind["type"], metric_type=metric, params={"params": kind["params"]})
                self.client.create_index(self.collection, params, sync=False)

    def _create(self, stamp: dict, columns: dict[str, Column]) -> None:
        from pymilvus import DataType

        schema = self.client.create_schema(auto_id=False, enable_dynamic_field=False, description=canonical(stamp))
        schema.add_field("row", DataType.INT64, is_primary=True)
        longest = int(np.diff(self.ids.offsets).max()) if self.ids is not None else 1
        schema.add_field("id", DataType.VARCHAR, max_length=max(1, longest))
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=stamp["dim"])
        if self.coarse:
            kind = DataType.FLOAT_VECTOR if self.local else DataType.BINARY_VECTOR
            schema.add_field(FIELD, kind, dim=self.coarse.coder.bits)
        for name, column in columns.items():
            kind, more = getattr(DataType, column.kind), {}
            if column.kind == "VARCHAR":
                more["max_length"] = column.longest
            if column.many:
                more |= {"element_type": kind, "max_capacity": column.many}
            schema.add_field(name, DataType.ARRAY if column.many else kind, **more)
        self.client.create_collection(
            self.collection,
            schema=schema,
            properties={STAMP: canonical(stamp)},
            consistency_level="Strong",
            **({"num_shards": self.shards} if self.shards > 1 else {}),
        )

    def _check(self, stamp: dict, drop: str) -> None:
        """Raises InputError unless the collection has this stamp."""
        about = self.client.describe_collection(self.collection)
        try:
            old = json.loads((about.get("properties") or {}).get(STAMP) or about.get("description") or "")
            differ = sorted(key for key in stamp.keys() | old.keys() if stamp.get(key) != old.get(key))
        except (ValueError, AttributeError) as error:
            raise InputError(
                f"collection {self.collection!r} of {self.uri} was not created by retrieval_jax: {drop}"
            ) from error
        if differ:
            there, here = ({key: some.get(key) for key in differ} for some in (old, stamp))
            raise InputError(
                f"collection {self.collection!r} of {self.uri} holds a different gallery: {canonical(there)}, while "
                f"this one has {canonical(here)}; {drop}"
            )

    def _count(self) -> int:
        answer = self.client.query(self.collection, filter="", output_fields=["count(*)"], consistency_level="Strong")
        return int(answer[0]["count(*)"])

    def _upsert(self, first: int, batch: int, columns: dict[str, Column]) -> None:
        rows = len(self.gallery)
        with tqdm.tqdm(
            total=rows,
            initial=first,
            desc="milvus: load",
            unit="listing",
            mininterval=1,
            disable=rows - first < QUIET_ROWS,
        ) as bar:
            for start in range(first, rows, batch):
                stop = min(start + batch, rows)
                block = np.asarray(self.gallery[start:stop], np.float32)
                unit = exact.unit(block, self.exact.lengths[start:stop])
                ids = self.ids[start:stop] if self.ids is not None else [""] * (stop - start)
                more = {name: column.values[start:stop] for name, column in columns.items()}
                more |= {FIELD: self.coarse.encode(block)} if self.coarse else {}
                self.client.upsert(
                    self.collection,
                    [
                        {"row": row, "id": item, "vector": vector, **dict(zip(more, values, strict=True))}
                        for row, item, vector, *values in zip(
                            range(start, stop), ids, unit, *more.values(), strict=True
                        )
                    ],
                )
                bar.update(stop - start)
