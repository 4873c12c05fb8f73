"""What lies on disk: schema, blocks, frames, index, provenance, statistics.

Knows neither TensorFlow nor Dask.
"""
