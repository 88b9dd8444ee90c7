"""The bytes that each attack makes of a fixed picture must never change: victims are trained on them.

The picture is a ramp on which no attack's result lies near a rounding edge, so that another machine's last bits do not
show.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from tests.attacks.stamping import stamp
from tests.attacks.test_wanet import sample_bilinear
from zipbatch.attacks import ATTACKS, PROFILES, FromArray, FromPicture, attack_params, get_attack

SEED = 1234
GOLDEN = {
    ("standard", "badnets"): "81d870fb245bfc7dfae6bafb731aff5862f09b726fe72727fa57029fe3c4c605",
    ("standard", "blended"): "896a98756f2823fe1aa4c5282ff28a3bb9128c421abd994c9dfb3971ea55834d",
    ("standard", "wanet"): "fa28b3f84ef042605e5a5faa57cb87ceedbca55d04614f3936e715dce2de9369",
    ("standard", "physicalba"): "81d870fb245bfc7dfae6bafb731aff5862f09b726fe72727fa57029fe3c4c605",
    ("standard", "sig"): "03c689128ebec58fc931b8c8b4e62a9de99348a380f6546c0beaa8c8efd7cd3c",
    ("standard", "ftrojan"): "29c48e1b6b5f3e3ef6aaa54d3b241304e8ee2784b14b6e448878bee87e4f4e06",
    ("standard", "ctrl"): "e02317b0ef10be72fd062772d957b789d60012af82fd084fa3c7daf59071560b",
    ("standard", "bpp"): "f7e9b5c1d0e74d94d442a747eb97114bb7e10321858f777f278cc2658ee7f20f",
    ("standard", "batt"): "eed583833a4c144f24b6d61c3ce745d4f665db1809d3e7f37027b6121aedd4d0",
    ("standard", "adaptive-blend"): "94d75e1a664868cde0b8634b26e521ff0f11f6e359b52cfe4663f2d363605030",
    ("standard", "adaptive-patch"): "96e346c26917790661d864d8fd548b2be5ed1042d05d447ad28104fd3da526a1",
    ("standard", "tact"): "81d870fb245bfc7dfae6bafb731aff5862f09b726fe72727fa57029fe3c4c605",
    ("standard", "label-consistent"): "0452d321b9e4e05f6b72efb3f782648c3d425fc07d17a6203b2bf2b7d277fba3",
    ("zip-code", "badnets"): "81d870fb245bfc7dfae6bafb731aff5862f09b726fe72727fa57029fe3c4c605",
    ("zip-code", "blended"): "896a98756f2823fe1aa4c5282ff28a3bb9128c421abd994c9dfb3971ea55834d",
    ("zip-code", "wanet"): "aa6c28ea182739038ea921846e6b07977c964657c2fd2d5783a7a42212d2b750",
    ("zip-code", "physicalba"): "81d870fb245bfc7dfae6bafb731aff5862f09b726fe72727fa57029fe3c4c605",
    ("backdoorbench", "badnets"): "3adabfde33fed7c08636f2086de170b32bff23eded6beb18cdc5c69618a48918",
    ("backdoorbench", "wanet"): "d3ce85a8b9c67dd8ab0916772ef41411de881417f9abf8a29a7afd7434e26327",
    ("backdoorbench", "sig"): "03c689128ebec58fc931b8c8b4e62a9de99348a380f6546c0beaa8c8efd7cd3c",
    ("backdoorbench", "ftrojan"): "29c48e1b6b5f3e3ef6aaa54d3b241304e8ee2784b14b6e448878bee87e4f4e06",
    ("backdoorbench", "ctrl"): "e02317b0ef10be72fd062772d957b789d60012af82fd084fa3c7daf59071560b",
    ("backdoorbench", "bpp"): "8994c66da86aba2d9622a019abefeaeb5c616dc7220ce014bc8072d0b7cb7f08",
}


def ramp() -> np.ndarray:
    """uint8 [1, 32, 32, 3], levels 0 to 203."""
    row, column, channel = np.ogrid[:32, :32, :3]
    return (2 * row + 3 * column + 24 * channel).astype(np.uint8)[None]


WITHOUT_A_PICTURE = [
    (profile, name) for profile in PROFILES for name, attack in PROFILES[profile].items() if attack.needs is None
]


@pytest.mark.parametrize(("profile", "name"), WITHOUT_A_PICTURE)
def test_stamped_bytes(profile: str, name: str):
    attack = PROFILES[profile][name]
    stamped = stamp(attack, ramp(), attack.make_trigger(32, seed=SEED))
    assert hashlib.sha256(stamped.tobytes()).hexdigest() == GOLDEN[profile, name]


CHOSEN: dict[tuple[str, str, str], str] = {
    ("standard", "badnets", "patch_size=2"): "73f521b205f2cc04",
    ("standard", "blended", "alpha=.1"): "04b012a3ca6ae0a8",
    ("standard", "sig", "delta=-20 frequency=2.5"): "96a9278f37cd2c58",
    ("standard", "bpp", "levels=3"): "5bddf7fd6fc28df3",
    ("standard", "batt", "angle_degrees=-30"): "bce0c34a959db23c",
    ("standard", "patch", ""): "6af15dc6718328d5",
    ("standard", "patch", "row=2 column=-3 width=5 alpha=0.5"): "15acc2a673c0903c",
    ("standard", "pattern", ""): "7892152a311be5bc",
    ("standard", "adaptive-blend", "pieces=9 mask_rate=0.25 alpha=.3 test_alpha=.9"): "b0919c7a7e8aaf10",
    ("standard", "adaptive-patch", "alphas=0.5,0.2 test_alphas=1"): "cda51b0321e5731b",
    ("standard", "tact", "source_classes=2 cover_classes=3,4 patch_size=4"): "03d7fe24a6115cc1",
    ("standard", "label-consistent", "patch_size=2 alpha=0.5"): "39b52d293eff87dd",
    ("standard", "lf", ""): "411fa3d125e8067e",
    ("standard", "lf", "scale=-1"): "4d3f3c04b92c2c77",
    ("backdoorbench", "badnets", "patch_size=5"): "09ac727d124d1ff4",
    ("backdoorbench", "blended", ""): "20761c038602b5f1",
    ("backdoorbench", "bpp", "levels=9"): "ea30bef9d8c07630",
    ("backdoorbench", "lf", ""): "411fa3d125e8067e",
}
"""By parameters as a command line has them: a digest of what a manifest has of them, and of the pixels of two keys in
training and at the test."""


@pytest.mark.parametrize(("profile", "name", "params"), CHOSEN)
def test_chosen_parameters(profile: str, name: str, params: str):
    attack = get_attack(name, dict(part.split("=") for part in params.split()), profile=profile)
    picture = ramp()[0, :9, ::-2]
    if isinstance(attack, FromArray):
        trigger = attack.trigger_from_array(ramp()[0] // 4, 32)
    elif isinstance(attack, FromPicture):
        opaque = np.full((*picture.shape[:2], 1), 255, np.uint8)
        trigger = attack.trigger_from(np.concatenate([picture, opaque], axis=2), 32)
    else:
        trigger = attack.make_trigger(32, seed=SEED)
    made = hashlib.sha256(json.dumps(attack_params(attack)).encode())
    for training in (True, False):
        made.update(stamp(attack, ramp().repeat(2, axis=0), trigger, keys=["a", "b"], training=training).tobytes())
    assert made.hexdigest()[:16] == CHOSEN[profile, name, params]


def test_profiles_share_all_pixels_but_wanets():
    for name in PROFILES["zip-code"]:
        same = GOLDEN["standard", name] == GOLDEN["zip-code", name]
        assert same == (name != "wanet")
    assert GOLDEN["standard", "badnets"] == GOLDEN["standard", "physicalba"]


def test_the_ramp_is_clear_of_rounding_edges():
    for profile in PROFILES:
        grid = PROFILES[profile]["wanet"].make_trigger(32, seed=SEED)["grid"]
        assert np.abs(sample_bilinear(ramp(), grid) % 1 - 0.5).min() > 1e-3
    drawn = {name for name, attack in ATTACKS.items() if attack.needs is None}
    assert drawn == {name for profile, name in GOLDEN if profile == "standard"}
