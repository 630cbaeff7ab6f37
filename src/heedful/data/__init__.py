"""Data: a name, folder or .npz file → three splits; batches of them, augmented and normalised."""

from heedful.data.augment import AUGMENTATIONS, crop, flip, shift
from heedful.data.batches import Batches, batches, normalise
from heedful.data.cub200 import cub_boxes
from heedful.data.dataset import DataSet, ImageArray, ImageFiles, Split
from heedful.data.load import divided, folder_of, load, read
from heedful.data.pool import Pool

__all__ = [
    "AUGMENTATIONS",
    "Batches",
    "DataSet",
    "ImageArray",
    "ImageFiles",
    "Pool",
    "Split",
    "batches",
    "crop",
    "cub_boxes",
    "divided",
    "flip",
    "folder_of",
    "load",
    "normalise",
    "read",
    "shift",
]
