"""How much work one image file may be: a small one can keep a decoder busy for minutes, or fill the memory."""

import io

from PIL import Image, ImageFile

MAX_BYTES = 2**29
"""A larger file is not read: 50 million pixels, the most that are decoded, of 16 bits in four channels, take 400 MB."""

MAX_TILES = 50_000
"""Separately stored pieces of an uncompressed TIFF: each takes Pillow 30 microseconds."""

MAX_INTERPRETED = 2**22
"""Bytes of a file that Pillow decodes in Python (PPM in words or of an odd range, BMP in runs): 5 seconds at most."""


class TooMuchWork(Exception):
    """The file would take too long or too much memory; the message is the reason, for `BadImage`."""


class BoundedFile(io.BytesIO):
    """A file in memory that may be read so often and so much as a file that is made to be an image.

    Pillow reads every block, text, comment, directory and value of a directory by a call of its own, in Python, so this
    bounds them all, in every format.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._reads = 20_000 + len(data) // 64
        self._bytes = 4 * len(data) + 2**22

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as any file does.

        Raises:
            TooMuchWork: that was too often, or too much.
        """
        data = super().read(size)
        self._reads -= 1
        self._bytes -= len(data)
        if self._reads < 0 or self._bytes < 0:
            raise TooMuchWork("of too many parts for one picture")
        return data

    def open(self, formats: tuple[str, ...]) -> ImageFile.ImageFile:
        """Have Pillow open it, where decoding it is bounded work.

        Raises:
            TooMuchWork: it is not.
            Exception: Pillow's, see `PIL.Image.open`.
        """
        image = Image.open(self, formats=formats)
        assert isinstance(image, ImageFile.ImageFile)
        tiles = image.tile
        if len(tiles) > MAX_TILES:
            raise TooMuchWork(f"stored in {len(tiles):,} pieces, more than {MAX_TILES:,}")
        if any(tile[0] in Image.DECODERS for tile in tiles):
            size = len(self.getbuffer())
            if size > MAX_INTERPRETED:
                raise TooMuchWork(f"of a rare kind that is read slowly, and larger than {MAX_INTERPRETED >> 20} MiB")
            self._reads += 2 * size  # byte by byte
        # Of every piece Pillow reads a whole block, however small the piece.
        self._reads += 4 * len(tiles)
        self._bytes += len(tiles) * ImageFile.MAXBLOCK
        return image
