"""TLS towards an API server, from what a kubeconfig says. Standard library only."""

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

from hotvirt.kube.kubeconfig import Access


class _Named(ssl.SSLContext):
    """Asks for the certificate of a name, whatever address it connects to."""

    _name = ""

    @classmethod
    def like(cls, plain: ssl.SSLContext, access: Access) -> Self:
        context = cls(ssl.PROTOCOL_TLS_CLIENT)
        context._name, context.verify_flags = access.tls_server_name, plain.verify_flags
        if access.ca:
            context.load_verify_locations(cadata=access.ca)
        else:
            context.load_default_certs()
        return context

    def wrap_socket(self, *args: Any, **settings: Any) -> ssl.SSLSocket:
        return super().wrap_socket(*args, **{**settings, "server_hostname": self._name})

    def wrap_bio(self, *args: Any, **settings: Any) -> ssl.SSLObject:
        return super().wrap_bio(*args, **{**settings, "server_hostname": self._name})


def client_context(access: Access) -> ssl.SSLContext:
    """Trusts the kubeconfig's CA (else the system's), and shows its client certificate."""
    context = ssl.create_default_context(cadata=access.ca or None)
    if access.tls_server_name:
        context = _Named.like(context, access)
    if access.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if access.certificate:
        # OpenSSL reads certificates from files only; these exist in memory and vanish with the descriptor.
        with _in_memory(access.certificate) as certificate, _in_memory(access.key) as key:
            context.load_cert_chain(certificate, key)
    return context


@contextmanager
def _in_memory(text: str) -> Iterator[str]:
    descriptor = os.memfd_create("hotvirt")
    try:
        os.write(descriptor, text.encode())
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
