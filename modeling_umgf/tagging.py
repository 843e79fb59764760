"""Tag files of posts, however long: `python -m modeling_umgf tag posts.jsonl --model … --output entities.jsonl`."""

import argparse
import json
import multiprocessing
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import chain, cycle, islice
from pathlib import Path

from tqdm import tqdm

from .post_files import OUTPUT_FORMATS, PostFileError, count_posts, read_posts, to_post

Tagger = Callable[[list[dict]], list]  # posts → for each, the rows of the pipeline or {"error": …}

BATCHES_PER_CHUNK = 4
"""Posts go to a tagger in chunks of so many batches: what a stop can lose."""


class TaggingError(ValueError):
    """The tagging command cannot run, and why, in one sentence."""


@dataclass
class TaggingSummary:
    """Counts of one run.

    Args:
        posts: posts tagged by this run, those with an error included.
        entities: entities found in them.
        errors: posts that could not be tagged.
        already_done: posts that were in the output before.
        seconds: duration, loading of the model included.
    """

    posts: int = 0
    entities: int = 0
    errors: int = 0
    already_done: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        earlier = f", {self.already_done:,} were done before" if self.already_done else ""
        return (
            f"{self.posts:,} posts tagged{earlier}; {self.entities:,} entities, {self.errors:,} posts with an error; "
            f"{self.seconds:.1f} s"
        )


def tag_file(
    input_file: str | os.PathLike,
    output_file: str | os.PathLike,
    model: str | os.PathLike,
    images: str | os.PathLike | None = None,
    batch_size: int = 32,
    num_proc: int = 1,
    device: str | None = None,
    trust_remote_code: bool = False,
    detector: str | os.PathLike | None = None,
    min_score: float = 0.5,
    text_column: str = "text",
    image_column: str = "image",
    id_column: str = "id",
    overwrite: bool = False,
) -> TaggingSummary:
    """Tag every post of a file, or the rest of it where an earlier run was stopped.

    Args:
        input_file: .jsonl, .parquet or .csv with a column of texts (or, not in CSV, `words` or `tokens`: lists of
            words); optional columns: picture (a file name, a web address or, in Parquet, the bytes), id, and whatever
            else the processor reads (`objects`, …).
        output_file: .jsonl (a line {"id", "text", "entities"} or {"id", "error"}), or .conll (`IMGID:<id>`, then a line
            for each word: word, tab, label; a post with an error has no words). Next to it, `<output>.settings.json`
            says what the run was asked for.
        model: folder or Hub id of a trained model with its processor.
        images: folder that relative picture names start from; default: the folder of the input.
        batch_size: posts that the model sees at once.
        num_proc: processes, each with a copy of the model; the order stays that of the input.
        device: "cpu", "cuda:1", …; default: a GPU if there is one, and the GPUs in turn for several processes.
        trust_remote_code: run the code in the model's folder if this package does not know the type of the model.
        detector: folder or Hub id of a zero-shot object detector that finds the objects of posts without `objects`;
            default: each picture is one object. See `Grounder`.
        min_score: boxes of the detector below are no objects.
        text_column, image_column, id_column: names of the columns. A post without id gets its number, from 1.
        overwrite: start anew instead of going on.

    Returns:
        The counts of this run.

    Raises:
        PostFileError, TaggingError: the input, the output or the model cannot be used; the output is as before.
    """
    begin = time.perf_counter()
    input_file, output_file = Path(input_file), Path(output_file)
    if output_file.suffix not in OUTPUT_FORMATS:
        raise TaggingError(f"{output_file}: the output must end in {' or '.join(OUTPUT_FORMATS)}.")
    if input_file.resolve() == output_file.resolve():
        raise TaggingError(f"{output_file}: is the input; give another --output.")
    if batch_size < 1 or num_proc < 1:
        raise TaggingError(f"batch_size={batch_size} and num_proc={num_proc} must be at least 1.")
    output_format = OUTPUT_FORMATS[output_file.suffix]
    columns = {"text": text_column, "image": image_column, "id": id_column}
    settings = {"input": input_file.name, "images": images and str(images), "model": str(Path(model))}
    settings |= {"detector": detector and str(detector), "min_score": min_score, "columns": columns}
    posts = read_posts(input_file, columns, images)
    summary = TaggingSummary()
    if output_file.exists() and not overwrite:
        _check_settings(output_file, settings)
        summary.already_done = output_format.skip_finished(output_file, posts)

    load = partial(
        load_tagger,
        str(model),
        batch_size=batch_size,
        aggregation_strategy=output_format.aggregation_strategy,
        trust_remote_code=trust_remote_code,
        detector=detector,
        min_score=min_score,
        num_proc=num_proc,
    )
    devices = [device] * num_proc if device else _gpus_in_turn(num_proc)
    tagged = tag_in_processes(
        _chunks(posts, BATCHES_PER_CHUNK * batch_size), [partial(load, device=one) for one in devices]
    )
    with closing(tagged):
        first = list(islice(tagged, 1))  # the model works: the output may be touched
        output_file.parent.mkdir(parents=True, exist_ok=True)
        bar = tqdm(total=count_posts(input_file), initial=summary.already_done, unit="post")
        with bar, open(output_file, "wb" if overwrite else "ab") as output:
            _write_settings(output_file, settings)
            for chunk, results in chain(first, tagged):
                records = [output_format.to_record(*pair) for pair in zip(chunk, results, strict=True)]
                output.write(b"".join(record.content for record in records))
                output.flush()
                for post, record in zip(chunk, records, strict=True):
                    summary.posts += 1
                    summary.entities += record.entities
                    summary.errors += record.error is not None
                    if record.error is not None and summary.errors <= 10:
                        number = summary.already_done + summary.posts
                        bar.write(f"{input_file}, post {number} (id {post['id']}): {record.error}", file=sys.stderr)
                bar.update(len(chunk))
    summary.seconds = time.perf_counter() - begin
    return summary


