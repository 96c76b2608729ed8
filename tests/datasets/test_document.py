"""The table of docs/datasets.md is made by reading what it names; run as a script, this file writes it anew."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vidxfer.pipeline.datasets import KINDS, Dataset, load_dataset
from vidxfer.pipeline.datasets.names import official_names

TESTS = Path(__file__).parent
DOCUMENT = TESTS.parent.parent / "docs/datasets.md"
BEGIN, END = "<!-- made by tests/datasets/test_document.py -->\n", "<!-- end -->"
EPIC = "narration_id,video_id,start_timestamp,stop_timestamp,verb,verb_class,noun,noun_class\n"

Make = Callable[[Path, Path], Iterator[Dataset]]


def files(root: Path, **texts: str) -> Path:
    """Files with their text by name (__ for /, ___ for .); a name that ends in a video's is left empty."""
    for name, text in texts.items():
        path = root / name.replace("___", ".").replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def copied(root: Path, source: Path, name: str) -> Path:
    """A sample of the fixtures, under the name it has in a download."""
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(source.read_bytes())
    return root


def ssv2(root: Path, annotations: Path) -> Iterator[Dataset]:
    copied(root, annotations / "labels/ssv2_DiST_ssv2_labels.json", "labels/labels.json")
    files(
        root,
        videos__1___webm="",
        labels__validation___json='[{"id": "1", "template": "[Something] falling like a rock"}]',
    )
    yield load_dataset("ssv2", root, "val")


def ssv1(root: Path, annotations: Path) -> Iterator[Dataset]:
    names = (annotations / "labels/ssv1_mmaction2_label_map.txt").read_text().splitlines()
    text = "".join(f"{number};{name}\n" for number, name in enumerate(names))
    files(root, frames__1__00001___jpg="", **{"something-something-v1-validation___csv": text})
    copied(root, annotations / "labels/ssv1_mmaction2_label_map.txt", "something-something-v1-labels.csv")
    yield load_dataset("ssv1", root, "val")


def jester(root: Path, annotations: Path) -> Iterator[Dataset]:
    lists = {"jester-v1-train___csv": "0;Swiping Left\n", "jester-v1-labels___csv": "Swiping Right\nSwiping Left\n"}
    yield load_dataset("jester", files(root, **{"20bn-jester-v1__0___mp4": ""}, **lists), "train")


def k400(root: Path, annotations: Path) -> Iterator[Dataset]:
    copied(root, annotations / "samples/kinetics-400_val_sample.csv", "annotations/val.csv")
    files(root, **{"val__0wR5jVB-WPk_000417_000427___mp4": ""})
    yield load_dataset("k400", root, "val")
    yield load_dataset("k400", root, "val", labels=annotations / "samples/k400_kinetics_video_val_se320_sample.txt")


def k600(root: Path, annotations: Path) -> Iterator[Dataset]:
    copied(root, annotations / "samples/kinetics-600_val_sample.csv", "annotations/val.csv")
    yield load_dataset("k600", files(root, **{"val__yq_M1PMw2hY_000038_000048___mp4": ""}), "val")


def k700(root: Path, annotations: Path) -> Iterator[Dataset]:
    lines = [f'"{name}",{number:011d},0,10,val\n' for number, name in enumerate(official_names("k700"))]
    files(root, kinetics700_2020__val___csv="label,youtube_id,time_start,time_end,split\n" + "".join(lines))
    yield load_dataset("k700", files(root, val__00000000000_000000_000010___mp4=""), "val")


def ucf101(root: Path, annotations: Path) -> Iterator[Dataset]:
    copied(root, annotations / "labels/ucf101_classInd.txt", "ucfTrainTestlist/classInd.txt")
    for split in ("train", "test"):
        source = annotations / f"samples/ucf101_{split}list01_sample.txt"
        copied(root, source, f"ucfTrainTestlist/{split}list01.txt")
    stem = "UCF-101__ApplyEyeMakeup__v_ApplyEyeMakeup_g0{}_c01___avi"
    files(root, **{stem.format(1): "", stem.format(8): ""})
    yield load_dataset("ucf101", root, "train")
    yield load_dataset("ucf101", root, "val")


def hmdb51(root: Path, annotations: Path) -> Iterator[Dataset]:
    for name in (annotations / "labels/hmdb51_mmaction2_label_map.txt").read_text().splitlines():
        (root / f"{name}_test_split1.txt").write_text(f"{name}_a.avi 1 \n{name}_b.avi 2 \n{name}_c.avi 0 \n")
    files(root, kick__kick_a___avi="", kick__kick_b___avi="")
    yield load_dataset("hmdb51", root, "train")
    yield load_dataset("hmdb51", root, "val")


def epic100(root: Path, annotations: Path) -> Iterator[Dataset]:
    row = "P01_101_{0},P01_101,00:00:0{0}.00,00:00:0{0}.50,take,0,plate,{0}\n"
    files(root, EPIC_100_train___csv=EPIC + row.format(0) + row.format(1), P01__videos__P01_101___MP4="")
    yield load_dataset("epic100", root, "train")


def diving48(root: Path, annotations: Path) -> Iterator[Dataset]:
    entry = {"vid_name": "a_00000", "label": 47, "start_frame": 0, "end_frame": 9}
    yield load_dataset(
        "diving48", files(root, Diving48_V2_test___json=json.dumps([entry]), rgb__a_00000___mp4=""), "val"
    )


