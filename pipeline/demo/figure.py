"""The stick figure's anatomy and its sixteen motions: an action and an instant to 17 COCO joints, in pixels.

Facing the camera, so the person's left arm is on the image's right. Angles are degrees from straight down, positive
outwards: 0 hangs, 90 points sideways, 180 points up. A reader will ask why motions are tables of numbers: every action
is one pose that swings, and seeing them side by side shows that no two are alike.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.demo.scripts import ACTIONS, Look

Hold = str  # "left", "right", "both" or "" (nothing is held)

_SHOULDER = (5.5, -16.0)  # half width and height above the hips, in pixels at scale 1
_HIP = 3.0
_LIMB = 8.5  # upper arm and forearm
_LEG = 11.0  # thigh and shin
_HEAD = {"nose": (0.0, -21.4), "eye": (1.5, -22.8), "ear": (3.4, -22.2)}


@dataclass(frozen=True)
class Arm:
    """Upper arm and forearm, each with its angle and how far it swings."""

    upper: float
    upper_swing: float
    fore: float
    fore_swing: float
    lag: float = 0.0
    """Part of a cycle by which the forearm swings later."""

    def angles(self, cycle: float) -> tuple[float, float]:
        """Both angles, in radians, at a time counted in cycles."""
        upper = self.upper + self.upper_swing * math.sin(2 * math.pi * cycle)
        fore = self.fore + self.fore_swing * math.sin(2 * math.pi * (cycle - self.lag))
        return math.radians(upper), math.radians(fore)


@dataclass(frozen=True, kw_only=True)
class Motion:
    """How the body moves during one action, and which hand holds the object."""

    left: Arm
    right: Arm
    hold: Hold = "left"
    cycles_per_second: float = 1.0
    crouch: float = 0.0
    crouch_swing: float = 0.0
    lean: float = 0.0
    """Sideways shift of the shoulders, in pixels; positive to the person's left."""


_REST = Arm(14, 3, 24, 4)

MOTIONS: dict[str, Motion] = {
    "crack egg": Motion(left=Arm(55, 4, 100, 28), right=Arm(50, 4, 100, 6), cycles_per_second=1.6),
    "add butter": Motion(left=Arm(22, 6, 68, 14), right=_REST, cycles_per_second=0.7),
    "sprinkle salt": Motion(left=Arm(138, 5, 165, 24), right=_REST, cycles_per_second=1.8),
    "stir": Motion(left=Arm(42, 14, 62, 34, 0.25), right=Arm(72, 3, 92, 4), cycles_per_second=1.2),
    "pour milk": Motion(left=Arm(96, 16, 124, 14, 0.1), right=Arm(60, 3, 110, 4), cycles_per_second=0.5),
    "boil kettle": Motion(left=Arm(50, 8, 88, 12), right=_REST, cycles_per_second=0.6, crouch=0.65),
    "spoon sugar": Motion(left=_REST, right=Arm(80, 10, 104, 18), hold="right"),
    "toast bread": Motion(left=Arm(90, 6, 92, 9), right=Arm(90, 6, 92, 9), cycles_per_second=0.6),
    "spread jam": Motion(left=Arm(28, 16, 50, 40), right=Arm(30, 4, 36, 4), cycles_per_second=1.3, lean=3.0),
    "cut fruit": Motion(left=Arm(66, 22, 90, 6), right=Arm(84, 3, 90, 3), cycles_per_second=1.7),
    "fill bowl": Motion(left=Arm(122, 10, 212, 8), right=Arm(122, 10, 212, 8), hold="both", cycles_per_second=0.6),
    "flip pan": Motion(
        left=Arm(50, 14, -42, 16), right=Arm(50, 14, -42, 16), hold="both", crouch=0.6, crouch_swing=0.35
    ),
    "answer phone": Motion(left=Arm(38, 3, 170, 4), right=_REST, cycles_per_second=0.5),
    "wave": Motion(left=_REST, right=Arm(120, 5, 170, 34), hold="", cycles_per_second=1.5),
    "stretch": Motion(left=Arm(158, 14, 172, 10), right=Arm(158, 14, 172, 10), hold="", cycles_per_second=0.5),
    "drink water": Motion(left=Arm(74, 6, 196, 16), right=Arm(30, 3, -40, 4), cycles_per_second=0.7),
}
assert tuple(MOTIONS) == ACTIONS


@dataclass(frozen=True)
class Pose:
    """Joints and what the hands hold, in frame pixels."""

    joints: npt.NDArray[np.float32]
    """(17, 2) x and y in COCO's order."""
    hand: tuple[float, float] | None
    """Where the object is held."""
    swing: float
    """-1 to 1: where the motion is, for objects that tilt."""


def pose_at(action: str, seconds: float, look: Look, shift: tuple[float, float] = (0.0, 0.0)) -> Pose:
    """The figure `seconds` into the video; `shift` is the camera's, in pixels."""
    motion = MOTIONS[action]
    cycle = look.phase + seconds * motion.cycles_per_second * look.speed
    swing = math.sin(2 * math.pi * cycle)
    crouch = min(max(motion.crouch + motion.crouch_swing * swing, 0.0), 1.0)
    reach = 2 * _LEG - 7.0 * crouch  # hip to ankle
    body = _body(motion, cycle, reach)
    origin = np.array([look.centre_x + shift[0], look.feet_y + shift[1] - reach * look.scale])
    joints = (body * look.scale + origin).astype(np.float32)
    wrists = {"left": joints[9], "right": joints[10], "both": joints[9:11].mean(axis=0)}
    hand = wrists.get(motion.hold)
    return Pose(joints, None if hand is None else (float(hand[0]), float(hand[1])), swing)


def _body(motion: Motion, cycle: float, reach: float) -> npt.NDArray[np.float64]:
    """(17, 2) joints around the middle of the hips, at scale 1."""
    knee_out = math.sqrt(max(_LEG**2 - (reach / 2) ** 2, 0.0))
    head = [_HEAD["nose"]] + [(side * x, y) for name in ("eye", "ear") for x, y in [_HEAD[name]] for side in (1, -1)]
    arms = {side: _arm(arm, cycle, side) for side, arm in ((1, motion.left), (-1, motion.right))}
    upper = head + [arms[side][part] for part in range(3) for side in (1, -1)]
    lower = [(side * _HIP, 0.0) for side in (1, -1)]
    lower += [(side * (_HIP + knee_out), reach / 2) for side in (1, -1)]
    lower += [(side * _HIP, reach) for side in (1, -1)]
    leaning = [(x + motion.lean * -y / -_SHOULDER[1], y) for x, y in upper]
    return np.array(leaning + lower)


def _arm(arm: Arm, cycle: float, side: int) -> list[tuple[float, float]]:
    """Shoulder, elbow and wrist; `side` is 1 for the left and -1 for the right arm."""
    upper, fore = arm.angles(cycle)
    x, y = side * _SHOULDER[0], _SHOULDER[1]
    elbow = (x + side * _LIMB * math.sin(upper), y + _LIMB * math.cos(upper))
    return [(x, y), elbow, (elbow[0] + side * _LIMB * math.sin(fore), elbow[1] + _LIMB * math.cos(fore))]
