"""Sources → shards, by Dask. No TensorFlow."""
