"""`upload.cdi.kubevirt.io`: an UploadTokenRequest is answered with a token for the upload proxy. Stateless."""

import json
from collections.abc import Callable

from aiohttp import web

from hotvirt.api import datavolumes
from hotvirt.images import uploadtokens
from hotvirt.kube.aggregated import RequestContext, ServedResource
from hotvirt.kube.client import Client
from hotvirt.kube.errors import BadRequest, MethodNotAllowed, NotFound
from hotvirt.kube.resources import CLAIMS
from hotvirt.kube.times import Clock

KIND, PLURAL = "UploadTokenRequest", "uploadtokenrequests"
_LARGEST = 64 << 10


class UploadTokens:
    """Who may create uploadtokenrequests in a namespace may upload into its claims that wait for it."""

    name = "upload.cdi.kubevirt.io"
    versions: tuple[str, ...] = ("v1beta1",)
    open_paths: tuple[str, ...] = ()
    resources: tuple[ServedResource, ...] = (ServedResource(PLURAL, KIND, verbs=("create",)),)

    def __init__(self, client: Callable[[], Client], key: bytes, *, clock: Clock) -> None:
        self._client, self._key, self._clock = client, key, clock

    async def handle(self, request: web.Request, context: RequestContext) -> web.StreamResponse:
        if context.plural != PLURAL or context.name:
            raise NotFound("the server could not find the requested resource")
        if request.method != "POST":
            raise MethodNotAllowed(f"{PLURAL} can only be created")
        try:
            body = json.loads((await request.content.read(_LARGEST)) or b"null")
            name = str(body["spec"]["pvcName"])
        except (ValueError, KeyError, TypeError) as error:
            raise BadRequest("an UploadTokenRequest is to name a claim in spec.pvcName") from error
        claim = await self._client().get(CLAIMS, name, context.namespace)
        if datavolumes.UPLOAD not in datavolumes.annotations(claim) and not _is_upload(claim):
            raise BadRequest(f"claim {name} does not wait for an upload: make a DataVolume with source upload")
        target = uploadtokens.Target(context.namespace, name, claim["metadata"]["uid"])
        token = uploadtokens.sign(self._key, target, now=self._clock().timestamp())
        metadata = {**(body.get("metadata") or {}), "namespace": context.namespace}
        return web.json_response(
            {
                "apiVersion": f"{self.name}/v1beta1", "kind": KIND, "metadata": metadata, "spec": {"pvcName": name},
                "status": {"token": token},
            },
            status=201,
        )  # fmt: skip


def _is_upload(claim: dict[str, object]) -> bool:
    reference = datavolumes.reference(claim.get("spec") or {})  # type: ignore[arg-type]
    return (reference or {}).get("kind") == "VolumeUploadSource"
