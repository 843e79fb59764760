"""Tag posts on a Ray cluster, however many there are.

    python examples/tag_with_ray.py posts.jsonl --model runs/umgf --images pictures --output entities --concurrency 8

On one machine Ray starts by itself; on a cluster, run this where RAY_ADDRESS names it. Input and output (JSON lines,
one file a block) may lie on any file system that Ray reads, such as s3://…; each node must reach pictures and model.
"""

import argparse
import sys

try:
    import ray
except ImportError:
    sys.exit('This example needs Ray: pip install "ray[data]"')

from modeling_umgf.tagging import RayTagger


def main(arguments: list[str] | None = None) -> None:
    """Read, tag and write as a stream; Ray repeats what a lost node was doing."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("posts", help="file or folder of .jsonl, .csv or .parquet")
    parser.add_argument("--model", required=True, help="folder or Hub id of a trained model")
    parser.add_argument("--images", default=".", help="folder that picture names start from")
    parser.add_argument("--output", required=True, help="folder for the tagged posts")
    parser.add_argument("--format", choices=("jsonl", "csv", "parquet"), default="jsonl", help="format of the posts")
    parser.add_argument("--batch_size", type=int, default=32, help="posts that a model sees at once")
    parser.add_argument("--concurrency", type=int, default=1, help="copies of the model")
    parser.add_argument("--num_gpus", type=float, default=0, help="GPUs for each copy")
    options = parser.parse_args(arguments)
    read = {"jsonl": ray.data.read_json, "csv": ray.data.read_csv, "parquet": ray.data.read_parquet}[options.format]
    posts = read(options.posts, lines=True) if options.format == "jsonl" else read(options.posts)
    tagged = posts.map_batches(
        RayTagger,
        fn_constructor_kwargs={"model": options.model, "images": options.images, "batch_size": options.batch_size},
        batch_format="pyarrow",
        batch_size=4 * options.batch_size,
        compute=ray.data.ActorPoolStrategy(size=options.concurrency),
        num_gpus=options.num_gpus,
    )
    tagged.write_json(options.output)


if __name__ == "__main__":
    main()
