"""What can be wrong with an image, as sentences for people: each names the image and the mend.

    ImageError
    ├── ImageNotFound    no such name; the text lists what is offered and how to add a local one
    ├── UnsafeImage      well-formed, but it would make QEMU open something else, or pretends a size
    ├── TooLarge         more than it is wanted for
    ├── NoRoom           the host's disk has no room for it
    ├── CorruptImage     not what its name or the caller says, or cut short
    ├── ToolMissing      a program this needs is not installed; the text names the package
    └── ToolFailed       a program this needs ended badly, or took too long

Callers turn the text into a condition, an event or a CLI line as it is.
"""


class ImageError(Exception):
    """Anything wrong with an image, or with making one."""


class ImageNotFound(ImageError):
    """No image has this name."""


class UnsafeImage(ImageError):
    """The image refers to other files, or claims more than it can hold."""


class TooLarge(ImageError):
    """The image, or its disk, does not fit into what it is for."""


class NoRoom(ImageError):
    """The host's disk is full, or nearly."""


class CorruptImage(ImageError):
    """The bytes are not an image of the expected format."""


class ToolMissing(ImageError):
    """A program is not installed."""


class ToolFailed(ImageError):
    """A program ended with an error or was stopped at its deadline."""
