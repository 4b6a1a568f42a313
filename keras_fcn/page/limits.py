"""How large a picture from the browser may be."""

import dataclasses

from keras_fcn.remedies import spell


@dataclasses.dataclass(frozen=True)
class Limits:
    """How large a picture may be."""

    megabytes: float = 20
    pixels: int = 16_000_000

    @property
    def bytes(self):
        return int(self.megabytes * 1e6)

    def check_bytes(self, name, size):
        """Raise `ValueError` for a file of too many bytes."""
        if size > self.bytes:
            raise ValueError(
                f"A picture should have {self.megabytes:g} MB or less. Received: {name}, with "
                f"{size / 1e6:.1f} MB. Send a smaller one, or start the page with a larger "
                f"{spell('max_megabytes')}."
            )

    def too_many_pixels(self, name, what):
        """Return the error for a picture of too many pixels."""
        return ValueError(
            f"A picture should have {self.pixels:,} pixels or fewer. Received: {name}, with "
            f"{what}. Make it smaller, or start the page with a larger {spell('max_pixels')}."
        )
