"""The Keras callback that stores a training and its place in the stream, and goes on from there."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from tfstream import storage
from tfstream.cursor import Cursor
from tfstream.errors import ResumeError, UsageError
from tfstream.pipeline.position import StreamCallback
from tfstream.pipeline.training_state import TrainingState, Variable

if TYPE_CHECKING:
    from tfstream.pipeline.stream import Stream

NAME = "latest.checkpoint"
_MODEL, _OPTIMIZER, _METRICS = "model", "optimizer", "metrics"

_logger = logging.getLogger(__name__)


class CheckpointCallback(StreamCallback):
    """Stores a training as it goes, and lets the same script go on after its last checkpoint.

    One file holds weights, states of seed generators, the optimizer, the metrics of the epoch at
    hand and the cursor. It is replaced in one step, so that a crash at any time leaves a whole one.
    A `fit` that finds one begins there: with the rest of the epoch, and with as many epochs
    altogether as it asks for. To begin anew, remove the folder.

    Put it last in the list, so that it stores what the others changed at the end of an epoch.
    What other callbacks, Python or operations without a seed hold is not stored.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        stream: Stream,
        *,
        every_steps: int | None = None,
    ) -> None:
        """Nothing is read or written before `fit`.

        Args:
            folder: of the checkpoint; made if need be.
            stream: what the model is trained on.
            every_steps: steps after which a checkpoint is made, at least 1, besides the end of each
                epoch; by default only there. With several steps an execution, at the end of one.

        Raises:
            UsageError: if `every_steps` is less than 1.
        """
        super().__init__(stream)
        if every_steps is not None and every_steps < 1:
            raise UsageError(f"every_steps must be at least 1, got {every_steps}")
        self._path = storage.local_path(folder) / NAME
        self._every_steps = every_steps
        self._stored: int | None = None
        self._restored_iterations: int | None = None
        self._metrics: Sequence[Variable] = ()

    @property
    def async_safe(self) -> bool:
        """As `StreamCallback` says; a checkpoint may be in the middle of an epoch."""
        return super().async_safe and not self._path.exists()

    @property
    def cursor(self) -> Cursor | None:
        """The step that comes after the checkpoint that is there; None if there is none.

        Raises:
            CorruptionError: if it is damaged.
        """
        return TrainingState.read(self._path).cursor if self._path.exists() else None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Restore the checkpoint, if there is one.

        Raises:
            CorruptionError: if it is damaged.
            ResumeError: if it belongs to another stream or model, with what differs.
            UsageError: if the model has no variables yet.
        """
        super().on_train_begin(logs)
        self._metrics, self._restored_iterations, self._stored = (), None, None
        for draft in self._path.parent.glob(f".{NAME}.*.draft"):
            draft.unlink()  # of an attempt that was killed while it wrote
        if self._path.exists():
            self._restore(TrainingState.read(self._path))

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Go on with the metrics of the epoch, which Keras has just reset."""
        super().on_epoch_begin(epoch, logs)
        restored, self._restored_iterations = self._restored_iterations, None
        if restored is not None and restored != _iterations(self.model):
            raise ResumeError(
                f"another callback has replaced the weights that {self._path} restored; leave "
                "BackupAndRestore out"
            )
        metrics, self._metrics = self._metrics, ()
        if metrics:
            self._build_metrics()
            if _differing(metrics, self.model.metrics_variables) is None:
                _assign(metrics, self.model.metrics_variables)
            else:
                _logger.warning("the metrics of epoch %d begin anew: they are others now", epoch)
        if self._stored is None:
            self._stored = self._position.consumed

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Make a checkpoint if it is time to. Nobody has asked for this batch yet."""
        super().on_train_batch_begin(batch, logs)
        if self._every_steps is None or self._stored is None or self._position.is_at_epoch_end:
            return
        if batch and self._position.consumed - self._stored >= self._every_steps:
            self._store(self.model.metrics_variables)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Make a checkpoint."""
        super().on_epoch_end(epoch, logs)
        # Its metrics may be those of a validation by now, and the next epoch begins with new ones.
        self._store(())

    def _store(self, metrics: Sequence[Any]) -> None:
        self._position.settle()
        model, step = self.model, self._position.consumed
        optimizer = () if model.optimizer is None else model.optimizer.variables
        parts = {_MODEL: model.variables, _OPTIMIZER: optimizer, _METRICS: metrics}
        state = TrainingState(
            cursor=self._stream.cursor(step),
            parts={name: _values(variables) for name, variables in parts.items()},
        )
        state.write(self._path)
        self._stored = step

    def _restore(self, state: TrainingState) -> None:
        try:
            step = self._stream.step_of(state.cursor)
        except ResumeError as error:
            raise ResumeError(f"{error}. Where: {self._path}") from error
        model = self.model
        if not model.built:
            raise UsageError(
                f"{self._path} cannot be restored into a model that has no variables yet; "
                "call the model on a batch before fit"
            )
        if model.optimizer is not None and not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        optimizer = () if model.optimizer is None else model.optimizer.variables
        for name, variables in ((_MODEL, model.variables), (_OPTIMIZER, optimizer)):
            stored = state.parts.get(name, ())
            if difference := _differing(stored, variables):
                raise ResumeError(
                    f"{self._path} belongs to another {name}: {difference}; make it as it was, or "
                    "remove the folder to begin anew"
                )
            _assign(stored, variables)
        self._metrics, self._stored = state.parts.get(_METRICS, ()), step
        self._restored_iterations = _iterations(model)
        self._position.resume(step, self)

    def _build_metrics(self) -> None:
        """Make the variables of the metrics, which Keras does with the first batch."""
        batch = self._stream.dataset().element_spec
        if all(isinstance(spec, tf.TensorSpec) for spec in tf.nest.flatten(batch)):
            self.model._symbolic_build(data_batch=batch)  # noqa: SLF001 - as Keras does under a strategy


def _iterations(model: Any) -> int | None:  # noqa: ANN401 - a Keras model
    optimizer = model.optimizer
    return None if optimizer is None else int(optimizer.iterations)


def _values(variables: Sequence[Any]) -> list[Variable]:
    return [
        Variable(path=item.path, value=keras.ops.convert_to_numpy(item.value)) for item in variables
    ]


def _assign(stored: Sequence[Variable], variables: Sequence[Any]) -> None:
    for item, variable in zip(stored, variables, strict=True):
        variable.assign(item.value)


def _differing(stored: Sequence[Variable], variables: Sequence[Any]) -> str | None:
    """The first thing in which the variables are not those that were stored; paths do not count."""
    if len(stored) != len(variables):
        return f"it has {len(stored)} variables there and {len(variables)} here"
    for item, variable in zip(stored, variables, strict=True):
        there = f"{item.path} {item.value.dtype.name}{list(item.value.shape)}"
        here = f"{keras.backend.standardize_dtype(variable.dtype)}{list(variable.shape)}"
        if not there.endswith(f" {here}"):
            return f"{there} there and {variable.path} {here} here"
    return None
