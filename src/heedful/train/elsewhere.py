"""Data that shipped recipes name and that heedful does not fetch: a reader puts a folder in the name's place."""

from pathlib import Path

from heedful.errors import InputError

ELSEWHERE = {
    "caltech256": "Caltech-256: the folder that holds 256_ObjectCategories",
    "caltech101": "Caltech-101, or a part of it: a folder of class folders",
    "cub200": "CUB-200-2011: the folder that holds images.txt",
    "cub10": "ten classes of CUB-200-2010: a folder of class folders",
    "imagenet": "ILSVRC 2012: the folder that holds train and val, with class folders in both",
    "tiny_imagenet": "Tiny ImageNet, or a part of it: its folder train, which holds the class folders",
    "voc2012": "PASCAL VOC 2012: the folder that holds JPEGImages, Annotations and ImageSets",
    "coco128": "COCO128, or other images of COCO: a folder with labels.csv",
    "coco": "COCO 2017: the folder that holds annotations, train2017 and val2017",
    "coco128_boxes": "COCO128 with boxes in COCO's layout: a folder with annotations, train2017 and val2017",
    "bccd": "BCCD, blood cells: the folder that holds JPEGImages, Annotations and ImageSets",
    "ntu_rgbd": "NTU RGB+D 60: the folder that holds nturgb+d_skeletons, and for video nturgb+d_rgb",
    "utd_mhad": "UTD-MHAD: one .npz, see heedful.data.utd_mhad",
    "camvid": "CamVid: a folder with labels.csv, a class for each kind of thing in the picture",
}
"""Name in a recipe -> what it stands for."""


def require_at_hand(source: str) -> None:
    """Raise an InputError if the data is only a name of ELSEWHERE, which a run cannot read."""
    if source in ELSEWHERE and not Path(source).exists():
        raise InputError(
            f"data {source!r} does not come with heedful. It is {ELSEWHERE[source]}; get it and say where it is: "
            f"--data {source}=FOLDER"
        )
