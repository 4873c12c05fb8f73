"""tfstream beside its peers: the same rows, the same batch size, in turn, in one command.

    python -m benchmarks                 every job on 4 M rows, but for the large ones
    python -m benchmarks --small         a few thousand rows; only delivery is asserted
    python -m benchmarks setup ray grain install peers, each outside of this venv
    python -m benchmarks --parquet PATH --label COLUMN
                                         your own file or folder: conversion and reading
    python -m benchmarks curves          how rates change with rows, columns, batch, groups, …
    python -m benchmarks report          pictures and a table of what --save kept
    python -m benchmarks compare BASE    tfstream of another commit and of this tree, in turn
    python -m benchmarks --jobs scale    1, 4 and 16 M rows; needs 7 GB of disk
    python -m benchmarks --jobs bounded --repeats 1
                                         16 GiB, held to 2 GiB of memory; needs 55 GB of disk

    __main__.py          argv in, exit code out
    workload.py          what is run: sizes, a task for a child process
    data.py              the rows, as functions of their ids, and the source files
    mixed_rows.py        the rows of job mixed
    delivery.py          the proof that the rows came, and the quality of their shuffle
    contenders.py        who takes part
    tfstream_cases.py    tfstream
    sequences.py         one file per observation
    grouped.py           the grouped Dask Sequence
    textbook.py          one tf.train.Example per row
    saved_blocks.py      Dataset.save of blocks
    parquet_peers.py     pyarrow, Ray Data, petastorm, tensorflow-io  (in their environments)
    row_peers.py         Grain, MosaicML Streaming                    (in their environments)
    limit.py             numpy from a memory map
    file_read.py         the files of tfstream's shards, not decoded
    clock.py             steady rows/s, and rows/s over whole epochs
    reading.py           job read            (in a child)
    fitting.py           jobs fit, callback  (in a child)
    many_groups.py       job groups          (in a child)
    converting.py        jobs convert, mixed, scale, bounded  (in a child)
    examples.py          tfx-bsl and plain Python: one tf.train.Example per row
    ray_case.py          Ray Data            (in a child of its own environment)
    cases.py             the jobs below, which have figures of their own
    starting.py          job start: first batches, and the plan
    lasting.py           job epochs: memory over ten of them
    few_columns.py       job columns
    constant.py          job constant: a fit fed by one batch
    mixed_reading.py     job mixed-read
    remote_reading.py    job remote: behind s3://, cold and warm, beside plain requests
    object_store.py      the server that it asks
    own_parquet.py       job parquet
    mixing.py            job mixing: the quality of shuffles, drawn
    environments.py      the environments of peers
    jobs.py              who takes part in which job, and what a child does
    turns.py             contenders prepared and measured in turn
    curves.py            scaling curves
    runner.py            child processes and their memory
    report.py            tables and JSON lines
    saved.py             those lines that count, and the README's table
    drawing.py           pictures of them
    comparing.py         two commits in turn

The parent imports neither TensorFlow nor tfstream; every measurement has a process of its own.
"""
