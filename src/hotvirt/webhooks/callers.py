"""Who asks: a part of the control plane, or a person, of whom the API is asked what they may do."""

from hotvirt.kube.admission import User
from hotvirt.kube.client import Client
from hotvirt.kube.resources import ACCESS_REVIEWS

OUR_GROUP = "system:serviceaccounts:kubevirt"


def is_ours(user: User) -> bool:
    """Whether a control-plane part asks."""
    return OUR_GROUP in user.groups


async def may(client: Client, user: User, attributes: dict[str, str]) -> bool:
    """Whether the API would let `user` do what `attributes` name (a SubjectAccessReview's resourceAttributes)."""
    spec = {
        "user": user.name, "groups": list(user.groups), "uid": user.uid, "extra": user.extra,
        "resourceAttributes": attributes,
    }  # fmt: skip
    review = {"apiVersion": ACCESS_REVIEWS.api_version, "kind": ACCESS_REVIEWS.kind, "metadata": {}, "spec": spec}
    answer = await client.create(ACCESS_REVIEWS, review)
    return bool((answer.get("status") or {}).get("allowed"))
