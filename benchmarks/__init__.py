"""tfstream beside its peers: the same rows, the same batch size, in turn, in one command.

    python -m benchmarks                 every job on 4 M rows
    python -m benchmarks --small         a few thousand rows; only delivery is asserted

    __main__.py          argv in, exit code out
    workload.py          what is run: sizes, a task for a child process
    data.py              the rows, as functions of their ids, and the source files
    delivery.py          the proof that the rows came, and the quality of their shuffle
    contenders.py        who takes part
    tfstream_cases.py    tfstream
    sequences.py         one file per observation
    grouped.py           the grouped Dask Sequence
    textbook.py          one tf.train.Example per row
    limit.py             numpy from a memory map
    clock.py             steady rows/s, and rows/s over whole epochs
    reading.py           job read            (in a child)
    fitting.py           jobs fit, callback  (in a child)
    many_groups.py       job groups  (in a child)
    converting.py        job convert         (in a child)
    jobs.py              who takes part in which job, and what a child does
    runner.py            child processes and their memory
    report.py            tables and JSON lines

The parent imports neither TensorFlow nor tfstream; every measurement has a process of its own.
"""
