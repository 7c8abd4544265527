"""Forms: what runs that differ in nothing but the contents of their tensors have in common, worked out once.

A camera's requests come to the same model, in one of a few slots, with the same shapes and at the same places. Their
frames are equal but for number, priority and times, so the rest of the frame is the key.
"""

from __future__ import annotations

from typing import Dict, Hashable, List, Optional, Sequence

from edgeway import frames
from edgeway.frames import FrameError, Infer, TensorPlace
from edgeway.tensors import BY_CODE
from workers.backend import Bound, Tensor
from workers.joining import kind_of, rows_of
from workers.loaded import LoadedModel
from workers.regions import Fill, RunRegions
from workers.slots import SlotMemory, read_tensor

MOST = 512
"""Forms remembered; beyond, all are forgotten and made again. One that is bound holds some kilobytes."""


class Form:
    """One form. At most one run at a time uses it: its slot is that run's."""

    __slots__ = (
        "bindable",
        "bound",
        "busy",
        "fills",
        "group",
        "handle",
        "input_bytes",
        "inputs",
        "model",
        "names",
        "out_offset",
        "places",
        "regions",
        "replies",
        "rows",
        "slot",
        "slot_number",
        "trouble",
        "wanted",
    )

    def __init__(
        self, infer: Infer, slot: SlotMemory, model: Optional[LoadedModel], regions: Optional[RunRegions]
    ) -> None:
        """``regions``: what its runs have to do with regions; None: nothing.

        Raises:
            FrameError: it names inputs or outputs that the model does not have.
        """
        self.handle = infer.model
        self.model = model
        self.slot = slot
        self.slot_number = infer.slot
        self.out_offset = infer.out_offset
        self.busy = False
        self.inputs: Dict[str, Tensor] = {}
        self.regions = regions is not None
        self.fills: List[Fill] = []
        """To be done before each run."""
        self.input_bytes = 0
        self.wanted: List[int] = []
        self.names: List[str] = []
        self.rows = 0
        self.group: Optional[Hashable] = None
        """Equal for runs that may go together, of ``rows`` rows; None: this one goes alone."""
        self.trouble = ""
        """Why such runs can't be done: a tensor that is not where or what the frame says."""
        self.bindable = True
        self.places: Optional[Sequence[TensorPlace]] = None
        """Of the outputs of the last run that was not bound."""
        self.bound: Optional[Bound] = None
        """The runtime, ready to take the inputs where they lie and to leave the outputs where they belong."""
        self.replies = b""
        """What every reply says of the outputs, once bound."""
        if model is not None:
            self._resolve(infer, model, regions)

    def _resolve(self, infer: Infer, model: LoadedModel, regions: Optional[RunRegions]) -> None:
        specs, outputs, slot = model.model.inputs, model.model.outputs, self.slot.tensors
        for place in infer.inputs:
            if place.index >= len(specs):
                raise FrameError(f"run {infer.request_id} names an input that the model does not have")
            self.input_bytes += place.nbytes
        self.wanted = list(infer.outputs) or list(range(len(outputs)))
        if max(self.wanted, default=-1) >= len(outputs):
            raise FrameError(f"run {infer.request_id} names an output that the model does not have")
        self.names = [outputs[index].name for index in self.wanted]
        try:
            for place in infer.inputs:
                tensor = read_tensor(slot, place) if regions is None else regions.tensor(slot, place, self.fills)
                self.inputs[specs[place.index].name] = tensor
        except FrameError as wrong:
            self.trouble = str(wrong)
            return
        if regions is None and model.limits is not None and rows_of(self.inputs):
            self.rows = rows_of(self.inputs)
            self.group = (self.handle, tuple(self.wanted), kind_of(self.inputs))

    def ran(self, places: Sequence[TensorPlace]) -> None:
        """A run has left its outputs at these places. Where two have left them at the same, the next ones are bound to
        them, if the runtime can; a form that comes once pays nothing for that.
        """
        if self.places != places:
            self.places = places
        elif self.bindable and self.model is not None:
            self.bindable = False  # one try
            outputs = {name: self._writable(place) for name, place in zip(self.names, places)}
            if len(outputs) == len(places):
                self.bound = self.model.model.bind(self.inputs, outputs)
                self.replies = frames.pack_places(places)

    def _writable(self, place: TensorPlace) -> Tensor:
        return Tensor(
            BY_CODE[place.dtype].name, place.shape, self.slot.tensors[place.offset : place.offset + place.nbytes]
        )


class Forms:
    """The forms by their bytes. ``find`` belongs to the thread that reads the link, the rest to any."""

    def __init__(self) -> None:
        self._forms: Dict[Hashable, Form] = {}

    def find(self, key: Hashable) -> Optional[Form]:
        """A known form that no run uses now."""
        form = self._forms.get(key)
        return None if form is None or form.busy else form

    def keep(self, key: Hashable, form: Form) -> None:
        if len(self._forms) >= MOST:
            self._forms.clear()
        self._forms[key] = form

    def forget_slot(self, slot: int) -> None:
        """The slot is to be unmapped."""
        self._forget([key for key, form in list(self._forms.items()) if form.slot_number == slot])

    def forget_model(self, handle: int) -> None:
        """The model has been closed."""
        self._forget([key for key, form in list(self._forms.items()) if form.handle == handle])

    def forget_regions(self) -> None:
        """A region is to be closed."""
        self._forget([key for key, form in list(self._forms.items()) if form.regions])

    def _forget(self, keys: List[Hashable]) -> None:
        for key in keys:
            self._forms.pop(key, None)
