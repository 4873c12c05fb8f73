"""Several modules, or TensorFlow, together."""
