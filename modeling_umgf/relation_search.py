"""Best-k search of a relation index: exact and block by block in torch, or approximate with faiss.

The result does not depend on the size of the blocks: what a block proposes is compared again in float64, and equal
scores are ordered by a second key that no two pictures of a pool share.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch

POOL_BLOCK = 16_384
QUERY_BLOCK = 1_024
"""Pictures and queries compared at a time: a block of scores takes 64 MB."""

TIE = 1e-6
"""Float32 scores closer than this are as good as equal until float64 decides; a score below it is none."""


class CosineRelation:
    """Score = cosine of two sentence vectors - penalty of the picture.

    Args:
        queries: [Q, D] unit vectors, zeros for an empty text.
        pool: gives the unit vectors [p, D] of some rows of the pool.
        penalty: [N] float64, or None.
    """

    def __init__(self, queries: torch.Tensor, pool: Callable[..., torch.Tensor], penalty: torch.Tensor | None):
        self.queries = queries
        self.pool = pool
        self.penalty = penalty
        self.asked = queries.any(-1, keepdim=True)  # [Q, 1], false for an empty text

    def __len__(self) -> int:
        return len(self.queries)

    def load(self, rows: slice) -> None:
        """Make a block of the pool the one that `scores` compares with."""
        self.block = self.pool(rows).T  # [D, p]
        self.block_penalty = None if self.penalty is None else self.penalty[rows].float()

    def scores(self, queries: slice) -> torch.Tensor:
        """Return [q, p] float32."""
        scores = self.queries[queries] @ self.block
        return scores if self.penalty is None else (scores - self.block_penalty) * self.asked[queries]

    def exact(self, query: np.ndarray, row: np.ndarray) -> np.ndarray:
        """Return the float64 scores of pairs."""
        scores = (self.queries[query].double() * self.pool(row).double()).sum(-1)
        if self.penalty is not None:
            scores = (scores - self.penalty[row]) * self.asked[query, 0]
        return scores.numpy()


class LabelSets:
    """The label sets of N pictures, as one array of label codes.

    Args:
        sets: for each picture its labels, each once.
    """

    def __init__(self, sets: Sequence[Sequence[str]]):
        labels = sorted({label for labels in sets for label in labels})
        self.code = {label: i for i, label in enumerate(labels)}
        self.codes = np.array([self.code[label] for labels in sets for label in labels], dtype=np.int64)
        self.starts = np.concatenate([[0], np.cumsum([len(labels) for labels in sets], dtype=np.int64)])
        self.sizes = np.diff(self.starts).astype(np.float64)


class SetRelation:
    """Score = |A ∩ B| / sqrt(|A| |B|) of two sets of labels, 0 where one is empty.

    Args:
        queries: Q sets of labels.
        pool: the sets of the pool.
    """

    def __init__(self, queries: Sequence[set[str]], pool: LabelSets):
        self.pool = pool
        self.codes = [{pool.code[label] for label in labels if label in pool.code} for labels in queries]
        asked = sorted(set().union(*self.codes))
        self.column = np.full(len(pool.code), -1)
        self.column[asked] = np.arange(len(asked))  # only labels that are asked for get a column
        self.num_columns = len(asked)
        self.sizes = np.array([len(labels) for labels in queries], dtype=np.float64)

    def __len__(self) -> int:
        return len(self.codes)

    def load(self, rows: slice) -> None:
        """Make a block of the pool the one that `scores` compares with."""
        counts = self.pool.sizes[rows].astype(np.int64)
        columns = self.column[self.pool.codes[self.pool.starts[rows.start] : self.pool.starts[rows.stop]]]
        lines = np.repeat(np.arange(len(counts)), counts)
        self.block = torch.zeros(self.num_columns, len(counts))  # [labels, p]
        self.block[columns[columns >= 0], lines[columns >= 0]] = 1
        self.block_sizes = torch.from_numpy(self.pool.sizes[rows]).float()

    def scores(self, queries: slice) -> torch.Tensor:
        """Return [q, p] float32."""
        asked = torch.zeros(queries.stop - queries.start, self.num_columns)
        for line, codes in zip(asked, self.codes[queries], strict=True):
            line[self.column[list(codes)]] = 1
        sizes = torch.from_numpy(self.sizes[queries]).float()[:, None]
        return (asked @ self.block) / (sizes * self.block_sizes).sqrt().clamp_min(1)

    def exact(self, query: np.ndarray, row: np.ndarray) -> np.ndarray:
        """Return the float64 scores of pairs."""
        shared = []
        for q, r in zip(query.tolist(), row.tolist(), strict=True):
            theirs = self.pool.codes[self.pool.starts[r] : self.pool.starts[r + 1]]
            shared.append(len(self.codes[q].intersection(theirs.tolist())))
        return np.array(shared) / np.sqrt(np.maximum(self.sizes[query] * self.pool.sizes[row], 1))


class SecondKey:
    """What decides between equal scores, as one float64: likeness of the pictures, then the order of the ids.

    Args:
        rank: [N] place of each picture's id in alphabetical order.
        query_looks, pool_looks: [Q, L] and [N, L] unit vectors of how pictures look, or None.
    """

    def __init__(self, rank: np.ndarray, query_looks: torch.Tensor | None, pool_looks: torch.Tensor | None):
        self.order = torch.from_numpy(1e-7 * (1 - rank / len(rank)))
        self.query_looks = query_looks
        self.pool_looks = pool_looks

    def block(self, queries: torch.Tensor, rows: slice) -> torch.Tensor:
        """Return the keys [q, p] of all pairs."""
        if self.query_looks is None:
            return self.order[rows].expand(len(queries), -1)
        likeness = self.query_looks[queries].double() @ self.pool_looks[rows].double().T
        return (likeness * 1e6).round() / 1e6 + self.order[rows]

    def pairs(self, query: np.ndarray, row: np.ndarray) -> np.ndarray:
        """Return the keys of some pairs."""
        if self.query_looks is None:
            return self.order[row].numpy()
        likeness = (self.query_looks[query].double() * self.pool_looks[row].double()).sum(-1)
        return ((likeness * 1e6).round() / 1e6 + self.order[row]).numpy()


class Best:
    """The best k pictures of each of Q queries so far.

    Attributes:
        query, row: who found which picture, each query's best first.
        score: float64 scores, all positive.
        floor: [Q] score that a further picture must reach.
    """

    def __init__(self, num_queries: int, k: int):
        self.k = k
        self.query = np.zeros(0, dtype=np.int64)
        self.row = np.zeros(0, dtype=np.int64)
        self.score = np.zeros(0)
        self.second = np.zeros(0)
        self.floor = torch.full((num_queries,), 2 * TIE)

    def add(self, query: np.ndarray, row: np.ndarray, score: np.ndarray, second: np.ndarray) -> None:
        """Take further pictures into account."""
        query = np.concatenate([self.query, query])
        row = np.concatenate([self.row, row])
        score = np.concatenate([self.score, score])
        second = np.concatenate([self.second, second])
        order = np.lexsort((-second, -score, query))
        order = order[score[order] > TIE]
        place = np.arange(len(order)) - np.searchsorted(query[order], query[order])  # within the query
        last = order[place == self.k - 1]
        order = order[place < self.k]
        self.query = query[order]
        self.row = row[order]
        self.score = score[order]
        self.second = second[order]
        self.floor[query[last]] = torch.from_numpy(score[last]).float()


def search_exactly(
    relation: CosineRelation | SetRelation, num_pictures: int, best: Best, forbidden: np.ndarray, second: SecondKey
) -> None:
    """Compare every query with every picture, a block at a time: the memory for it grows with neither.

    Args:
        relation: the queries and how they are compared.
        num_pictures: size N of the pool.
        best: collects the result.
        forbidden: [pairs, 2] queries and rows of pictures that they may not find.
        second: decides between equal scores.
    """
    forbidden = torch.from_numpy(forbidden)
    for start in range(0, num_pictures, POOL_BLOCK):
        rows = slice(start, min(start + POOL_BLOCK, num_pictures))
        relation.load(rows)
        in_rows = forbidden[(forbidden[:, 1] >= start) & (forbidden[:, 1] < rows.stop)]
        for first in range(0, len(relation), QUERY_BLOCK):
            queries = slice(first, min(first + QUERY_BLOCK, len(relation)))
            scores = relation.scores(queries)  # [q, p]
            here = in_rows[(in_rows[:, 0] >= first) & (in_rows[:, 0] < queries.stop)]
            scores[here[:, 0] - first, here[:, 1] - start] = 0
            hopeful = (scores.amax(1) >= best.floor[queries] - TIE).nonzero().flatten()
            if len(hopeful):
                query, column = _candidates(scores[hopeful], hopeful + first, rows, best, second)
                query = query.numpy()
                row = column.numpy() + start
                best.add(query, row, relation.exact(query, row), second.pairs(query, row))


def _candidates(scores, queries, rows, best, second) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (query, column) of the scores [q, p] that can be among the best k; few, even where thousands are equal."""
    k = min(best.k, scores.shape[1])
    floor = torch.maximum(best.floor[queries], scores.topk(k).values[:, -1])[:, None]
    good = scores >= floor - TIE
    line, column = good.nonzero(as_tuple=True)
    if len(line) > 4 * k * len(scores):  # many are equally good: of these, the k best by the second key
        tied = good & (scores <= floor + TIE)
        preferred = second.block(queries, rows).masked_fill(~tied, -torch.inf).topk(k).indices
        line, column = (good & ~tied).scatter(1, preferred, tied.gather(1, preferred)).nonzero(as_tuple=True)
    return queries[line], column


