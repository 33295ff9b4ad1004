"""Kinds of files that are not read, with advice for the user."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

ADVICE = "convert it to PNG, TIFF or JPEG first"


class Kind(NamedTuple):
    """A kind of picture that gl_jax does not decode."""

    name: str
    suffixes: str
    signature: bytes
    """A pattern of the first bytes of such a file."""
    advice: str = ADVICE


# HEIC needs an HEVC decoder. The wheels of pillow-heif have one, but are GPL-licensed.
HEIC = Kind(
    "HEIC", ".heic .heics .heif .heifs .hif",
    rb"....ftyp(hei[cmsx]|hev[cmsx]|mif1|msf1)",
    "convert it to PNG or JPEG first, with `heif-dec` of libheif, ImageMagick, or "
    "`sips` of macOS",
)  # fmt: skip
RAW = Kind(
    "camera RAW",
    ".3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .fff .iiq .kdc .mef .mos .mrw .nef .nrw "
    ".orf .pef .raf .raw .rw2 .rwl .sr2 .srf .srw .x3f",
    rb"....ftypcrx |FUJIFILMCCD-RAW|IIRO|IIRS|IIU\0|FOVb|II\*\0....CR|\0MRM",
    "develop it to TIFF, PNG or JPEG first",
)
KINDS = (
    HEIC,
    RAW,
    Kind("JPEG XL", ".jxl", rb"\xff\x0a|\0\0\0\x0cJXL "),
    Kind("JPEG XR", ".hdp .jxr .wdp", rb"II\xbc\x01"),
    Kind("OpenEXR", ".exr", rb"\x76\x2f\x31\x01"),
    Kind("Radiance HDR", ".hdr", rb"#\?RADIANCE|#\?RGBE"),
    Kind("SVG", ".svg .svgz", rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?(<!.{,999}?>\s*)*<svg"),
    Kind("PDF", ".pdf", rb"%PDF"),
    Kind("PostScript", ".ai .eps .ps", rb"%!PS|\xc5\xd0\xd3\xc6"),
    Kind("XCF of GIMP", ".xcf", rb"gimp xcf"),
    Kind("NumPy array", ".npy .npz", rb"\x93NUMPY"),
    Kind(
        "video", ".3gp .avi .m4v .mkv .mov .mp4 .mpeg .mpg .mts .webm .wmv",
        rb"....ftyp(qt|mp4|isom|M4V|3gp|avc)|\x1a\x45\xdf\xa3|RIFF....AVI ",
        "save one of its pictures as PNG or JPEG first",
    ),
)  # fmt: skip
_BY_SUFFIX = {suffix: kind for kind in KINDS for suffix in kind.suffixes.split()}


def kind_of(name: str, start: bytes) -> Kind | None:
    """Returns the kind of a file by its first bytes, else by its suffix; None if unknown."""
    for kind in KINDS:
        if re.match(kind.signature, start, re.DOTALL):
            return kind
    return _BY_SUFFIX.get(Path(name).suffix.lower())


def counted(paths: Iterable[Path]) -> Counter[str]:
    """Counts files by their suffix, in lower case."""
    return Counter(path.suffix.lower() or "without a suffix" for path in paths)


def left_out(suffixes: Mapping[str, int], folder: Path) -> str | None:
    """Returns one line on the files of a folder that are left out; None without any.

    `suffixes` counts them. Pictures of unread kinds come first, with advice.
    """
    if not suffixes:
        return None
    pictures, others = Counter[str](), Counter[str]()
    for suffix, count in suffixes.items():
        if suffix in _BY_SUFFIX:
            pictures[_BY_SUFFIX[suffix].name] += count
        else:
            others[suffix] += count
    counts = [f"{n} {k}" for c in (pictures, others) for k, n in sorted(c.items())]
    advice = {kind.advice for kind in KINDS if kind.name in pictures}
    one = advice.pop() if len(advice) == 1 else ADVICE
    about = f"; {one.replace(' it ', ' them ')}" if pictures else ""
    return f"left out of {folder}: {', '.join(counts)}{about}."
