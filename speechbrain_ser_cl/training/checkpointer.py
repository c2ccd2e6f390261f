"""A Checkpointer that writes checkpoints whole or not at all."""

import logging
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from speechbrain.utils.checkpoints import (
    DEFAULT_LOAD_HOOKS,
    METAFNAME,
    Checkpoint,
    Checkpointer,
    get_default_hook,
)
from speechbrain.utils.distributed import ddp_barrier, if_main_process
from torch.nn import Module
from typing_extensions import override
from yaml import YAMLError

from speechbrain_ser_cl.utils.disk import full_disk_told
from speechbrain_ser_cl.utils.errors import FileError

logger = logging.getLogger(__name__)

_UNFINISHED = "unfinished+"


class AtomicCheckpointer(Checkpointer):
    """SpeechBrain's Checkpointer, made safe against kills during a save.

    A checkpoint is written into a folder with a temporary name, which is renamed when
    it is complete. The next save deletes unfinished folders. Arguments are those of
    ``speechbrain.utils.checkpoints.Checkpointer``.

    Example
    -------
    >>> import tempfile, torch
    >>> layer = torch.nn.Linear(1, 1)
    >>> checkpointer = AtomicCheckpointer(tempfile.mkdtemp(), {"layer": layer})
    >>> saved = checkpointer.save_checkpoint(meta={"uar": 0.5})
    >>> saved.path.name.startswith("CKPT"), saved.paramfiles["layer"].exists()
    (True, True)
    >>> checkpointer.recover_if_possible().meta["uar"]
    0.5
    """

    @override
    def save_checkpoint(
        self,
        meta: Mapping[str, Any] | None = None,
        end_of_epoch: bool = True,
        name: str | None = None,
        verbosity: int = logging.INFO,
    ) -> Checkpoint | None:
        """Saves all recoverables; a folder is visible only when it is complete."""
        if if_main_process():
            for leftover in self.checkpoints_dir.glob(f"{_UNFINISHED}*"):
                shutil.rmtree(leftover)
        # The newest checkpoint is found by its time, but the clock may be set back.
        saves = [one.meta["unixtime"] for one in self.list_checkpoints()]
        now = {"unixtime": max([time.time(), *(save + 1e-3 for save in saves)])}
        with full_disk_told(self.checkpoints_dir, self.size()):
            saved = super().save_checkpoint(
                now | dict(meta or {}), end_of_epoch, name, logging.DEBUG
            )
        if saved is not None:
            final = saved.path.with_name(saved.path.name.removeprefix(_UNFINISHED))
            if final.exists():  # an older checkpoint with this name
                shutil.rmtree(final)
            saved.path.rename(final)
            files = {key: final / path.name for key, path in saved.paramfiles.items()}
            saved = Checkpoint(final, saved.meta, files)
            logger.log(verbosity, "Saved a checkpoint in %s", final)
        ddp_barrier()
        return saved

    def size(self) -> float:
        """Estimates the bytes of a checkpoint: weights, and two moments for each."""
        modules = [m for m in self.recoverables.values() if isinstance(m, Module)]
        weights = {id(p): p for module in modules for p in module.parameters()}
        return sum(
            p.numel() * p.element_size() * (3 if p.requires_grad else 1)
            for p in weights.values()
        )

    def save_and_keep_only(
        self,
        *args: Any,
        importance_keys: Sequence[Callable[..., Any]] = (),
        **kwargs: Any,
    ) -> None:
        """Saves, then deletes the least important checkpoints, as SpeechBrain does.

        Arguments
        ---------
        *args, **kwargs
            Arguments of SpeechBrain's method.
        importance_keys : sequence of callable
            Further criteria for keeping checkpoints. SpeechBrain's default is a shared
            list that grows with each call, so every save would be slower than the
            previous one.
        """
        super().save_and_keep_only(
            *args, importance_keys=list(importance_keys), **kwargs
        )

    custom_load_hooks: dict[str, Any]

    @override
    def load_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Loads a checkpoint; raises a FileError that names a damaged file."""
        hooks = self.custom_load_hooks
        found = {
            name: hooks.get(name) or get_default_hook(obj, DEFAULT_LOAD_HOOKS)
            for name, obj in self.recoverables.items()
        }
        self.custom_load_hooks = {n: _naming(load) for n, load in found.items() if load}
        try:
            super().load_checkpoint(checkpoint)
        finally:
            self.custom_load_hooks = hooks

    @staticmethod
    def _construct_checkpoint_objects(folders: Iterable[Path]) -> list[Checkpoint]:
        """Like SpeechBrain's; raises a FileError that names a damaged file."""
        found: list[Checkpoint] = []
        for folder in folders:
            path = folder / METAFNAME
            try:
                found += Checkpointer._construct_checkpoint_objects([folder])
                meta = found[-1].meta
                if not isinstance(meta, dict) or not isinstance(
                    meta.get("unixtime"), int | float
                ):
                    raise ValueError("it has no number unixtime")
            except (ValueError, OSError, RecursionError, YAMLError) as error:
                why = " ".join(str(error).split())
                raise FileError(
                    f"{path}: not the description of a checkpoint ({why:.300}). It is "
                    f"cut off or damaged: delete the folder {folder}, and the run goes "
                    "on from the checkpoint before it, or starts again"
                ) from error
        return found

    def _new_checkpoint_dirpath(self) -> Path:
        return _unfinished(super()._new_checkpoint_dirpath())

    def _custom_checkpoint_dirpath(self, name: str) -> Path:
        return _unfinished(super()._custom_checkpoint_dirpath(name))


def _unfinished(path: Path) -> Path:
    return path.with_name(_UNFINISHED + path.name)


def _naming(load: Callable[[Any, Path, bool], None]) -> Callable[..., None]:
    """Wraps a loading hook so that its errors name the file."""

    def load_or_name(obj: Any, path: Path, end_of_epoch: bool) -> None:
        try:
            load(obj, path, end_of_epoch)
        except Exception as error:
            raise FileError(
                f"{path}: cannot be loaded ({type(error).__name__}: {error!s:.300}). "
                f"If it is cut off or damaged, delete the folder {Path(path).parent}: "
                "the run goes on from the checkpoint before it, or starts again"
            ) from error

    return load_or_name
