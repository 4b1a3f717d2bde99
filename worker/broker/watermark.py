"""How far a channel may acknowledge: the highest finished delivery with none unfinished below it."""

from __future__ import annotations


class Watermark:
    """The finished deliveries of one channel, whose tags count 1, 2, 3, … in the order of delivery.

    One acknowledgement with ``multiple`` then covers everything up to
    :attr:`level`. What is above a gap waits, so a crash in the gap brings it
    back together with what it overtook, in the old order.
    """

    __slots__ = ("_above", "acknowledged", "delivered", "level")

    def __init__(self) -> None:
        self.delivered = 0
        self.level = 0
        self.acknowledged = 0
        self._above: set[int] = set()

    @property
    def unfinished(self) -> int:
        """How many deliveries somebody still works on."""
        return self.delivered - self.level - len(self._above)

    def deliver(self, tag: int) -> None:
        """A delivery was handed to the one who will finish it."""
        self.delivered = tag

    def finish(self, tag: int) -> None:
        """A delivery is finished; saying so twice changes nothing."""
        if tag != self.level + 1:
            if self.level < tag <= self.delivered:
                self._above.add(tag)
            return
        above = self._above
        while tag + 1 in above:
            tag += 1
            above.remove(tag)
        self.level = tag

    def take(self) -> int | None:
        """The tag to acknowledge now, with all below it; ``None`` if nothing is new."""
        if self.level == self.acknowledged:
            return None
        self.acknowledged = self.level
        return self.level
