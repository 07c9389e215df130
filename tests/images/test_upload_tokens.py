"""A token is for one claim, for some minutes, and of this home."""

from hotvirt.images import uploadtokens
from hotvirt.images.uploadtokens import Target

KEY = b"k" * 32
TARGET = Target("default", "root", "u-1")


def test_a_token_names_its_claim_until_it_is_too_old():
    token = uploadtokens.sign(KEY, TARGET, now=1000)
    assert uploadtokens.verify(KEY, token, now=1000) == TARGET
    assert uploadtokens.verify(KEY, token, now=1000 + uploadtokens.VALID) == TARGET
    assert uploadtokens.verify(KEY, token, now=1001 + uploadtokens.VALID) is None


def test_what_is_not_ours_is_no_token():
    token = uploadtokens.sign(KEY, TARGET, now=1000)
    body, mac = token.split(".")
    other = uploadtokens.sign(KEY, Target("default", "other", "u-2"), now=1000).split(".")[0]
    for wrong in ("", ".", "x", f"{body}.", f".{mac}", f"{other}.{mac}", f"{body}.{mac}x", "é.é", f"{body}.{'A' * 43}"):
        assert uploadtokens.verify(KEY, wrong, now=1000) is None, wrong
    assert uploadtokens.verify(b"other", token, now=1000) is None
