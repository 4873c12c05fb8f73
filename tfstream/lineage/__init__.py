"""From a training step back to its rows, and from a row on to its steps. TensorFlow only in `callback`."""
