"""TLS towards an API server, from what a kubeconfig says. Standard library only."""

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from hotvirt.kube.kubeconfig import Access


def client_context(access: Access) -> ssl.SSLContext:
    """Trusts the kubeconfig's CA (else the system's), and shows its client certificate."""
    context = ssl.create_default_context(cadata=access.ca or None)
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
