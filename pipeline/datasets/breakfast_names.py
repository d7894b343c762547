"""What Breakfast calls things: its activities, its 48 atomic actions with texts, and its videos in every spelling.

The decision to question: texts are CMDCL's where its figures print them ("add salt & pepper", "stirfry egg"); `SIL` is
"background".
"""

import re
from dataclasses import dataclass

TEST_PERSONS = {
    "default": range(47, 55),
    "split1": range(3, 16),
    "split2": range(16, 29),
    "split3": range(29, 42),
    "split4": range(42, 55),
}
ACTIVITIES = {
    "cereals": "cereals",
    "coffee": "coffee",
    "friedegg": "fried egg",
    "juice": "juice",
    "milk": "milk",
    "pancake": "pancake",
    "salat": "salad",
    "sandwich": "sandwich",
    "scrambledegg": "scrambled egg",
    "tea": "tea",
}
_ATOMIC_NAMES = """
    SIL pour_cereals pour_milk stir_cereals take_bowl pour_coffee take_cup spoon_sugar stir_coffee pour_sugar
    pour_oil crack_egg add_saltnpepper fry_egg take_plate put_egg2plate take_eggs butter_pan take_knife cut_orange
    squeeze_orange pour_juice take_glass take_squeezer spoon_powder stir_milk spoon_flour stir_dough pour_dough2pan
    fry_pancake put_pancake2plate pour_flour cut_fruit put_fruit2bowl peel_fruit stir_fruit cut_bun smear_butter
    take_topping put_toppingOnTop put_bunTogether take_butter stir_egg pour_egg2pan stirfry_egg add_teabag
    pour_water stir_tea
"""
ATOMIC = tuple(_ATOMIC_NAMES.split())
_IRREGULAR_TEXTS = {
    "SIL": "background",
    "add_saltnpepper": "add salt & pepper",
    "put_egg2plate": "put egg on plate",
    "pour_dough2pan": "pour dough into pan",
    "put_pancake2plate": "put pancake on plate",
    "put_fruit2bowl": "put fruit into bowl",
    "put_toppingOnTop": "put topping on top",
    "put_bunTogether": "put bun together",
    "pour_egg2pan": "pour egg into pan",
}
_UNREADABLE = "MA-LMM leaves it out as unreadable"
_MISMATCHED = "said not to match its annotation, by users of features that others published"
KNOWN_BROKEN = dict.fromkeys(
    ("P28_cam01_P28_cereals", "P28_cam02_P28_cereals", "P27_stereo01_P27_milk"), _UNREADABLE
) | dict.fromkeys(
    (
        "P03_webcam02_P03_tea",
        "P26_webcam02_P26_cereals",
        "P27_webcam02_P27_coffee",
        "P34_cam01_P34_coffee",
        "P51_webcam01_P51_coffee",
        "P52_stereo01_P52_sandwich",
    ),
    _MISMATCHED,
)
_NAME = re.compile(
    r"(?:.*/)?(?P<person>P(?:0[3-9]|[1-4]\d|5[0-4]))[-_/](?P<camera>(?:web)?cam0[12]|stereo(?P<number>0[12])?)[-_/]"
    rf"(?P=person)_(?P<activity>{'|'.join(ACTIVITIES)})(?:_ch(?P<channel>[01]))?"
)


@dataclass(frozen=True, kw_only=True)
class VideoName:
    """A video, by any of its spellings."""

    person: str
    camera: str
    activity: str

    def __str__(self) -> str:
        return f"{self.person}_{self.camera}_{self.trial}"

    @property
    def trial(self) -> str:
        """What one person did once."""
        return f"{self.person}_{self.activity}"

    @property
    def path_ends(self) -> tuple[str, str, str]:
        """In the archive, in a flat folder of official names, in a flat folder of MA-LMM's."""
        camera, file = self.camera, self.trial
        if camera.startswith("stereo"):
            camera, file = "stereo", f"{file}_ch{int(camera[-2:]) - 1}"
        return f"{self.person}/{camera}/{file}", str(self), f"{self.person}-{camera}-{file}"

    def split(self, protocol: str) -> str:
        """Train or test, by the person."""
        return "test" if int(self.person[1:]) in TEST_PERSONS[protocol] else "train"


def parse_name(text: str) -> VideoName | None:
    """The video that a path or an id names, without its ending; None if it names none."""
    match = _NAME.fullmatch(text)
    if match is None:
        return None
    camera = match["camera"]
    if camera.startswith("stereo"):
        channel = int(match["channel"] or 0)
        camera = f"stereo{match['number'] or f'{channel + 1:02d}'}"
    return VideoName(person=match["person"], camera=camera, activity=match["activity"])


def atomic_text(name: str) -> str:
    """The words for an atomic action."""
    return _IRREGULAR_TEXTS.get(name, name.replace("_", " "))