def load_tagger(
    model: str,
    batch_size: int = 32,
    aggregation_strategy: str = "simple",
    trust_remote_code: bool = False,
    detector: str | os.PathLike | None = None,
    min_score: float = 0.5,
    num_proc: int = 1,
    device: str | None = None,
) -> Tagger:
    """Load the pipeline of a model as a function of posts.

    Args:
        model: folder or Hub id.
        batch_size: posts that the model sees at once.
        aggregation_strategy: see the pipeline.
        trust_remote_code: run the code in the model's folder if this package does not know the type of the model.
        detector, min_score: see `tag_file`.
        num_proc: processes that share the processor cores.
        device: where the model runs; default: a GPU if there is one.

    Raises:
        TaggingError: the model or the detector cannot be loaded.
    """
    import torch
    from transformers import pipeline

    if num_proc > 1:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // num_proc))
    grounder = None
    if detector is not None:
        from .grounding import Grounder

        try:
            grounder = Grounder.from_pretrained(detector, device=device, min_score=min_score)
        except Exception as error:
            raise TaggingError(f"cannot load the detector {detector}: {' '.join(str(error).split())}") from error
    try:
        tagger = pipeline("multimodal-ner", model=model, device=device, trust_remote_code=trust_remote_code)
    except Exception as error:  # whatever transformers and the Hub make of a wrong name or a damaged folder
        where = "" if Path(model).exists() else " (no folder here; tried as a Hub id)"
        raise TaggingError(f"cannot load the model {model}{where}: {' '.join(str(error).split())}") from error

    def tag(posts: list[dict]) -> list:
        posts = [{key: post[key] for key in tagger.input_columns & post.keys()} for post in posts]
        options = {"batch_size": batch_size, "aggregation_strategy": aggregation_strategy}
        return tagger(posts, grounder=grounder, **options)

    return tag


