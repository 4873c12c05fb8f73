"""Sizes with which every benchmark is tested."""

from benchmarks.workload import Workload

SMALL = Workload(
    rows=2_000,
    batch=128,
    files=(200,),
    examples=500,
    buffer=500,
    window=512,
    floor_s=0,
    bound_s=20,
    ray_rows=100,
    scale_rows=(100,),
    limit_bytes=2**31,
    large_bytes=2**20,
)
"""A few seconds for any contender; what it measures means nothing."""