def folder(root: Path, annotations: Path) -> Iterator[Dataset]:
    files(root, train__x__a___mp4="", train__y__b__1___jpg="", val__x__c___mp4="")
    yield load_dataset("folder", root, "train")


def csv(root: Path, annotations: Path) -> Iterator[Dataset]:
    files(root, **{"85__1___jpg": "", "imgs__1___jpg": "", "test___mp4": ""})
    for name in ("ssv1_val_rgb_sample", "mmaction2_rawframe_test_list_with_offset", "mmaction2_video_test_list"):
        yield load_dataset("csv", root, "val", labels=annotations / f"samples/{name}.txt")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table: what is read, from what, which traps its tests hold, and in which files they are."""

    make: Make
    lists: str
    traps: str
    tests: tuple[str, ...]


ROWS = {
    "ssv2": Row(make=ssv2, lists="real labels, written list", tests=("test_ssv2", "test_something"),
                traps="both generations of files; numbers as words; commas and brackets in names; webm or mp4; lists "
                "`id frames label`; test answers"),
    "ssv1": Row(make=ssv1, lists="real labels, written list", tests=("test_something",),
                traps="folders of jpgs; numbers of sorted names; labels file missing"),
    "jester": Row(make=jester, lists="written lists", tests=("test_labels_kept",),
                  traps="folders of jpgs, mp4 or webm; numbers of sorted names; test list without labels"),
    "k400": Row(make=k400, lists="real csv, real list of another toolkit", tests=("test_kinetics", "test_lists_more"),
                traps="flat, class folders, without times, `_256`, replacements; ids with - and _ read from the right; "
                "spellings of val; rows without a label; a list of another toolkit by official names"),
    "k600": Row(make=k600, lists="real csv", tests=("test_kinetics",),
                traps="the .txt before the .csv that lacks rows"),
    "k700": Row(make=k700, lists="written csv of all names", tests=("test_kinetics", "test_k710"),
                traps="`kinetics700_2020/`, `videos/vol_00/`; commas and brackets in names; K710 by names"),
    "ucf101": Row(make=ucf101, lists="real lists", tests=("test_ucf_hmdb",),
                  traps="three folds; numbers from 1; test list without numbers; \\r\\n; HandstandPushups and "
                  "v_HandStandPushups"),
    "hmdb51": Row(make=hmdb51, lists="written lists of all classes", tests=("test_ucf_hmdb",),
                  traps="three folds; class from the list's name; 0, 1, 2; # & ( and blanks in names"),
    "epic100": Row(make=epic100, lists="written csv", tests=("test_epic_diving",),
                   traps="segments by time, not by frame number; NaN narration time; paths of 2018, of the extension; "
                   "quoted lists; unlabelled test; verb and noun as factors"),
    "diving48": Row(make=diving48, lists="written json", tests=("test_epic_diving",),
                    traps="both releases; names missing; frames that do not start at 0 refused; four factors"),
    "folder": Row(make=folder, lists="written tree", tests=("test_folder", "test_recognise", "test_names_and_places"),
                  traps="split folders or none; a class called train; folders of pictures; links in circles; "
                  "one class; "
                  "names in two Unicode forms; previews of a NAS"),
    "csv": Row(make=csv, lists="real lists", tests=("test_csvlist", "test_lists_more", "test_segments",
                                                    "test_labels_kept", "test_names_and_places"),
               traps="csv, tsv, ;, ::, blanks, parquet, json, jsonl; Hugging Face's metadata files, FiftyOne; "
               "segments in "
               "seconds, clock times and frames; names beside numbers; absolute paths; frame folders, also "
               "with an offset; "
               "several labels and single-frame lists refused"),
}  # fmt: skip


def table(annotations: Path) -> str:
    """The table, counts measured now."""
    lines = ["| `--dataset` | read in the tests | counts | traps covered | tests |", "|---|---|---|---|---|"]
    for kind, row in ROWS.items():
        with tempfile.TemporaryDirectory() as folder:
            found = list(row.make(Path(folder), annotations))
        counts = "; ".join(f"{len(one):,} {one.split}, {len(one.class_names):,} classes" for one in found)
        tests = ", ".join(f"[{name}](../tests/datasets/{name}.py)" for name in row.tests)
        traps = row.traps.replace("|", "\\|")
        lines.append(f"| `{kind}` | {row.lists} | {counts} | {traps} | {tests} |")
    return "\n".join(lines) + "\n"


def test_every_kind_has_a_row_whose_tests_exist() -> None:
    assert set(ROWS) == set(KINDS)
    assert [name for row in ROWS.values() for name in row.tests if not (TESTS / f"{name}.py").is_file()] == []
    assert [kind for kind in KINDS if f"`{kind}`" not in (TESTS.parent.parent / "README.md").read_text()] == []


def test_the_table_of_the_document_is_what_is_read_now(fixtures_dir: Path) -> None:
    made = re.search(f"{re.escape(BEGIN)}(.*?){re.escape(END)}", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert made is not None
    assert made[1] == table(fixtures_dir / "annotations"), f"run python {Path(__file__).name} FIXTURES"


if __name__ == "__main__":
    before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    DOCUMENT.write_text(before + BEGIN + table(Path(sys.argv[1]) / "annotations") + END + after, encoding="utf-8")
