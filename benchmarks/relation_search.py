"""Exact and approximate search by text in a relation index of a million synthetic vectors: time, memory, recall.

    python -m benchmarks.relation_search

Vectors are drawn around 5,000 random centres, as captions of related pictures lie together; queries around the same
centres. Each search runs in a process of its own, whose peak memory is given next to that of the vectors themselves.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from modeling_umgf import RelationIndex

from .record import write_result

CENTRES, SPREAD, K = 5_000, 0.7, 5
SEARCHES = {
    "exact, float32": {"dtype": "float32"},
    "exact, float16": {"dtype": "float16"},
    "faiss IVF1024,Flat, 32 of 1024 parts, float16": {"dtype": "float16", "factory": "IVF1024,Flat", "depth": 32},
}


def vectors(count: int, width: int, seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Draw [count, width] vectors around the centres, in blocks, so that no second copy is needed."""
    centres = torch.randn(CENTRES, width, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    result = torch.empty(count, width, dtype=dtype)
    for block in result.split(50_000):
        which = torch.randint(CENTRES, (len(block),), generator=generator)
        block.copy_(centres[which] + SPREAD * torch.randn(len(block), width, generator=generator))
    return result


def search(arguments: argparse.Namespace, settings: dict, output: Path) -> dict:
    """Build an index, search it, write the rows that were found; returns times and memory."""
    pool = vectors(arguments.pictures, arguments.width, 1, getattr(torch, settings["dtype"]))
    queries = vectors(arguments.queries, arguments.width, 2)
    begin = time.time()
    memory_of_vectors = peak_memory()
    index = RelationIndex([str(i) for i in range(len(pool))], text_embeddings=pool)
    if "factory" in settings:
        index.use_faiss(settings["factory"], settings["depth"])
    built = time.time()
    memory_before = peak_memory()
    found = index.neighbors_for_text(queries, K)
    seconds = time.time() - built
    rows = np.full((len(found), K), -1)
    for line, neighbors in zip(rows, found, strict=True):
        line[: len(neighbors)] = [int(one["id"]) for one in neighbors]
    np.save(output, rows)
    return {
        "seconds_to_build": round(built - begin, 1),
        "seconds_to_search": round(seconds, 1),
        "vectors_mb": round(pool.nbytes / 2**20),
        "peak_mb_before_building": memory_of_vectors,
        "peak_mb_after_building": memory_before,
        "peak_mb_after_searching": peak_memory(),
    }


def peak_memory() -> int:
    """Most memory that this process had so far, in MB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--output", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(search(arguments, SEARCHES[arguments.only], Path(arguments.output))))
        return
    begin = time.time()
    rows = []
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for i, name in enumerate(SEARCHES):
            output = Path(folder, f"{i}.npy")
            command = [sys.executable, "-m", "benchmarks.relation_search", *sys.argv[1:]]
            command += ["--only", name, "--output", str(output)]
            run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found[name] = np.load(output)
            exact = found["exact, float32"]
            recall = np.mean(
                [len(set(a) & set(b)) / K for a, b in zip(exact.tolist(), found[name].tolist(), strict=True)]
            )
            rows.append({"search": name, **json.loads(run.stdout), f"recall_at_{K}": round(float(recall), 4)})
            print(rows[-1], flush=True)
    configuration = {
        "pictures": arguments.pictures,
        "queries": arguments.queries,
        "width": arguments.width,
        "k": K,
        "hubness": "center",
        "vectors": f"{CENTRES} normal centres + {SPREAD} normal noise, seeds 0, 1, 2; recall against exact float32",
        "threads": torch.get_num_threads(),
    }
    print(write_result("relation_search", configuration, {"searches": rows}, time.time() - begin, ("faiss-cpu",)))


if __name__ == "__main__":
    main()
