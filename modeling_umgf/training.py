"""Training arguments and the Trainer that every model of this package uses."""

import json
import math
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from safetensors import SafetensorError
from torch.utils.data import DataLoader, Sampler
from tqdm import tqdm
from transformers import (
    EarlyStoppingCallback,
    EvalPrediction,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_utils import (
    PREFIX_CHECKPOINT_DIR,
    EvalLoopOutput,
    IntervalStrategy,
    TrainOutput,
    rotate_checkpoints,
)
from transformers.utils import logging

from .checkpoints import checkpoint_to_resume, list_files, what_is_torn
from .data_collator import MultimodalNerCollator
from .decoding import decode_windows, window_batches
from .evaluation import evaluate_tags
from .files import FullDisk, is_full_disk, remove, told_of_a_full_disk, write_whole
from .kept_features import KeptFeatures, can_be_kept
from .labels import entity_types
from .model_card import TrainingTime, describe_run, write_model_card
from .pictures import undecoded
from .processing_multimodal_ner import MultimodalNerProcessor

logger = logging.get_logger(__name__)

LEARNING_RATES = ("learning_rate", "text_learning_rate", "vision_learning_rate", "crf_learning_rate")
PRINTED = ("loss", "learning_rate", "epoch", "eval_loss", "eval_f1", "eval_strict_f1", "train_loss", "train_runtime")
MOST_WORKERS = 8
AT_LEAST = {
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "early_stopping_patience": 0,
    "dataloader_num_workers": 0,
}
ORDERS = ("random", "sequential", "group_by_length")

COMPILE_MODES = ("default", "lite", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")


@dataclass
class MultimodalNerTrainingArguments(TrainingArguments):
    """TrainingArguments of transformers with a learning rate for each part of the model, and defaults to suit."""

    learning_rate: float = field(default=5e-4, metadata={"help": "Learning rate of the new layers."})
    text_learning_rate: float = field(default=1e-4, metadata={"help": "Learning rate of the text encoder."})
    vision_learning_rate: float = field(default=1e-5, metadata={"help": "Learning rate of the image encoder."})
    crf_learning_rate: float = field(default=1e-2, metadata={"help": "Learning rate of the CRF's transitions."})
    early_stopping_patience: int = field(
        default=5, metadata={"help": "Stop after this many epochs without a better validation F1; 0 = never."}
    )
    num_train_epochs: float = field(default=30, metadata={"help": "Epochs, unless early stopping ends them before."})
    per_device_train_batch_size: int = field(default=16, metadata={"help": "Posts in a batch, for each device."})
    per_device_eval_batch_size: int = field(default=64, metadata={"help": "Posts in an evaluation batch."})
    weight_decay: float = field(default=0.01, metadata={"help": "Weight decay (not of biases and norms)."})
    warmup_steps: float = field(default=0.1, metadata={"help": "Steps of warm-up; below 1 a share of all steps."})
    eval_strategy: str = field(default="epoch", metadata={"help": "When to evaluate: no, steps or epoch."})
    save_strategy: str = field(default="epoch", metadata={"help": "When to save: no, steps, epoch or best."})
    save_total_limit: int | None = field(default=1, metadata={"help": "Checkpoints to keep, besides the best."})
    logging_strategy: str = field(default="epoch", metadata={"help": "When to log the loss: no, steps or epoch."})
    load_best_model_at_end: bool = field(default=True, metadata={"help": "End with the best checkpoint, not the last."})
    metric_for_best_model: str | None = field(default="f1", metadata={"help": "What the best checkpoint is best in."})
    train_sampling_strategy: str = field(
        default="group_by_length", metadata={"help": "random, sequential, or group_by_length (less padding)."}
    )
    dataloader_num_workers: int | None = field(
        default=None,
        metadata={
            "help": "Processes that open pictures and make batches; default: where pictures are opened for a GPU, one "
            "for each core, 8 at most, which live as long as the training; else none."
        },
    )
    dataloader_pin_memory: bool = field(
        default_factory=torch.cuda.is_available, metadata={"help": "Pin the batches in memory, for a GPU."}
    )
    remove_unused_columns: bool = field(default=False, metadata={"help": "Keep False: the collator reads the columns."})
    fgm: float = field(default=0.0, metadata={"help": "Length of the adversarial step of embeddings."})
    ema_decay: float = field(default=0.0, metadata={"help": "Of the moving average of weights."})
    hub_strategy: str = field(default="end", metadata={"help": "What --push_to_hub uploads, and when: end = once."})

    def __post_init__(self):
        for name in LEARNING_RATES:
            rate = getattr(self, name)
            if not 0 <= rate < math.inf:
                raise ValueError(f"--{name} {rate}: a learning rate is a number, at least 0.")
        for name, least in AT_LEAST.items():
            if (getattr(self, name) or 0) < least:
                raise ValueError(f"--{name} {getattr(self, name)}: a whole number, at least {least}.")
        if not 0 <= (self.neftune_noise_alpha or 0) < math.inf:
            raise ValueError(f"--neftune_noise_alpha {self.neftune_noise_alpha}: a number, at least 0.")
        if self.train_sampling_strategy not in ORDERS:
            raise ValueError(f"--train_sampling_strategy {self.train_sampling_strategy}: one of {', '.join(ORDERS)}.")
        if self.output_dir and Path(self.output_dir).is_file():
            raise ValueError(f"--output_dir {self.output_dir}: this is a file; name a folder.")
        if self.num_train_epochs <= 0 and self.max_steps <= 0:
            raise ValueError(f"--num_train_epochs {self.num_train_epochs:g}: a number above 0.")
        if isinstance(self.lr_scheduler_kwargs, str) and not self.lr_scheduler_kwargs.lstrip().startswith("{"):
            raise ValueError(f"--lr_scheduler_kwargs {self.lr_scheduler_kwargs!r}: give a mapping in JSON.")
        if self.label_names not in (None, [], ["labels"]):
            raise ValueError("--label_names: the labels are called labels; leave it out.")
        if self.torch_compile_mode not in (None, *COMPILE_MODES):
            raise ValueError(
                f"--torch_compile_mode {self.torch_compile_mode!r}: give one of {', '.join(COMPILE_MODES)}."
            )
        self.do_all = not (self.do_train or self.do_eval or self.do_predict)
        """Nothing was chosen: train, evaluate and predict as far as the data go."""
        if self.do_all:
            self.do_train = self.do_eval = self.do_predict = True
        if not self.do_train:  # nothing to evaluate in between, which would switch do_eval on
            self.evaluate_only()
        if self.data_seed is None:
            self.data_seed = self.seed  # the order of the posts is the same in all processes
        self.chooses_workers = self.dataloader_num_workers is None
        """Nobody said how many processes open pictures: the Trainer knows whether there are any."""
        self.dataloader_num_workers = self.dataloader_num_workers or 0
        self.use_cpu = self.use_cpu or not torch.accelerator.is_available()  # else bf16 is refused there
        super().__post_init__()

    def evaluate_only(self) -> None:
        """Leave out training, and what would happen in between."""
        self.do_train = False
        self.eval_strategy = IntervalStrategy.NO
        self.load_best_model_at_end = False


class LengthGroups(Sampler):
    """Posts of like length together, in an order that depends on seed and epoch alone: the same in every process.

    The order is that of transformers' sampler: of the shuffled posts, so many batches at a time are sorted, and the
    longest post of all comes first.

    Args:
        lengths: of the posts.
        batch_size: posts in a batch of all processes.
        seed: decides the order, with the epoch.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int):
        self.lengths = np.asarray(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(len(self.lengths), generator=generator).numpy()
        size = self.batch_size * max(1, min(len(order) // (self.batch_size * 4), 50))
        firsts = range(0, len(order), size)
        for first in firsts:
            own = order[first : first + size]
            order[first : first + size] = own[np.argsort(-self.lengths[own], kind="stable")]
        longest = max(firsts, key=lambda first: self.lengths[order[first]])
        order[[0, longest]] = order[[longest, 0]]
        return map(int, order)


class InOrder(Sampler):
    """Posts in a given order.

    Args:
        order: their numbers.
    """

    def __init__(self, order: np.ndarray):
        self.order = order

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[int]:
        return map(int, self.order)


class EarlyStopping(EarlyStoppingCallback):
    """Early stopping that counts on where the checkpoint was: a resumed run stops where one without a break does."""

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        """Take up the count; where it is complete, there is nothing left to train."""
        super().on_train_begin(args, state, control, **kwargs)
        kept = state.stateful_callbacks.get(type(self).__name__) if state.global_step else None
        self.early_stopping_patience_counter = kept["attributes"]["early_stopping_patience_counter"] if kept else 0
        if self.early_stopping_patience_counter >= self.early_stopping_patience:
            control.should_training_stop = True


class Continuation(TrainerCallback):
    """Lets a resumed run end as one without a break: with the best of all checkpoints and the loss of all steps.

    Args:
        trainer: whose run this is.
    """

    name = "MultimodalNerTrainer"

    def __init__(self, trainer: "MultimodalNerTrainer"):
        self.trainer = trainer

    def keep(self) -> None:
        """Put the sum of the losses into the state that the next checkpoint keeps."""
        losses = {
            "logged": self.trainer._total_loss_scalar,
            "since": self.trainer._tr_loss.item(),
            "last_logged": self.trainer._globalstep_last_logged,
        }
        self.trainer.state.stateful_callbacks[self.name] = {"args": {}, "attributes": losses}

    def on_train_begin(self, args, state, control, **_) -> None:
        """Take up the sum of the losses; look for the best checkpoint.

        Raises:
            OSError: the run shall end with its best checkpoint, which is not whole.
        """
        kept = state.stateful_callbacks.get(self.name) if state.global_step else None
        if kept:
            self.trainer._total_loss_scalar = kept["attributes"]["logged"]
            self.trainer._tr_loss += kept["attributes"]["since"]
            self.trainer._globalstep_last_logged = kept["attributes"]["last_logged"]
            self.trainer._initial_global_step = 0  # the mean is over all steps
        if args.load_best_model_at_end and state.global_step and state.best_global_step:
            moved = Path(args.output_dir, f"{PREFIX_CHECKPOINT_DIR}-{state.best_global_step}")
            best = state.best_model_checkpoint or str(moved)  # None where the folder of the run was moved
            if fault := what_is_torn(best):
                raise OSError(
                    f"{best}, the best checkpoint until here, is not whole ({fault}), so that the run could not end "
                    "with it. Train anew in another --output_dir, or give --load_best_model_at_end False."
                )
            state.best_model_checkpoint = best


class WeightAverage(TrainerCallback):
    """Ends the training with the exponential moving average of the weights of all steps."""

    def on_step_end(self, args, state, control, model=None, **_):
        decay = min(args.ema_decay, (1 + state.global_step) / (10 + state.global_step))
        if not hasattr(self, "average"):
            self.average = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
        with torch.no_grad():
            for name, p in model.named_parameters():
                if name in self.average:
                    self.average[name].lerp_(p, 1 - decay)

    def on_train_end(self, args, state, control, model=None, **_):
        with torch.no_grad():
            for name, p in model.named_parameters():
                if name in self.average:
                    p.copy_(self.average[name])


class ShortLog:
    """Lets a callback print of what is logged only what a reader follows while a model trains: `PRINTED`."""

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        """Print a line."""
        printed = {name: value for name, value in (logs or {}).items() if name in PRINTED}
        super().on_log(args, state, control, logs=printed, **kwargs)


class ShortPrinter(ShortLog, PrinterCallback):
    """Prints short lines."""


class ShortProgress(ShortLog, ProgressCallback):
    """Prints short lines beside a progress bar."""


class MultimodalNerTrainer(Trainer):
    """Trainer for word tagging: several learning rates, batches by length, entity scores, best checkpoint.

    Args:
        model, args, train_dataset, eval_dataset, …: as for `Trainer`, with `MultimodalNerTrainingArguments`
            and datasets with the columns `tokens`, `ner_tags` (the model's label ids) and maybe `image`, `objects`, …
        processing_class: the processor; it makes the batches.
    """

    def __init__(self, model, args, processing_class, train_dataset=None, eval_dataset=None, callbacks=None, **kwargs):
        kwargs.setdefault("data_collator", MultimodalNerCollator(processing_class))
        own_scores = {"compute_metrics", "preprocess_logits_for_metrics"}.isdisjoint(kwargs)
        self.sorts_evaluation = own_scores and not args.batch_eval_metrics  # others may count on the posts' order
        if "compute_metrics" not in kwargs:
            kwargs["compute_metrics"] = self.entity_scores
            check_best_metric(args, model.config.label2id)
        kwargs.setdefault("preprocess_logits_for_metrics", lambda outputs, labels: outputs[1])  # Viterbi labels
        train_dataset = read_columns(train_dataset, processing_class)
        eval_dataset = read_columns(eval_dataset, processing_class)
        if train_dataset is not None:
            processing_class.remember_sources(train_dataset.column_names)
        choose_workers(args, [dataset for dataset in (train_dataset, eval_dataset) if dataset is not None])
        self.clock = TrainingTime()
        self.continuation = Continuation(self)
        callbacks = [self.clock, self.continuation, *(callbacks or [])]
        if args.early_stopping_patience and args.eval_strategy != "no" and args.load_best_model_at_end:
            callbacks.append(EarlyStopping(args.early_stopping_patience))
        if args.ema_decay:
            callbacks.append(WeightAverage())
        self.order = None  # of the training posts, where it is `LengthGroups`
        self.lengths = {}  # pieces of the posts of datasets, by their fingerprints
        super().__init__(
            model,
            args,
            processing_class=processing_class,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            callbacks=callbacks,
            **kwargs,
        )
        for plain, short in ((PrinterCallback, ShortPrinter), (ProgressCallback, ShortProgress)):
            if self.pop_callback(plain):
                self.add_callback(short)
        if args.world_size > 1:
            set_seed(args.seed + args.process_index)  # else all processes would drop the same states
        self.card_data = {}
        self.kept = KeptFeatures(
            self.model,
            processing_class,
            args.per_device_eval_batch_size,
            args.dataloader_num_workers,
            self.compute_loss_context_manager,
        )

    def training_step(self, model, inputs, *arguments):
        loss = super().training_step(model, dict(inputs), *arguments)
        if self.args.fgm:
            weight = model.base_model.text_model.get_input_embeddings().weight
            delta = self.args.fgm * weight.grad / weight.grad.norm().clamp(min=1e-12)
            weight.data.add_(delta)
            super().training_step(model, dict(inputs), *arguments)
            weight.data.sub_(delta)
        return loss

    def entity_scores(self, evaluation: EvalPrediction) -> dict[str, float]:
        """Score predicted label ids [B, w] against gold ones, -100 = padding; words that were cut off count as O."""
        gold, predicted = self._tags(evaluation.predictions, evaluation.label_ids)
        if unread := int(((evaluation.label_ids != -100) & (evaluation.predictions == -100)).sum()):
            logger.warning(f"{unread} words of long posts are not read here and count as O; final scores read them.")
        return evaluate_tags(gold, predicted)

    def predict_tags(self, dataset: Dataset) -> tuple[list[list[str]], list[list[str]]]:
        """Return the gold and the predicted tags of each post, in the dataset's order; long posts in windows."""
        dataset = read_columns(dataset, self.processing_class)
        output = self.predict(dataset)
        gold, predicted = self._tags(output.predictions, output.label_ids)
        cut_off = ((output.label_ids != -100) & (output.predictions == -100)).any(1).nonzero()[0].tolist()
        for i in cut_off:
            predicted[i] = self._tags_by_windows(dataset[i])
        if cut_off:
            logger.warning(f"{len(cut_off)} of {len(dataset)} posts are long and were read in overlapping windows.")
        return gold, predicted

    @torch.no_grad()
    def _tags_by_windows(self, row: dict) -> list[str]:
        """Tags of a post that is longer than the text encoder reads."""
        options = self.processing_class.sort_options({})
        options["text_kwargs"]["truncation"] = "window"
        post = self.processing_class.prepare([row], options)[0]
        with self.compute_loss_context_manager():
            windows = window_batches(self.model, self.processing_class, post)
            return decode_windows(self.model.eval(), windows).word_labels()[0]

    def _tags(self, predictions: np.ndarray, label_ids: np.ndarray) -> tuple[list[list[str]], list[list[str]]]:
        names = self.model.config.id2label
        gold = []
        predicted = []
        for row, label_row in zip(predictions, label_ids, strict=True):
            words = label_row != -100
            gold.append([names[label] for label in label_row[words].tolist()])
            # a word beyond the text encoder's limit has no prediction: it counts as O
            predicted.append([names.get(label, "O") for label in row[words].tolist()])
        return gold, predicted

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs) -> TrainOutput:
        """Train.

        Args:
            resume_from_checkpoint: a checkpoint to go on from; True = the last whole one in the output folder, if there
                is one.
            kwargs: as for `Trainer`.

        Returns:
            As `Trainer`, of all legs together.

        Raises:
            ValueError: the checkpoint is not there, or not whole.
            OSError: a checkpoint could not be written, or the best one is not whole.
        """
        checkpoint = checkpoint_to_resume(resume_from_checkpoint, self.args.output_dir)
        output = super().train(checkpoint, **kwargs)
        runtime = round(self.clock.seconds, 4)
        of_all_legs = {"train_runtime": runtime}
        for name in ("train_samples_per_second", "train_steps_per_second"):
            steps = output.metrics[name] * output.metrics["train_runtime"]
            of_all_legs[name] = round(steps / max(runtime, 1e-4), 3)
        output.metrics.update(of_all_legs)
        for entry in self.state.log_history:
            if "train_runtime" in entry:
                entry.update(of_all_legs)
        return output

    def compute_loss(self, model, inputs, *args, **kwargs):
        """The loss; one that is a sum over posts is a sum over those of all processes and accumulated batches too."""
        inputs, weight = self._without_fillers(inputs)
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        if self.model.training and not torch.isfinite(loss[0] if isinstance(loss, tuple) else loss):
            raise FloatingPointError(f"The loss of step {self.state.global_step + 1} is {self._why_not_finite(inputs)}")
        if self.model.training and self.model.config.crf_reduction == "sum":  # what follows takes means of them
            weight = (weight > 0) * self.args.world_size * self.current_gradient_accumulation_steps
        return loss if weight == 1 else loss * weight

    def _without_fillers(self, inputs: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], float]:
        """Leave out the posts that only fill up the last batch of an epoch, so that all processes have one.

        Returns:
            The inputs, at least one post of them; what the mean loss of this process is worth in that of all.
        """
        state = self.accelerator.gradient_state
        loading = self.accelerator.dataloader_config
        dealt_in_turn = loading.even_batches and not (loading.split_batches or loading.dispatch_batches)
        last = state.end_of_dataloader and state.sync_gradients and state.remainder > 0
        if not (self.model.training and self.args.world_size > 1 and dealt_in_turn and last):
            return inputs, 1.0
        size = self.args.train_batch_size
        own = min(max(state.remainder - self.args.process_index * size, 0), size)
        inputs = {name: rows[: max(own, 1)] for name, rows in inputs.items()}
        return inputs, own * self.args.world_size / state.remainder

    def _why_not_finite(self, inputs: Mapping[str, torch.Tensor]) -> str:
        for name, tensor in inputs.items():
            if tensor.is_floating_point() and not tensor.isfinite().all():
                post = int((~tensor.isfinite()).flatten(1).any(1).nonzero()[0])
                return f"no number, as the {name} of its post {post} (from 0) hold NaN or infinity: repair the data."
        broken = [name for name, parameter in self.model.named_parameters() if not parameter.isfinite().all()]
        what = f"; {broken[0]} holds NaN or infinity" if broken else ""
        return (
            f"no number: training has diverged{what}. Begin again with lower learning rates, a smaller "
            "--max_grad_norm, or --bf16 instead of --fp16."
        )

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        """AdamW with a learning rate for the text encoder, the image encoder, the CRF and everything else."""
        if self.optimizer is None:
            model = self.model if model is None else model
            rates = {
                "text_model": self.args.text_learning_rate,
                "vision_model": self.args.vision_learning_rate,
                "label_decoder": self.args.crf_learning_rate,
            }
            decay = set(self.get_decay_parameter_names(model))
            groups = defaultdict(list)
            for name, parameter in model.named_parameters():
                if parameter.requires_grad:
                    rate = next((rates[part] for part in name.split(".") if part in rates), self.args.learning_rate)
                    groups[rate, self.args.weight_decay if name in decay else 0.0].append(parameter)
            optimizer_class, settings = self.get_optimizer_cls_and_kwargs(self.args, model)
            self.optimizer = optimizer_class(
                [{"params": group, "lr": lr, "weight_decay": wd} for (lr, wd), group in groups.items()], **settings
            )
        return self.optimizer

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save model, processor and card.

        Raises:
            OSError: the disk is full.
        """
        with told_of_a_full_disk(output_dir or self.args.output_dir):
            super().save_model(output_dir, _internal_call)
            if not _internal_call:
                self.create_model_card()

    def save_metrics(self, split: str, metrics: dict[str, float], combined: bool = True) -> None:
        """Write the scores of a split into `{split}_results.json`, with those of the others into `all_results.json`."""
        if not self.is_world_process_zero():
            return
        together = Path(self.args.output_dir, "all_results.json")
        files = {Path(self.args.output_dir, f"{split}_results.json"): metrics}
        if combined:
            files[together] = json.loads(together.read_text(encoding="utf-8")) if together.exists() else {}
            files[together] |= metrics
        for path, scores in files.items():
            with write_whole(path) as unfinished:
                unfinished.write_text(json.dumps(scores, indent=4, sort_keys=True), encoding="utf-8")

    def _save_checkpoint(self, model, trial) -> None:
        run = self._get_output_dir(trial)
        folder = Path(run, f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}")
        limit = self.args.save_total_limit
        self.continuation.keep()
        try:
            if self.args.should_save:
                remove(folder)  # torn, or of a run before
            self.accelerator.wait_for_everyone()
            self.args.save_total_limit = None  # until this one is whole, the others stay
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()  # every process writes its own random states
            if self.args.should_save:
                list_files(folder)
        except (OSError, RuntimeError, SafetensorError) as error:
            remove(folder)
            full = is_full_disk(error)
            reason = "the disk is full or failing" if full else " ".join(str(error).split())
            raise (FullDisk if full else OSError)(
                f"The checkpoint {folder} could not be written ({reason}). Those before it are whole: make room, and "
                "go on with --resume_from_checkpoint True."
            ) from error
        finally:
            self.args.save_total_limit = limit
        if self.args.should_save:
            rotate_checkpoints(run, limit, self.state.best_model_checkpoint, use_mtime=True)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        super()._save(output_dir, state_dict)
        # a pickle, which nothing reads; the card holds the settings
        Path(output_dir or self.args.output_dir, TRAINING_ARGS_NAME).unlink(missing_ok=True)

    def create_model_card(self, dataset=None, label_version=None, splits=None, license=None, **_) -> None:
        """Write the model's card, README.md, and the facts behind it, run.json.

        Args:
            dataset, label_version, splits: as for `describe_run`; what is given once is kept for the next call.
            license: identifier of the license of the weights, such as "mit"; kept as well.
        """
        given = {"dataset": dataset, "label_version": label_version, "splits": splits, "license": license}
        self.card_data |= {name: value for name, value in given.items() if value is not None}
        if self.is_world_process_zero():
            write_model_card(self.args.output_dir, describe_run(self, **self.card_data), model=self.hub_model_id or ".")

    def _get_dataloader(self, dataset: Dataset, *args, **kwargs) -> DataLoader:
        own_collator = isinstance(self.data_collator, MultimodalNerCollator)
        whole = not (self.is_fsdp_enabled or self.is_deepspeed_enabled)  # the weights are all here
        if own_collator and whole and can_be_kept(self.model, self.processing_class, dataset):
            self.kept.model = self.model
            dataset = self.kept.add_to(dataset)
        return super()._get_dataloader(dataset, *args, **kwargs)

    def get_eval_dataloader(self, eval_dataset: str | Dataset | None = None) -> DataLoader:
        """As `Trainer`; posts that are given are read, also where workers stay alive with others."""
        if isinstance(eval_dataset, Dataset):
            self.__dict__.pop("_eval_dataloaders", None)
        return super().get_eval_dataloader(eval_dataset)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        # Trainer's own groups by the batch of one process, and in an order that each process draws for itself.
        dataset = self.train_dataset if train_dataset is None else train_dataset
        if dataset is None or self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(train_dataset)
        posts = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        self.order = LengthGroups(self._lengths(dataset), posts, self.args.data_seed)
        return self.order

    def _run_epoch(self, *args, epoch: int, **kwargs):
        if self.control.should_training_stop:  # the run that is resumed had come to its end
            return None
        if self.order is not None:
            self.order.epoch = epoch
        return super()._run_epoch(*args, epoch=epoch, **kwargs)

    def _get_eval_sampler(self, eval_dataset: Dataset) -> Sampler:
        return InOrder(self._evaluation_order(eval_dataset))

    def _evaluation_order(self, dataset: Dataset) -> np.ndarray:
        if not self.sorts_evaluation:
            return np.arange(len(dataset))
        return np.argsort(-self._lengths(dataset), kind="stable")

    def evaluation_loop(self, dataloader: DataLoader, *args, **kwargs) -> EvalLoopOutput:
        """As `Trainer`; posts of like length share a batch, and the predictions come in the order of the posts."""
        output = super().evaluation_loop(dataloader, *args, **kwargs)
        if output.predictions is None or not self.sorts_evaluation:
            return output
        place = np.argsort(self._evaluation_order(dataloader.dataset))
        labels = output.label_ids if output.label_ids is None else output.label_ids[place]
        return output._replace(predictions=output.predictions[place], label_ids=labels)

    def _lengths(self, dataset: Dataset) -> np.ndarray:
        """Pieces of each post, counted once."""
        if dataset._fingerprint not in self.lengths:
            self.lengths[dataset._fingerprint] = count_pieces(dataset, self.processing_class, self.args.disable_tqdm)
        return self.lengths[dataset._fingerprint]


def count_pieces(dataset: Dataset, processor: MultimodalNerProcessor, disable_tqdm: bool = False) -> np.ndarray:
    """The number of pieces of each post, as far as they are read."""
    columns = [name for name in ("tokens", *processor.context) if name in dataset.column_names]
    posts = dataset.with_format(None).select_columns(columns)
    counts = np.empty(len(dataset), np.int32)
    starts = range(0, len(dataset), 1000)
    for start in tqdm(starts, "counting pieces", unit="thousand posts", disable=disable_tqdm or len(starts) < 10):
        own = posts.select(range(start, min(start + 1000, len(posts)))).to_list()
        counts[start : start + len(own)] = processor.count_pieces(own)
    return counts


def choose_workers(arguments: MultimodalNerTrainingArguments, datasets: Sequence[Dataset]) -> None:
    """Let processes of their own open pictures, unless it was said how many do or the model needs the cores itself."""
    opens = any("image" in dataset.column_names for dataset in datasets)
    if arguments.chooses_workers and opens and not arguments.use_cpu:
        arguments.dataloader_num_workers = min(MOST_WORKERS, (os.cpu_count() or 1) // arguments.world_size)
        arguments.dataloader_persistent_workers = arguments.dataloader_num_workers > 0


def check_best_metric(args: TrainingArguments, labels: Iterable[str]) -> None:
    """Raise ValueError where the metric that decides which checkpoint is best is none that the evaluation gives."""
    wanted = args.metric_for_best_model
    if args.eval_strategy == IntervalStrategy.NO or wanted is None:
        return
    tags = [[f"B-{kind}" for kind in entity_types(labels)]]
    known = ["loss", *evaluate_tags(tags, tags)]
    if wanted.removeprefix("eval_") not in known:
        raise ValueError(f"--metric_for_best_model {wanted}: there is no such score; take one of {', '.join(known)}.")


def read_columns(dataset: Dataset | None, processor: MultimodalNerProcessor) -> Dataset | None:
    """Leave out the columns that a processor doesn't read; pictures stay as they are stored until it opens them."""
    if dataset is None:
        return None
    read = ("id", "tokens", "ner_tags", *processor.columns)
    return undecoded(dataset.select_columns([name for name in dataset.column_names if name in read]))
