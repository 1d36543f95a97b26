"""The fault campaign: kill, signal, fill, flip, forge; count what was lost.

    python -m benchmarks.faults                           # everything, about half an hour
    python -m benchmarks.faults --part kills --runs 200   # one part
    python -m benchmarks.faults --quick                   # a tenth of the faults

| part | fault | what must hold |
|---|---|---|
| `kills` | SIGKILL while one file of 40 MB is overwritten, TMPDIR on another file system | the file is readable and as new as the last acknowledged save |
| `training` | SIGKILL of a training, resumed until it is done | the bits of the uninterrupted run; progress never goes back |
| `signals` | SIGTERM, SIGINT, SIGUSR1 in training, validation, sampling | saved within one dispatch; exit code 143, 130, 75; the resumed run has the same bits |
| `interrupts` | SIGINT, SIGTERM, SIGUSR1 at random instants of `fit` and of a Trainer, small and large networks | the state can be read, a checkpoint is written, the handler's own exception is raised, the resumed run has the same bits |
| `errors` | `error_if`, a host callback, no memory, in a random step of `fit` and of a Trainer | the same; the state is that before the step |
| `disks` | full disks, folders without permission | a typed error that names the path; the old file stands |
| `mutants` | truncations, flipped bits, swapped leaves, other architectures, other dtypes | each is detected by a typed error |
| `hostile` | files made to run code or to claim memory | no code runs; at most twice the file's size is allocated |

Where Lightning has a counterpart it stands beside ours. Children are forked from a
process that has imported everything and started nothing, so a kill costs no import.
"""  # noqa: E501
