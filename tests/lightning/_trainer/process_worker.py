r"""One process of a run over several, started by `test_distributed`.

python -m tests.lightning._trainer.process_worker \\
    RANK COUNT PORT FOLDER STEPS [CHECKPOINT]
"""

import os
import sys
import warnings

os.environ["XLA_FLAGS"] = ""  # one device for each process

import jax
import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger

import jaxprob
from jaxprob.lightning import JaxStrategy, SaveOnSignal


def main(rank, count, port, heartbeat, folder, steps, checkpoint=None):
    rank, count, steps, heartbeat = map(int, (rank, count, steps, heartbeat))
    if count > 1:
        jaxprob.join_processes(f"localhost:{port}", count, rank, heartbeat=heartbeat)
    warnings.simplefilter("ignore")
    from ..scene import make_data, make_module

    module = make_module(8, layout=jaxprob.Layout(data=jax.device_count()))
    data = make_data()
    trainer = pl.Trainer(
        strategy=JaxStrategy(),
        default_root_dir=folder,
        logger=CSVLogger(folder, name="log", version=0),
        log_every_n_steps=1,
        callbacks=[
            ModelCheckpoint(folder, save_last=True, every_n_train_steps=20),
            SaveOnSignal(folder),
        ],
        max_steps=steps,
    )
    trainer.fit(module, data, ckpt_path=checkpoint)
    print("done", trainer.global_step, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