class FaissSearch:
    """Approximate search by sentence vectors; the scores of what it finds are exact.

    Args:
        relation: gives the vectors of the pool; its queries are not used.
        num_pictures: size N of the pool.
        factory: a faiss index description.
        depth: parts of an IVF index that are looked at, or the search depth of HNSW.
    """

    def __init__(self, relation: CosineRelation, num_pictures: int, factory: str, depth: int):
        try:
            import faiss
        except ImportError as error:
            raise ImportError("Approximate search needs faiss: pip install faiss-cpu") from error
        blocks = range(0, num_pictures, POOL_BLOCK)
        vectors = np.concatenate([self._augmented(relation, slice(i, i + POOL_BLOCK)) for i in blocks])
        self.index = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
        self.index.train(vectors)
        self.index.add(vectors)
        name = "efSearch" if "HNSW" in factory else "nprobe"
        if "HNSW" in factory or "IVF" in factory:
            faiss.ParameterSpace().set_index_parameter(self.index, name, depth)

    @staticmethod
    def _augmented(relation, rows) -> np.ndarray:
        """Vectors of the pool with the penalty as one more column, which a query meets with a 1."""
        vectors = relation.pool(rows)
        penalty = vectors.new_zeros(len(vectors)) if relation.penalty is None else -relation.penalty[rows].float()
        return torch.cat([vectors, penalty[:, None]], dim=1).numpy()

    def search(self, relation: CosineRelation, best: Best, forbidden: np.ndarray, second: SecondKey) -> None:
        """Search approximately; arguments as for `search_exactly`."""
        spare = np.bincount(forbidden[:, 0]).max(initial=0) + best.k  # forbidden and equally good pictures
        for first in range(0, len(relation), QUERY_BLOCK):
            queries = relation.queries[first : first + QUERY_BLOCK]
            augmented = torch.cat([queries, torch.ones(len(queries), 1)], dim=1).numpy()
            rows = self.index.search(augmented, int(min(best.k + spare, self.index.ntotal)))[1]  # [q, found], -1 = none
            query = np.repeat(np.arange(len(queries)) + first, rows.shape[1])
            row = rows.ravel()
            number = query * self.index.ntotal + row
            allowed = (row >= 0) & ~np.isin(number, forbidden[:, 0] * self.index.ntotal + forbidden[:, 1])
            query = query[allowed]
            row = row[allowed]
            best.add(query, row, relation.exact(query, row), second.pairs(query, row))