class RayTagger:
    """The tagger for clusters: a class for `map_batches` of Ray Data (`pip install "modeling_umgf[ray]"`).

        posts = ray.data.read_json("posts/", lines=True)
        tagged = posts.map_batches(
            RayTagger, fn_constructor_kwargs={"model": "…"}, batch_format="pyarrow", batch_size=256, concurrency=4
        )

    Each of the actors loads the model once. A batch keeps its columns and gains `entities`, a list of structs as from
    the pipeline (null where the post could not be tagged), and `error`, a string (null where it could).

    Args:
        model: folder or Hub id, on every node.
        images: folder that relative picture names start from.
        batch_size: posts that the model sees at once.
        device: where the model runs; default: the GPU that Ray gives the actor (`num_gpus=1`), else the CPU.
        trust_remote_code: run the code in the model's folder if this package does not know the type of the model.
        detector, min_score: see `tag_file`.
        text_column, image_column, id_column: names of the columns.
    """

    def __init__(
        self,
        model: str | os.PathLike,
        images: str | os.PathLike = ".",
        batch_size: int = 32,
        device: str | None = None,
        trust_remote_code: bool = False,
        detector: str | os.PathLike | None = None,
        min_score: float = 0.5,
        text_column: str = "text",
        image_column: str = "image",
        id_column: str = "id",
    ):
        self.tagger = load_tagger(
            str(model), batch_size, "simple", trust_remote_code, detector, min_score, device=device
        )
        self.columns, self.images = {"text": text_column, "image": image_column, "id": id_column}, Path(images)

    def __call__(self, table):
        """Tag a `pyarrow.Table` of posts."""
        import pyarrow

        text, real, whole = pyarrow.string(), pyarrow.float64(), pyarrow.int64()
        node = pyarrow.struct({"box": pyarrow.list_(real), "query": text, "weight": real})
        neighbor = pyarrow.struct({"id": text, "relation": text, "weight": real})
        entity = {"entity_group": text, "score": real, "word": text, "start": whole, "end": whole}
        entity |= {"objects": pyarrow.list_(node), "neighbors": pyarrow.list_(neighbor)}
        posts = [to_post(row, number, self.columns, self.images) for number, row in enumerate(table.to_pylist())]
        results = self.tagger(posts)
        entities = [None if isinstance(result, dict) else result for result in results]
        errors = [result["error"] if isinstance(result, dict) else None for result in results]
        table = table.append_column("entities", pyarrow.array(entities, pyarrow.list_(pyarrow.struct(entity))))
        return table.append_column("error", pyarrow.array(errors, text))


def tag_in_processes(
    chunks: Iterator[list[dict]], loaders: list[Callable[[], Tagger]]
) -> Iterator[tuple[list[dict], list]]:
    """Tag chunks of posts, in this process or, with several loaders, each in a process of its own.

    Args:
        chunks: lists of posts; at most one a process is held.
        loaders: functions without arguments that return a tagger.

    Returns:
        The chunks in their order, each with its results.

    Raises:
        TaggingError: a model cannot be loaded, or a process died.
    """
    if len(loaders) == 1:
        tagger = None
        for chunk in chunks:
            tagger = tagger or loaders[0]()
            yield chunk, _tag_chunk(tagger, chunk)
        return
    context = multiprocessing.get_context("spawn")
    connections, waiting = [], deque()
    for load in loaders:
        connection, worker_end = context.Pipe()
        context.Process(target=_work, args=(worker_end, load), daemon=True).start()
        worker_end.close()
        connections.append(connection)
    try:
        for chunk, connection in zip(chunks, cycle(connections), strict=False):
            if len(waiting) == len(connections):
                yield _receive(*waiting.popleft())
            connection.send(chunk)
            waiting.append((chunk, connection))
        while waiting:
            yield _receive(*waiting.popleft())
    finally:
        for connection in connections:  # a worker ends when its connection does, also when this process is killed
            connection.close()


def _receive(chunk: list[dict], connection) -> tuple[list[dict], list]:
    try:
        results = connection.recv()
    except (EOFError, ConnectionError) as error:
        raise TaggingError(
            "a worker process died, perhaps for lack of memory: start again with a smaller --num_proc or --batch_size."
        ) from error
    if isinstance(results, Exception):
        raise results
    return chunk, results


