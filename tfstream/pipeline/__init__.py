"""Shards → tf.data.Dataset. Knows nothing of Dask; TensorFlow loads when a dataset is made."""
