"""From a step back to its rows, from a row on to its steps. TensorFlow only in `callback`."""
