"""Index the captions of all Twitter-2017 pictures; compare the hubs among its neighbours with the authors'.

    python -m benchmarks.relation_index_twitter2017 --captions BLIP2_17.txt --relations FOLDER --tweets FOLDER \
        --text_encoder FOLDER

The pool is all 4,819 pictures, as in the authors' files, so that both are on the same footing; nothing but hubness is
scored.
"""

import argparse
import time
from pathlib import Path

from dataset_scripts.reading.conll import read_conll
from dataset_scripts.reading.published_formats import read_caption_file, read_relation_file
from dataset_scripts.relations.authors_files import AUTHORS_FILES
from dataset_scripts.relations.report import hubness
from modeling_umgf import RelationIndex, SentenceEncoder

from .record import write_result

K = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--captions", required=True, help="lines '<id>.jpg :caption'")
    parser.add_argument("--relations", required=True, help="folder of the authors' {train,valid,test}_2.txt")
    parser.add_argument("--tweets", required=True, help="folder of {train,valid,test}.txt")
    parser.add_argument("--text_encoder", required=True, help="id or folder of a sentence encoder")
    arguments = parser.parse_args()
    captions = read_caption_file(arguments.captions)
    tweets = [
        row
        for file in ("train.txt", "valid.txt", "test.txt")
        for row in read_conll(Path(arguments.tweets, file), umt=True)
    ]
    texts = [" ".join(row["tokens"]) for row in tweets]
    own = [[row["id"]] for row in tweets]

    begin = time.time()
    encoder = SentenceEncoder(arguments.text_encoder)
    index = RelationIndex(list(captions), captions=list(captions.values()), encoder=encoder)
    build_seconds = time.time() - begin
    queries = index.embed(texts)
    begin_search = time.time()
    neighbors = {"center": index.neighbors_for_text(queries, K, own)}
    search_seconds = time.time() - begin_search
    for correction in ("csls", "none"):
        settings = {"hubness": correction, "reference_texts": queries if correction == "csls" else None}
        other = RelationIndex(list(captions), text_embeddings=index.pictures.text_embeddings, **settings)
        neighbors[correction] = other.neighbors_for_text(queries, K, own)
    rows = [{"neighbours": f"ours, hubness={name}", **report(found)} for name, found in neighbors.items()]
    authors = [
        row["neighbors_inter"][:K]
        for file in AUTHORS_FILES.values()
        for row in read_relation_file(Path(arguments.relations, file))
    ]
    rows.append({"neighbours": "the authors' files", **report(authors)})
    results = {
        "pictures": len(index),
        "tweets": len(tweets),
        "seconds_to_build": round(build_seconds, 1),
        "seconds_to_search": round(search_seconds, 1),
        "hubness_of_the_inter_modal_relation": rows,
    }
    print(results)
    configuration = {
        "captions": "BLIP-2, by the PGIM authors",
        "text_encoder": "all-MiniLM-L6-v2",
        "k": K,
        "pool": "all",
    }
    print(write_result("relation_index_twitter2017", configuration, results, time.time() - begin))


def report(neighbors: list[list[dict]]) -> dict:
    """Hubness, and in how many tweets the eight most frequent first neighbours come first."""
    firsts = [row[0]["id"] for row in neighbors if row]
    top8 = sorted((firsts.count(picture) for picture in set(firsts)), reverse=True)[:8]
    return hubness(neighbors) | {"first_neighbour_is_one_of_8": round(sum(top8) / len(neighbors), 4)}


if __name__ == "__main__":
    main()
