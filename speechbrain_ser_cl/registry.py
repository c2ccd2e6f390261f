"""Registries: names for the package's parts, extensible by other packages.

A dotted path in a YAML file (``!new:speechbrain_ser_cl.losses.InfoNCELoss``) always
works without registration. A ``Registry`` adds short names for the command line, for
sweeps over a YAML key, and for plug-ins.

A plug-in is any installed package with an entry point in one of the groups
``speechbrain_ser_cl.losses``, ``.backbones``, ``.poolings``, ``.heads`` and
``.corpora``::

    [options.entry_points]
    speechbrain_ser_cl.losses =
        my_loss = my_package.losses:MyLoss
"""

import difflib
import fnmatch
import importlib
import inspect
import re
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

PACKAGE = __name__.partition(".")[0]

T = TypeVar("T", bound=Callable[..., Any])


class Registry:
    """Short lower-case names for the classes or functions of one kind.

    The package's own entries and those of plug-ins are imported at the first look-up,
    so that importing the registry is fast.

    Arguments
    ---------
    kind : str
        Name of the kind in the singular (``"loss"``).
    plural : str
        Name of the kind in the plural (``"losses"``). The entry-point group is
        ``speechbrain_ser_cl.<plural>``.
    builtin : str
        Module whose import registers the package's own entries.

    Example
    -------
    >>> from speechbrain_ser_cl.registry import Registry
    >>> SHAPES = Registry("shape", "shapes", "speechbrain_ser_cl.registry")
    >>> @SHAPES.register("square")
    ... def square(side=1.0):
    ...     "A square's area."
    ...     return side * side
    >>> SHAPES.names("sq*")
    ['square']
    >>> SHAPES.build("square", side=3.0)
    9.0
    >>> SHAPES.get("squere")
    Traceback (most recent call last):
    ...
    ValueError: unknown shape 'squere'; did you mean 'square'? ...
    """

    def __init__(self, kind: str, plural: str, builtin: str):
        self.kind = kind
        self.plural = plural
        self.builtin = builtin
        self._entries: dict[str, Callable[..., Any]] = {}
        self._sources: dict[str, str] = {}
        self._aliases: dict[str, str] = {}
        self._plugins_loaded = False

    def register(self, name: str) -> Callable[[T], T]:
        """Registers the decorated class or function under ``name``.

        Arguments
        ---------
        name : str
            Lower-case letters, digits, ``_``, ``-`` and ``.``.

        Returns
        -------
        decorate : callable
            Decorator that returns the class or function unchanged.

        Raises
        ------
        ValueError
            If the name is not lower-case or already used. A class or function of the
            same path, defined again by a reload of its module, replaces the old one.
        """

        def decorate(obj: T) -> T:
            source = obj.__module__.partition(".")[0]
            if source != PACKAGE:
                # Otherwise a plug-in could use a built-in name first, and the package's
                # own import would fail.
                importlib.import_module(self.builtin)
            self._add(name, obj, source)
            return obj

        return decorate

    def alias(self, other: str, name: str) -> None:
        """Adds another name for an entry, which look-ups accept and lists omit.

        Arguments
        ---------
        other : str
            Additional name.
        name : str
            A registered name.
        """
        self._aliases[other] = name

    def _add(self, name: str, obj: Callable[..., Any], source: str) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", name):
            raise ValueError(
                f"{self.kind} name {name!r}: expected lower-case letters, digits, "
                f"'_', '-' or '.', like {_suggest_name(name)!r}"
            )
        taken = self._entries.get(name)
        if taken is not None and _path(taken) != _path(obj):
            raise ValueError(
                f"{self.kind} name {name!r} is already taken by {_path(taken)} "
                f"(package {self._sources[name]}); register {_path(obj)} under "
                "another name"
            )
        self._entries[name] = obj
        self._sources[name] = source

    def _load(self) -> None:
        importlib.import_module(self.builtin)
        if self._plugins_loaded:
            return
        # Set first, because a plug-in may look up names during its import.
        self._plugins_loaded = True
        from importlib.metadata import entry_points

        for entry_point in entry_points(group=f"{PACKAGE}.{self.plural}"):
            source = entry_point.dist.name if entry_point.dist else "?"
            try:
                obj = entry_point.load()
                if not callable(obj):
                    raise TypeError(
                        f"{entry_point.value} is a {type(obj).__name__}, "
                        "expected a class or a function"
                    )
                self._add(entry_point.name, obj, source)
            except Exception as error:  # A plug-in may raise anything.
                warnings.warn(
                    f"{self.kind} plug-in {entry_point.name!r} of package {source} "
                    f"is left out: {type(error).__name__}: {error}",
                    stacklevel=3,
                )

    def get(self, name: str) -> Any:
        """Returns the class or function that is registered under ``name``.

        Arguments
        ---------
        name : str
            A registered name.

        Returns
        -------
        obj : class or function
            The registered object, not called.

        Raises
        ------
        ValueError
            If the name is unknown; the message has the nearest names.
        """
        self._load()
        name = self._aliases.get(name, name)
        self._check(name)
        return self._entries[name]

    def build(self, name: str, **kwargs: Any) -> Any:
        """Calls the class or function that is registered under ``name``.

        Arguments
        ---------
        name : str
            A registered name.
        **kwargs
            Keyword arguments of the call.

        Returns
        -------
        result : object
            Instance, or result of the function.

        Raises
        ------
        ValueError
            If the name is unknown, or an argument is missing or unknown; the message
            has the signature.
        """
        part = self.get(name)
        try:
            call = inspect.signature(part)
        except (TypeError, ValueError):  # Some built-in callables have no signature.
            return part(**kwargs)
        try:
            call.bind(**kwargs)
        except TypeError as error:
            arguments = ", ".join(
                str(a.replace(annotation=a.empty)) for a in call.parameters.values()
            )
            raise ValueError(
                f"{self.kind} {name!r}: {error}; call it as {name}({arguments})"
            ) from None
        return part(**kwargs)

    def names(self, pattern: str = "*") -> list[str]:
        """Returns the registered names that match a shell pattern, sorted.

        Arguments
        ---------
        pattern : str
            Pattern with ``*``, ``?`` and ``[...]`` as for file names.

        Returns
        -------
        names : list of str
            Empty if no name matches.
        """
        self._load()
        return sorted(fnmatch.filter(self._entries, pattern))

    def source(self, name: str) -> str:
        """Returns the package that an entry comes from.

        Arguments
        ---------
        name : str
            A registered name.

        Returns
        -------
        package : str
            ``"speechbrain_ser_cl"`` for the package's own entries, the distribution's
            name for a plug-in.

        Raises
        ------
        ValueError
            If the name is unknown.
        """
        self._load()
        self._check(name)
        return self._sources[name]

    def _check(self, name: str) -> None:
        if name in self._entries:
            return
        near = difflib.get_close_matches(str(name).lower(), self._entries)
        hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
        raise ValueError(
            f"unknown {self.kind} {name!r}; {hint}"
            f"`ser-cl list {self.plural}` lists all {len(self._entries)}"
        )