def _work(connection, load: Callable[[], Tagger]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then closes the connection
    tagger = None
    try:
        while True:
            chunk = connection.recv()
            try:
                tagger = tagger or load()
                results = _tag_chunk(tagger, chunk)
            except TaggingError as error:
                results = error
            except Exception as error:  # a library's exception may not survive the way to the parent
                results = RuntimeError(f"{type(error).__name__}: {error}")
            connection.send(results)
    except (EOFError, ConnectionError):
        return


def _tag_chunk(tagger: Tagger, chunk: list[dict]) -> list:
    """Tag the readable posts of a chunk; the others keep their error."""
    readable = [post for post in chunk if "error" not in post]
    tagged = iter(tagger(readable) if readable else [])
    return [{"error": post["error"]} if "error" in post else next(tagged) for post in chunk]


def _chunks(posts: Iterator[dict], size: int) -> Iterator[list[dict]]:
    while chunk := list(islice(posts, size)):
        yield chunk


def _gpus_in_turn(num_proc: int) -> list[str | None]:
    import torch

    gpus = torch.cuda.device_count()
    return [f"cuda:{number % gpus}" if gpus else None for number in range(num_proc)]


def _settings_file(output_file: Path) -> Path:
    return output_file.with_name(output_file.name + ".settings.json")


def _write_settings(output_file: Path, settings: dict) -> None:
    temporary = output_file.with_name(output_file.name + ".settings.tmp")
    temporary.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, _settings_file(output_file))


def _check_settings(output_file: Path, settings: dict) -> None:
    """Raise where the output was begun with other settings."""
    if not _settings_file(output_file).exists():
        return
    try:
        before = json.loads(_settings_file(output_file).read_text(encoding="utf-8"))
    except ValueError as error:
        raise TaggingError(
            f"{_settings_file(output_file)}: damaged ({error}); delete it if you know that it fits."
        ) from error
    for key, value in settings.items():
        if before.get(key) != value:
            raise TaggingError(
                f"{output_file}: was begun with {key} {before.get(key)}, not {value}; give another --output, or "
                "--overwrite to start anew."
            )


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 done, 1 cannot run, 2 wrong arguments, 130 stopped by Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="python -m modeling_umgf", description="Find the names in posts with pictures."
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    tag = commands.add_parser("tag", help="tag a file of posts", description=tag_file.__doc__.partition("\n")[0])
    tag.add_argument("input_file", help=".jsonl, .parquet or .csv: one post a line or row")
    tag.add_argument("--model", required=True, help="folder or Hub id of a trained model")
    tag.add_argument("--output", dest="output_file", required=True, help=".jsonl or .conll; what is there is continued")
    tag.add_argument("--images", help="folder that picture names start from (default: the folder of the input)")
    tag.add_argument("--batch_size", type=int, default=32, help="posts that the model sees at once (default 32)")
    tag.add_argument("--num_proc", type=int, default=1, help="processes, each with its copy of the model (default 1)")
    tag.add_argument("--device", help="cpu, cuda:1, … (default: the GPUs in turn, else the CPU)")
    tag.add_argument(
        "--detector", help="zero-shot detector that finds the objects (default: the picture is the object)"
    )
    tag.add_argument("--min_score", type=float, default=0.5, help="least score of the detector's objects (default 0.5)")
    tag.add_argument("--text_column", default="text", help="column of the texts (default text)")
    tag.add_argument("--image_column", default="image", help="column of picture names or addresses (default image)")
    tag.add_argument("--id_column", default="id", help="column of the ids (default id; none: the number of the post)")
    tag.add_argument("--trust_remote_code", action="store_true", help="run the code in the model's folder")
    tag.add_argument("--overwrite", action="store_true", help="start anew instead of continuing")
    options = vars(parser.parse_args(arguments))
    try:
        print(f"{options['output_file']}: {tag_file(**options)}")
    except KeyboardInterrupt:
        print("\nStopped; all finished posts are saved. The same command goes on from there.", file=sys.stderr)
        return 130
    except (PostFileError, TaggingError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
