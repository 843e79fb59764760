"""A step of training every system with parameters that two processes share (FSDP): run by test_training.py."""

import copy
import sys

import torch
from systems_under_test import SYSTEMS, make_batch, make_model
from torch import distributed
from torch.distributed.fsdp import fully_shard


def main() -> None:
    distributed.init_process_group("gloo")
    for name in SYSTEMS:
        whole = make_model(name)
        sharded = copy.deepcopy(whole)
        for layer in sharded.base_model.text_model.encoder.layer:
            fully_shard(layer)
        fully_shard(sharded)
        batch = make_batch(name)
        losses = []
        for model in (whole, sharded):
            model.train()
            torch.manual_seed(0)
            loss = model(**batch).loss
            loss.backward()
            losses.append(loss.detach())
        torch.testing.assert_close(losses[1], losses[0])
        expected = dict(whole.named_parameters())
        for parameter, own in sharded.named_parameters():
            assert own.to_local().shape[0] < own.shape[0] or own.shape[0] < 2, parameter  # each process has some rows
            gradient = expected[parameter].grad
            if gradient is not None:
                torch.testing.assert_close(
                    own.grad.full_tensor(), gradient, msg=lambda text, p=parameter: f"{p}: {text}"
                )
        if distributed.get_rank() == 0:
            print(name, flush=True)
    distributed.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main())