def _path(obj: Callable[..., Any]) -> str:
    """Returns a class' name ``package.module.Class``, the same after a reload."""
    return f"{obj.__module__}.{obj.__qualname__}"


def _suggest_name(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "my_name"


LOSSES = Registry("loss", "losses", f"{PACKAGE}.losses")
BACKBONES = Registry("backbone", "backbones", f"{PACKAGE}.backbones")
POOLINGS = Registry("pooling", "poolings", f"{PACKAGE}.nnet.pooling")
HEADS = Registry("head", "heads", f"{PACKAGE}.nnet.heads")
CORPORA = Registry("corpus", "corpora", f"{PACKAGE}.corpora")

REGISTRIES = {
    registry.kind: registry
    for registry in (LOSSES, BACKBONES, POOLINGS, HEADS, CORPORA)
}


def build(kind: str, name: str, **kwargs: Any) -> Any:
    """Builds an entry of any registry by name, for YAML files.

    In HyperPyYAML, without and with keyword arguments::

        loss: !apply:speechbrain_ser_cl.build [loss, infonce]
        loss: !apply:speechbrain_ser_cl.build
            kind: loss
            name: infonce
            temperature: 0.1

    Arguments
    ---------
    kind : str
        ``"loss"``, ``"backbone"``, ``"pooling"``, ``"head"`` or ``"corpus"``.
    name : str
        A registered name, of the package or of a plug-in.
    **kwargs
        Keyword arguments of the class or function.

    Returns
    -------
    result : object
        Instance, or result of the function.

    Raises
    ------
    ValueError
        If the kind or the name is unknown, or an argument is missing or unknown.

    Example
    -------
    >>> import speechbrain_ser_cl
    >>> speechbrain_ser_cl.build("los", "infonce")
    Traceback (most recent call last):
    ...
    ValueError: unknown kind 'los'; expected one of loss, backbone, ...
    >>> speechbrain_ser_cl.build("loss", "moco", size=64)
    Traceback (most recent call last):
    ...
    ValueError: loss 'moco': missing a required argument: 'dim'; call it as moco(...
    """
    if kind not in REGISTRIES:
        raise ValueError(
            f"unknown kind {kind!r}; expected one of {', '.join(REGISTRIES)}"
        )
    return REGISTRIES[kind].build(name, **kwargs)
